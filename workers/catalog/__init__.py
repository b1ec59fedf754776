"""The catalog: agent files and what they name, read and checked.

catalog: agents that a worker offers
agents: agent files
earlier_agents: agents of earlier files
tools: entries of `tools`
children: agents as tools of agents
plans: plan files
plan_members: plans as agents without models
written_plans: plans of models, carried out
mcp_acceptance: words of MCP servers, accepted
provider_tools: tools as the models' vendors take them
prices: prices and windows of models
costs: costs of a run and of a call
checks: checks, probes, compensations
policies: shared policy files
rule_matches: rules that match no tool
policy_summary: outcomes by the rules
examples: calls judged as written
people: file of people
channels: file of channels
budgets: file of budgets
endpoints: file of providers
file_kinds: kinds of these four
params: request fields, by the vendors' types
readiness: needs of a process
conditions: conditions against tools
condition_types: types of conditions' variables
condition_reads: arguments that conditions read
condition_errors: errors of CEL in words
"""
