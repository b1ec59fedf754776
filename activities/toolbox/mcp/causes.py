"""Causes of failures inside exception groups."""

import asyncio
from collections.abc import Iterator

import anyio

_CONSEQUENCES = (
    asyncio.CancelledError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    GeneratorExit,
)
"""Errors that others bring about when they end a connection."""


def find_cause(error: BaseException) -> BaseException:
    """Return the exception that brought the others about: the first in the groups that is no mere consequence."""
    causes = list(_leaves(error))
    return next((cause for cause in causes if not isinstance(cause, _CONSEQUENCES)), causes[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
