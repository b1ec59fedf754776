"""Errors that Python functions raise, in words: those inside of exception groups, and never a failure of their own."""

from collections.abc import Iterator

from mandate.activities.toolbox.contained_tasks import ToolExit
from mandate.workflows.rules.surrogates import repair_text

_SHOWN = 3
"""Errors of one group that are told."""
_CAUSES = 5
"""Errors of one chain of causes that are told."""


def list_errors(error: BaseException) -> tuple[BaseException, ...]:
    """Return what happened: the errors in a group and in groups inside it, in their order; else `error` alone."""
    return tuple(_walk(error))


def _walk(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseExceptionGroup):
            waiting += reversed(found.exceptions)
        elif isinstance(found, ToolExit) and found.__cause__ is not None:
            waiting.append(found.__cause__)
        else:
            yield found


def describe_error(error: BaseException) -> str:
    """Return `TypeOfError: what it says`; of a group the errors in it, each once.

    An error that says nothing is told with its cause.
    """
    told = list(dict.fromkeys(map(_describe, list_errors(error))))
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def read_message(error: BaseException) -> str:
    """Return what an error says; empty where it says nothing, or its own code fails."""
    try:
        return repair_text(str(error))
    except BaseException:  # noqa: BLE001 - __str__ is the tool's code
        return ""


def _describe(error: BaseException) -> str:
    chain = [error]
    # Causes may lead back to where they began.
    while not read_message(chain[-1]) and (cause := chain[-1].__cause__) is not None and len(chain) < _CAUSES:
        if any(cause is each for each in chain):
            break
        chain.append(cause)
    message = read_message(chain[-1])
    kinds = ", caused by ".join(type(each).__name__ for each in chain)
    return f"{kinds}: {message}" if message else kinds
