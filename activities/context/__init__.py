"""The context of a model call: its parts, its size and its limits.

estimate: tokens of a text
tokenizer: exact counts, where one is used
calibration: corrections of estimates
sizes: tokens of messages and agents
limits: limits of a model
cuts: what a cut keeps
left_out: calls that a conversation leaves out
backtrack: earlier step of a conversation
summary: summaries and their checks
assembly: the request of one step
"""
