"""The loop: one module a stage of a run."""
