"""Run: processes, composition and the command line."""
