"""Errors of the command line, as one sentence and an exit code."""

from collections.abc import Mapping

DONE = 0
ENDED_OTHERWISE = 1
"""The run ended, but not with an answer."""
REFUSED = 2
"""Bad usage or input, or something that the command needs is not there."""
INTERRUPTED = 130


class CliError(Exception):
    """The error that ends the command; the text is for its user, and `details` go with it for programs."""

    def __init__(self, message: str, code: int = REFUSED, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class SilentExit(Exception):
    """The error that ends the command when everything has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code
