"""Conditions in CEL: reading, cost and evaluation."""
