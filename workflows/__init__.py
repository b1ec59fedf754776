"""Decide: deterministic code that may run inside Temporal's sandbox."""
