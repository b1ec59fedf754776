"""Questions to the person at the terminal, and answers that they type while a command goes on."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status
from rich.text import Text

from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.cli.output import Output
from mandate.workflows.contracts.request import GO_BACK, REJECT, Request, RequestKind

_KEYS: Mapping[RequestKind, Mapping[str, str]] = {
    "approval": {"y": "approve", "yes": "approve", "n": REJECT, "no": REJECT},
    "outcome": {"y": "happened", "yes": "happened", "n": "not_happened", "no": "not_happened"},
}
_PROMPTS = {"question": "any text", "approval": "y or n", "outcome": "y (it happened), n (it did not) or stop"}
_SHORT = {"question": "any text", "approval": "y/n", "outcome": "y/n/stop"}


def needs_value(request: Request, choice: str) -> bool:
    """Return whether a choice needs more than to be made."""
    return choice == "raise" if request.kind == "budget" else choice in {"answer", "supply", GO_BACK}


@dataclass(frozen=True, slots=True)
class Answer:
    """A choice, and what goes with it."""

    choice: str
    value: str | None = None
    comment: str = ""


async def confirm(
    out: Output, what: str, lines: Sequence[str], *, yes: bool, declined: str = "nothing was sent"
) -> None:
    """Show several things as `lines`, and let the person at the terminal say once more that they want `what`.

    Raises:
        CliError: they do not want it, or nobody can be asked and `yes` was not said either.
    """
    for line in lines:
        out.note(line)
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"nobody can be asked whether to {what}; add --yes")
    if not await out.confirm(f"{what}?"):
        raise CliError(declined, ENDED_OTHERWISE)


def keys(request: Request) -> str:
    """Return what can be typed here: `y or n`."""
    if request.kind == "question" and request.options:
        return " or ".join(request.options)
    return _PROMPTS.get(request.kind) or " or ".join(_plain_choices(request))


def short_keys(request: Request) -> str:
    """Return the same for the end of a line: `y/n`."""
    if request.kind == "question" and request.options:
        return "/".join(request.options)
    return _SHORT.get(request.kind) or "/".join(_plain_choices(request))


def _plain_choices(request: Request) -> Iterator[str]:
    return (choice for choice in request.choices if not needs_value(request, choice))


def typed(request: Request, line: str) -> Answer | None:
    """Return the answer that a typed line means; `None` when it is none of `keys`."""
    if request.kind == "question":
        return Answer("answer", line)
    choice = _KEYS.get(request.kind, {}).get(line.lower(), line.lower())
    return Answer(choice) if choice in request.choices and not needs_value(request, choice) else None


@dataclass(slots=True)
class Waiting:
    """A line that turns while a command waits; nothing where nobody watches."""

    _status: Status | None = None

    def show(self, screen: Console | None, text: str | None) -> None:
        """Say on `screen` what is waited for; `None` when nothing is."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if text is not None and screen is not None:
            self._status = screen.status(Text(text, style="dim"))
            self._status.start()


def is_attended() -> bool:
    """Tell whether a person can type here; a process in the background would be stopped for reading."""
    with contextlib.suppress(OSError):
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


async def read_lines() -> AsyncIterator[str]:
    """Yield the lines that are typed from now on; a thread that reads would hold the end of the command up."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        typed = b""
        with contextlib.suppress(OSError):
            typed = os.read(stdin, 4096)
        for line in typed.decode(errors="replace").splitlines() if typed else (None,):
            lines.put_nowait(line)
        if not typed:
            loop.remove_reader(stdin)

    loop.add_reader(stdin, read)
    try:
        while (line := await lines.get()) is not None:
            yield line.strip()
    finally:
        loop.remove_reader(stdin)
