"""Pages of `mandate validate`: files in words and as JSON.

agents: agents in words
costs: costs of agents in words
policies: policies in words
budgets: budgets in words
endpoints: file of providers in words
plans: plans in words and drawings
call: verdict on one call
acceptance: acceptance of MCP tools
live: one call of a model
"""
