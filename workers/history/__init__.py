"""The history of a run, read from Temporal without a worker."""
