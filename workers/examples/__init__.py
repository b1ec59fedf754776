"""One concept a file; every one runs without keys."""
