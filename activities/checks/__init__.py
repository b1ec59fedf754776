"""Checks of results and answers, and looks at what happened.

subject: call or answer that is checked
functions: Python functions as checks
model_judge: checks by a model
evidence: what such a model sees
findings: outcome of a check
lookup: calls of read tools
probe: outcome of an unknown call
"""
