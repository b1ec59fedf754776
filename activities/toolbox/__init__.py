"""One module a source of tools; how its failures read is decided there and nowhere else."""
