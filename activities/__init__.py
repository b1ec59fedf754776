"""Activities: everything that touches the world.

agent: start of a run
other_runs: state of other runs
origin: run that another one goes on from
session: sessions, as they are kept
children: starts and ends of children
plan: progress of a plan
plan_calls: calls of a plan, as its conversation holds them
model: one call of a model
streams: texts of models as they come
period_budgets: budgets beyond one run
tool: one call of a tool
verification: checks of results, probes of calls
compensation: calls that take others back
decision: checks of people's decisions
notification: notices to people
result_cache: results that answer equal calls
tool_error: an attempt without a result
retry_after: waits that others ask for
failures: exceptions as Temporal failures
board: values that runs share
purse: model calls of an activity, each counted once
guard: marks of activities' requests
keyring: keys of an installation
heartbeat: heartbeats from a background task
trace_context: trace context of an activity's requests
own_files: limits to one worker's files
own_scripts: limits to one worker's scripts
documents: YAML files with places
private_files: files for their owner only
child_processes: process groups that end with us
threads: sync functions in their threads
context: what a model is sent, within its window
channels: notices on each channel
checks: results and answers, checked
people: directory, signatures, edited arguments
providers: adapters to model providers
stores: blobs by address
toolbox: sources of tools
transcript: conversation of a run
text_files: text in any encoding that editors save
files: YAML files as specs, with faults
live_files: YAML files, read for each use
"""
