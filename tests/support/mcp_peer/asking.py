"""An MCP server on the SDK whose tools ask people before they act: `asking stdio|PORT JOURNAL`.

Each act is appended to the journal as one JSON line with the server's process id.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import AcceptedElicitation, CancelledElicitation, DeclinedElicitation, Elicit, Resolve
from pydantic import BaseModel

JOURNAL = Path(sys.argv[3]) if len(sys.argv) > 3 else None
server = MCPServer("shop")


class Approval(BaseModel):
    approve: bool
    reason: str = ""


class Speed(BaseModel):
    speed: Literal["slow", "fast"]


class Card(BaseModel):
    card: str


class Sure(BaseModel):
    sure: bool


def record(**entry: object) -> None:
    assert JOURNAL is not None
    with JOURNAL.open("a") as journal:
        journal.write(json.dumps({**entry, "pid": os.getpid()}) + "\n")


async def ask_approval(order: int) -> Elicit[Approval]:
    return Elicit(f"Refund order {order}?", Approval)


async def ask_speed(order: int, approval: Annotated[Approval, Resolve(ask_approval)]) -> Elicit[Speed]:
    return Elicit(f"Send the refund of order {order} how fast?", Speed)


async def ask_card(order: int) -> Elicit[Card]:
    return Elicit(f"Which card for order {order}?", Card)


@server.tool(structured_output=False)
async def refund(order: int, approval: Annotated[Approval, Resolve(ask_approval)]) -> str:
    """Refund an order, after asking."""
    record(tool="refund", order=order, approve=approval.approve)
    return f"refunded {order}: {approval.approve} {approval.reason}".strip()


@server.tool(structured_output=False)
async def ship(
    order: int,
    approval: Annotated[Approval, Resolve(ask_approval)],
    speed: Annotated[Speed, Resolve(ask_speed)],
) -> str:
    """Ship an order, after asking twice."""
    record(tool="ship", order=order, speed=speed.speed)
    return f"shipped {order} {speed.speed}"


@server.tool(structured_output=False)
async def wish(
    order: int,
    approval: Annotated[
        AcceptedElicitation[Approval] | DeclinedElicitation | CancelledElicitation, Resolve(ask_approval)
    ],
) -> str:
    """Say what people chose."""
    record(tool="wish", order=order)
    return f"{approval.action} {order}"


@server.tool(structured_output=False)
async def charge(order: int, card: Annotated[Card, Resolve(ask_card)]) -> str:
    """Charge a card, after asking for its number."""
    record(tool="charge", order=order)
    return f"charged {card.card}"


async def ask_sure(card: str) -> Elicit[Sure]:
    return Elicit(f"Charge card {card}?", Sure)


@server.tool(structured_output=False)
async def repeat(card: str, sure: Annotated[Sure, Resolve(ask_sure)]) -> str:
    """Charge this card, after repeating its number in a question."""
    record(tool="repeat", sure=sure.sure)
    return "charged"


@server.tool(structured_output=False)
async def look(order: int) -> str:
    """Look an order up, and ask nothing."""
    record(tool="look", order=order)
    return f"order {order}"


def main(words: Sequence[str]) -> None:
    if words[0] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(words[0]), stateless_http=True)
