"""Tools and checks for tests of verification; what they say is set by the test in `SAYS`."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from mandate.activities.checks.functions import check
from mandate.activities.toolbox.decorator import ToolContext, tool
from mandate.workflows.contracts.verification import CheckResult

SAYS: list[Any] = []
"""What the next calls return or raise, in order; the last one stays."""

CALLED: list[tuple[dict[str, Any], ToolContext | None]] = []
"""What tools and checks were given."""


def say(*answers: Any) -> None:
    SAYS[:] = answers
    CALLED.clear()


def _next() -> Any:
    answer = SAYS.pop(0) if len(SAYS) > 1 else SAYS[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer


@tool(effect="read", sensitive=["card"], timeout="2s")
async def find(context: ToolContext, order: int = 0, key: str = "", card: str = "", seconds: float = 0.0) -> Any:
    """Find a payment."""
    CALLED.append(({"order": order, "key": key}, context))
    await asyncio.sleep(seconds)
    return _next()


@tool(effect="read", timeout="2s")
async def find_plain(context: ToolContext, order: int = 0, key: str = "", seconds: float = 0.0) -> Any:
    """Find a payment, with nothing sensitive."""
    CALLED.append(({"order": order, "key": key}, context))
    await asyncio.sleep(seconds)
    return _next()


@tool(effect="read")
async def find_in_spite(context: ToolContext, order: int = 0, key: str = "") -> Any:
    """Find a payment, and return in spite of a cancellation."""
    CALLED.append(({"order": order, "key": key}, context))
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return _next()


@tool(effect="once", sensitive=["card"])
def pay(order: int, amount: float, card: str = "") -> Any:
    """Pay."""


@tool(effect="once")
def send(to: str) -> Any:
    """Send."""


@check
def judge_sync(result: Any, args: Any, context: Any) -> Any:
    CALLED.append(({"result": result, "args": args}, context))
    return _next()


@check
async def judge_async(result: Any) -> Any:
    return _next()


@check
def judge_answer(answer: Any, result: Any, more: int = 1) -> Any:
    CALLED.append(({"answer": answer, "result": result}, None))
    return _next()


@check
def amounts_agree(result: Any, args: Any) -> None:
    assert result["amount"] == args["amount"], f"{result['amount']} was paid with {args.get('card')}"


@check
def sleeps(result: Any, context: Any) -> bool:
    CALLED.append(({}, context))
    while not context.cancelled:
        time.sleep(0.01)
    CALLED.append(({"cancelled": True}, context))
    return True


PASS = CheckResult(finding="pass", reason="it is all there")


def no_check(result: Any) -> bool:
    return True
