"""The client library.

client: connection, starts, results
earlier_run: run that has a workflow id already
answers: answers of runs to questions
inbox: requests of all runs
rounds: questions to many runs
trees: runs below a run
messages: decisions and words, many at once
patterns: plans of many agents, made by functions
sessions: messages to sessions
trace_context: trace context of who starts a run
streams: texts of models, read along
ag_ui: a run as events of AG-UI
updates: one message as an update
schedules: schedules of runs
start_requests: requests that start runs
pollers: workers of a task queue
queries: questions to runs
in_flight: limit on messages per run
diagnosis: run that does not answer
decisions: decisions, looked up and sent
entitlement: requests that a person may answer
"""
