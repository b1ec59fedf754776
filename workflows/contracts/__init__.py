"""Frozen values that cross Temporal, the store and files; stdlib and pydantic only."""
