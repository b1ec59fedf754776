"""The context of a model call: its parts, its size and its limits.

tokenizer: tokens of a text
estimate: tokens by what makes them
calibration: estimates by a run's own reports
sizes: tokens of messages and agents
limits: limits of a model
cuts: what a cut keeps
left_out: calls that a conversation leaves out
backtrack: earlier step of a conversation
summary: summaries and their checks
assembly: the request of one step
"""
