"""Checks of results and answers, and looks at what happened."""
