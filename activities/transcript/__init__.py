"""The transcript: the conversation of a run in the store."""
