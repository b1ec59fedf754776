"""Tools for tests: each call is kept in `CALLS`, so that a test can say what reached a tool and what did not."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mandate.activities.checks.functions import check
from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool


@dataclass
class Call:
    tool: str
    workflow_id: str
    arguments: dict[str, object]
    key: str
    attempt: int
    step: int
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None


CALLS: list[Call] = []
_lock = threading.Lock()
_holds: list[str] = []

LET_GO: set[str] = set()
"""Workflow ids of runs whose held calls and checks may end."""


@contextmanager
def held(name: str) -> Iterator[None]:
    """Calls of `look` or `pay`, whichever is named, go on until the end of the block."""
    _holds.append(name)
    try:
        yield
    finally:
        _holds.remove(name)


async def _work(name: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    while name in _holds:
        await asyncio.sleep(0.02)


def calls_of(workflow_id: str, name: str | None = None) -> list[Call]:
    """Calls of one run in the order in which they began."""
    return [call for call in CALLS if call.workflow_id == workflow_id and name in (None, call.tool)]


def keep(name: str, context: ToolContext, **arguments: object) -> Call:
    call = Call(name, context.workflow_id, arguments, context.idempotency_key, context.attempt, context.step)
    with _lock:
        CALLS.append(call)
    return call


@tool(effect="read", retries=1, timeout="20s")
async def look(what: str, context: ToolContext, seconds: float = 0.0, held: bool = False) -> str:
    """Look at something."""
    call = keep("look", context, what=what)
    await _work("look", seconds)
    while held and context.workflow_id not in LET_GO:
        await asyncio.sleep(0.02)
    call.ended = time.monotonic()
    return f"looked at {what}"


@tool(effect="read", retries=2, timeout="20s")
def look_bad(context: ToolContext, shelf: int = 0) -> str:
    """Fail always."""
    keep("look_bad", context)
    raise ValueError("the shelf is empty")


@tool(effect="read", retries=2, timeout="20s")
def look_odd(context: ToolContext, refuse: bool = False, break_first: int = 0) -> str:
    """Look, or say that nothing was done; with `break_first` fail that often."""
    keep("look_odd", context, break_first=break_first)
    if refuse:
        raise NotDone("nobody looks there")
    made = [call for call in calls_of(context.workflow_id, "look_odd") if call.step == context.step]
    if len(made) <= break_first:
        raise ConnectionError("the line broke")
    return "odd"


@tool(effect="read", timeout="20s")
def big(size: int, context: ToolContext) -> str:
    """Return so many bytes, numbered lines of 10."""
    keep("big", context, size=size)
    return "".join(f"{number:09d}\n" for number in range(size // 10))


@tool(effect="keyed", retries=3, timeout="20s")
async def pay(
    order: int, context: ToolContext, amount: float = 1.0, seconds: float = 0.0, fail_first: int = 0
) -> dict[str, object]:
    """Pay."""
    call = keep("pay", context, order=order, amount=amount)
    await _work("pay", seconds)
    call.ended = time.monotonic()
    if context.attempt <= fail_first:
        raise ConnectionError("the line broke")
    return {"paid": amount, "order": order}


@tool(effect="once", retries=3, timeout="20s")
def send(
    to: str,
    context: ToolContext,
    lose_reply: bool = False,
    refuse: bool = False,
    card: str = "",
    lose_first: bool = False,
) -> str:
    """Send a letter."""
    call = keep("send", context, to=to)
    time.sleep(0.05)
    call.ended = time.monotonic()
    if refuse:
        raise NotDone("there is no such address")
    if lose_reply or (lose_first and len(calls_of(context.workflow_id, "send")) == 1):
        raise ConnectionError("the line broke")
    return f"sent to {to}"


@tool(effect="idempotent", retries=1, timeout="1s")
async def hang(context: ToolContext) -> str:
    """Never return."""
    keep("hang", context)
    await asyncio.sleep(60)
    return "back"


@tool(effect="keyed", timeout="20s")
async def block(word: str, seconds: float, context: ToolContext) -> str:
    """Block the event loop that it runs in."""
    keep("block", context, word=word)
    time.sleep(seconds)
    return f"blocked for {word}"


@tool(effect="once", timeout="20s")
def write_note(text: str, context: ToolContext) -> str:
    """Keep a text."""
    keep("write_note", context, text=text)
    return f"kept {len(text)} characters"


@tool(effect="keyed", timeout="20s")
def give_back(order: int, paid: float, key: str, context: ToolContext) -> str:
    """Pay back what was paid."""
    keep("give_back", context, order=order, paid=paid, key=key)
    return "paid back"


@tool(effect="once", timeout="20s")
def fail_once(to: str, context: ToolContext) -> str:
    """Do something and lose the reply."""
    keep("fail_once", context, to=to)
    raise ConnectionError("the line broke")


BOOKED: set[str] = set()
"""Whom a letter has reached, as `find_letter` sees it."""


@tool(effect="read", timeout="20s")
def find_letter(to: str, context: ToolContext, held: bool = False) -> dict[str, object]:
    """Whether a letter was sent."""
    keep("find_letter", context, to=to)
    if held:
        _hold(context)
    return {"done": to in BOOKED, "to": to}


TOOLKIT_CHECKS: list[str] = []
"""Python checks that were made."""


@check
def is_true_in_the_end(context: ToolContext) -> bool:
    """True, once the run is let go."""
    _hold(context)
    return True


@check
def is_false_in_the_end(context: ToolContext) -> bool:
    """False, once the run is let go."""
    _hold(context)
    return False


def _hold(context: ToolContext) -> None:
    while context.workflow_id not in LET_GO and not context.wait(0.02):
        pass


@check
async def takes_a_while() -> bool:
    """True after 80 ms."""
    await asyncio.sleep(0.08)
    return True


@check
def is_paid(result: dict[str, object]) -> bool:
    """Whether the payment says so."""
    TOOLKIT_CHECKS.append("is_paid")
    return "paid" in result
