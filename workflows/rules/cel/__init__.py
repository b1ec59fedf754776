"""Conditions in CEL: reading, cost and evaluation.

evaluation: value of an expression
tree: compiled expression as a tree
variables: variables that an expression reads
shapes: types of values, by their schemas
inference: types of what an expression reads
values: plain values for the library
cost: bound on evaluation's cost
growth: size of values from loops
errors: reasons in words
"""
