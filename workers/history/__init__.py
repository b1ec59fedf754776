"""The history of a run, read from Temporal without a worker.

run_history: state of a run by its events
requests: requests and decisions
events: events for people
record: conversation and history together
stream: what happens, as it happens
"""
