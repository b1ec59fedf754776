"""Tools of the agent `refunds`. Types become the schema of the arguments, docstrings are what the model reads."""

import json
from dataclasses import dataclass
from pathlib import Path

from mandate import NotDone, ToolContext, tool

REFUNDS = Path(__file__).parent / "refunds"
"""One file a refund."""


@dataclass(frozen=True)
class Order:
    """An order and what was paid for it."""

    order: int
    customer: str
    item: str
    paid: float


@dataclass(frozen=True)
class Refunds:
    """All refunds of one order."""

    count: int
    total: float


ORDERS = {
    81: Order(81, "Ada", "coffee grinder", 120.0),
    82: Order(82, "Ben", "paper filters", 20.0),
}


@tool(effect="read")
def find_order(order: int) -> Order:
    """Look up an order.

    Args:
        order: number of the order.
    """
    if order not in ORDERS:
        raise NotDone(f"there is no order {order}; there are 81 and 82")
    return ORDERS[order]


@tool(effect="read")
def list_refunds(order: int) -> Refunds:
    """Tell how often an order was refunded, and how much in all.

    Args:
        order: number of the order.
    """
    found = [json.loads(file.read_text()) for file in REFUNDS.glob("*.json")]
    amounts = [refund["amount"] for refund in found if refund["order"] == order]
    return Refunds(len(amounts), sum(amounts))


# `keyed`: after a crash the call is made again with the same key, and the other side does nothing twice. Here the key
# names the file. A bank's API takes it as its idempotency key.
@tool(effect="keyed", tags=["money"])
def issue_refund(order: int, amount: float, context: ToolContext) -> str:
    """Pay money back for an order.

    Args:
        order: number of the order.
        amount: in EUR, at most what was paid.
    """
    paid = find_order(order).paid
    if not 0 < amount <= paid:
        raise NotDone(f"{amount} EUR cannot be refunded: {paid} EUR were paid")
    REFUNDS.mkdir(exist_ok=True)
    (REFUNDS / f"{context.idempotency_key}.json").write_text(json.dumps({"order": order, "amount": amount}))
    return f"refunded {amount} EUR for order {order}"
