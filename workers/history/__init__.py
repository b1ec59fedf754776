"""The history of a run, from Temporal and the store, without a worker.

run_history: state of a run, built from events
requests: requests and decisions
budget_history: budget of a run
children: children of a run
plan_steps: steps of a plan, from its conversation
step_events: events of the steps of a plan
models: models of a run
local_activities: local activities in a history
events: events for people
board: values that runs share
record: reads a run: history and conversation
timeline: bars of a run, over all its parts
picture: record, time line and conversation of a run
timeline_reader: time line, read from events
time_axis: axis of a time line
parts: earlier parts of a run
token_use: tokens of each step's request
stats: numbers over many runs
stream: events while a run goes on
tree: runs below a run, and their ends
"""
