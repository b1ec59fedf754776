"""Workflows: deterministic code that may run inside Temporal's sandbox.

agent: `AgentWorkflow`
plan: `PlanWorkflow`
handlers: updates, signals, queries
steps: activities with their options
outcomes: outcomes of finished and failed activities
marks: marks on messages of workflows
loop: stages of a run
rules: decisions as pure functions
contracts: values that cross Temporal
"""
