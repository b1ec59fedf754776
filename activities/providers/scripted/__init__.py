"""The scripted provider: a model that says what a file says."""
