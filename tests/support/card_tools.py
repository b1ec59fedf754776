"""Tools that are given the number of a card, and do with it whatever a careless tool does."""

import asyncio

from pydantic import BaseModel

from mandate.activities.checks.functions import check
from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from tests.support.toolkit import keep

CARD = "4111222233334444"


class Panic(BaseException):
    """An error as libraries in Rust raise it."""


class Payment(BaseModel):
    card: str
    amount: float


@tool(effect="keyed", retries=0, timeout="20s", sensitive=["card"])
def charge(
    card: str, amount: float, context: ToolContext, how: str = "well", parts: list[Payment] | None = None
) -> str:
    """Charge a card."""
    keep("charge", context, card=card, amount=amount, parts=[part.card for part in parts or ()])
    match how:
        case "refused":
            raise NotDone(f"the card {card} is refused")
        case "lost":
            raise ConnectionError(f"the line broke while {card} was charged")
        case "panicked":
            raise Panic(f"cannot charge {card}")
        case "left":
            raise SystemExit(f"cannot charge {card}")
        case _:
            return f"charged {card}"


@tool(effect="once", timeout="20s", sensitive=["card"])
async def charge_async(card: str, how: str, context: ToolContext) -> str:
    """Charge a card in the worker's event loop."""
    context.heartbeat({"charging": card, "odd": object()})
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(charge, card, 5.0, context, how))
    return "charged"


@tool(effect="read", timeout="20s", sensitive=["card"])
def find_charge(card: str, context: ToolContext) -> dict[str, object]:
    """Find out whether a card was charged."""
    keep("find_charge", context, card=card)
    return {"done": False, "card": card}


@tool(effect="keyed", timeout="20s", sensitive=["card"])
def pay_back(card: str, context: ToolContext, amount: float = 0.0) -> str:
    """Pay back what a card was charged."""
    keep("pay_back", context, card=card, amount=amount)
    return f"paid {amount} back to {card}"


@check
def has_no_card(result: object, args: dict[str, object]) -> tuple[bool, str]:
    return False, f"the result {result} shows {args['card']}"
