"""Errors of the command line, as one sentence and an exit code."""

import sys
from collections.abc import Mapping

import typer

DONE = 0
ENDED_OTHERWISE = 1
"""The run ended, but not with an answer."""
REFUSED = 2
"""Bad usage or input, or something that the command needs is not there."""
UNAVAILABLE = 75
"""What a worker needs does not answer: the same may work later (`EX_TEMPFAIL`)."""
INTERRUPTED = 130

OURS = "mandate"


class CliError(Exception):
    """The error that ends the command; the text is for its user, and `details` go with it for programs."""

    def __init__(self, message: str, code: int = REFUSED, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class Unreachable(CliError):
    """The error that nothing answers at an address."""


class SilentExit(Exception):
    """The error that ends the command when everything has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


def report(error: Exception, *, as_json: bool) -> int:
    """Say on stderr what went wrong; return the exit code."""
    from mandate.workers.cli.output import print_error, write_error  # noqa: PLC0415 - a library only for what went wrong

    faults = getattr(error, "faults", None)
    if faults and not as_json:
        write_error(str(error))
        return REFUSED
    code = error.code if isinstance(error, CliError) else REFUSED
    known = error.details if isinstance(error, CliError) else None
    details = {"faults": [str(fault) for fault in faults]} if faults else known
    print_error(sentence(error), code=code, as_json=as_json, details=details)
    return code


def sentence(error: BaseException) -> str:
    """Describe the error and, where that is known, what to do."""
    if isinstance(error, typer.TyperException):
        return _usage(error)
    rpc = sys.modules.get("temporalio.service")
    if rpc is not None and isinstance(error, rpc.RPCError):
        lost = error.status in {rpc.RPCStatusCode.UNAVAILABLE, rpc.RPCStatusCode.DEADLINE_EXCEEDED}
        return f"Temporal {'does not answer' if lost else 'refused'}: {' '.join(error.message.split())}"
    if type(error).__module__.partition(".")[0] == OURS:
        return str(error) or type(error).__name__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} (MANDATE_DEBUG=1 shows where)"


def _usage(error: typer.TyperException) -> str:
    message = error.format_message()
    if (cause := error.__cause__) is not None and (raw := getattr(error, "message", "")):
        from pydantic import ValidationError  # noqa: PLC0415 - a library only for what went wrong

        from mandate.workflows.rules import validation  # noqa: PLC0415 - a library only for what went wrong

        if isinstance(cause, ValidationError):
            message = message.replace(raw, validation.describe_misfit(cause))
    context = getattr(error, "ctx", None)
    where = f"; see `{context.command_path} --help`" if context is not None else ""
    return f"{message.rstrip('.')}{where}"
