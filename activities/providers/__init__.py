"""One module a model protocol; each is imported only when a configuration names it."""
