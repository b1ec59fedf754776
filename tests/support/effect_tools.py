"""A tool that does, attempt by attempt, what its argument says; each call leaves its idempotency key in `KEYS`."""

import asyncio
import ctypes
import json
import time
from pathlib import Path

from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool

KEYS: dict[int, list[str]] = {}
"""By order, one for each attempt."""


@tool
async def act(order: int, how: str, context: ToolContext) -> str:
    """Do something: `how` is a list of `return`, `not done`, `busy`, `raise` and `hang`, one for each attempt."""
    KEYS.setdefault(order, []).append(context.idempotency_key)
    steps = how.split(", ")
    match steps[min(context.attempt, len(steps)) - 1]:
        case "not done":
            raise NotDone("the account is closed")
        case "busy":
            raise NotDone("come again", retry_after=0.1)
        case "raise":
            raise ConnectionError("the line broke")
        case "hang":
            await asyncio.sleep(10)
    return "did it"


def journalled(journal: Path) -> list[str]:
    """The idempotency keys of the calls that the MCP server of the tests has written down."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [str(json.loads(line)["key"]) for line in lines]


def written(journal: str | Path) -> list[tuple[str, int, str]]:
    """What, attempt and key of each line of a journal of the tools below."""
    lines = Path(journal).read_text().splitlines() if Path(journal).exists() else []
    return [(what, int(attempt), key) for what, attempt, key in (line.split() for line in lines)]


def _write(journal: str, what: str, context: ToolContext) -> None:
    with Path(journal).open("a") as lines:
        lines.write(f"{what} {context.attempt} {context.idempotency_key}\n")


@tool(timeout="60s")
async def stall(journal: str, seconds: float, context: ToolContext) -> str:
    """Do something while the worker cannot do anything else, so that it sends no heartbeats."""
    _write(journal, "began", context)
    # Of C, with the interpreter's lock held.
    ctypes.PyDLL(None).sleep(int(seconds))
    _write(journal, "ended", context)
    return f"attempt {context.attempt}"


@tool(timeout="60s")
def linger(journal: str, context: ToolContext) -> str:
    """Do something whose first attempt ends when the file `JOURNAL.release` is there, also when it is cancelled."""
    _write(journal, "began", context)
    while context.attempt == 1 and not Path(f"{journal}.release").exists():
        time.sleep(0.05)
    _write(journal, "ended", context)
    return f"attempt {context.attempt}"
