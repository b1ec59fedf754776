"""Pure functions over contracts: no clock, no I/O, no temporalio.

policy: verdict on a call, with its reason
needs: people whom a verdict asks, until when
decisions: decisions on a request, refusals in words
commands: commands that answer a request
next_step: step after a model's answer
recovery: failures, and when people decide
verification: checks that follow a call
routing: model of the next step, and why
budget: reservations within limits
budget_use: use of a run's limits
children: shares and results of children
price: cost of a call, and its bound
patience: time for which calls are repeated
local_activities: activities that run within a workflow task
period_budgets: budgets that a run counts in
totals: sums over a run's calls
effects: keys and log of effects
result: result of a run
sessions: replies and state of a session
origins: calls that an origin has made
backtrack: ways back inside a run
board: writes to the board
state_text: state in words for the model
input_size: most that a run is asked
validation: pydantic's errors as sentences
wording: calls and results in words, no refusals
quantities: counted nouns, seconds
plain_text: text without control characters
json_pointer: references inside a schema
surrogates: text that UTF-8 can carry
redaction: sensitive arguments, masked
names: names that read as one
marks: computation of marks
trace_ids: ids of traces and spans
cel: conditions in CEL
plans: plans before they begin and under way
"""
