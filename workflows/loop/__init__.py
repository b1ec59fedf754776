"""The loop: one module a stage of a run.

run: state of a run
start: input of a run
model_route: model of the next step
turn: calls of one turn
tool_calls: attempts of a call
children: runs below a run
parent: run above a child
waits: waits between attempts
reconciliation: unknown outcomes
verification: checks
approvals: calls that people decide on
questions: questions of MCP servers
dialogues: questions in the middle of a call
resolutions: closed requests, choices about a run
escalation: people, where retries cannot help
model_calls: calls of models, one after another
budget: ledger of a run, last answer
attempts: failures of a turn, counted
compensation: calls that take others back
people: gate of requests: decisions, expiry
open_requests: facts about open requests
decision_lookups: decisions looked up together
deferred_decisions: decisions kept for later
notifications: notices to people
control: steer, pause, resume, stop
plan: calls of a plan, as they overlap
session: messages and their answers
visibility: search attributes, details, memo
telemetry: notes for spans and metrics
observations: facts that are noted, and when
"""
