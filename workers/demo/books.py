"""Books of the shop's own database: the proof of what the agent did."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

REFUNDS = """
SELECT refunds.id AS refund, "order", refunds.amount_cents, method, reason, key
FROM refunds JOIN payments ON payment = payments.id ORDER BY refunds.id
"""


@dataclass(frozen=True, slots=True)
class Books:
    """The tables of the shop that an agent can change."""

    refunds: list[dict[str, object]]
    stock: dict[str, int]
    """Pieces on the shelf by article."""
    outbox: list[dict[str, object]]
    vouchers: int

    def restocked(self, before: "Books") -> dict[str, tuple[int, int]]:
        """Return the articles whose number changed: what it was and what it is."""
        return {sku: (before.stock[sku], now) for sku, now in self.stock.items() if before.stock[sku] != now}

    def evidence(self, tool: str | None, arguments: Mapping[str, JsonValue]) -> "Evidence | None":
        """Return whether such a call is in the books; `None` for tools that leave nothing in them that tells."""
        order = arguments.get("order")
        match tool:
            case "send_customer_note":
                for email in self.outbox:
                    if email["order"] == order and _is_of(arguments.get("text"), str(email["text"])):
                        told = f"sent to {email['recipient']}"
                        return Evidence(f"the shop's outbox has the email to {email['recipient']}", told)
                return Evidence("the shop's outbox has no such email", is_done=False)
            case "issue_refund":
                for refund in self.refunds:
                    if refund["order"] == order and refund["amount_cents"] == arguments.get("amount_cents"):
                        told = f"refund {refund['refund']}: {euros(refund['amount_cents'])} of order {order}"
                        return Evidence(f"the shop's books have {told}", told)
                return Evidence("the shop's books have no such refund", is_done=False)
            case "restock_item":
                sku, on_hand = str(arguments.get("sku")), arguments.get("on_hand")
                counted = f"{self.stock.get(sku, 0)} of {sku} on the shelf"
                return Evidence(f"the shop's books have {counted}", counted, is_done=self.stock.get(sku) == on_hand)
        return None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence of a call in the books."""

    says: str
    """In words for people."""
    returned: str | None = None
    """Value that stands for the reply that was lost."""
    is_done: bool = field(default=True, kw_only=True)


def read_books(path: Path) -> Books:
    """Read the books as they are at this moment; wait for nobody who writes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return Books(
            refunds=[dict(row) for row in database.execute(REFUNDS)],
            stock={str(row["sku"]): int(row["on_hand"]) for row in database.execute("SELECT * FROM stock")},
            outbox=[dict(row) for row in database.execute('SELECT "order", recipient, text FROM outbox ORDER BY id')],
            vouchers=int(database.execute("SELECT count(*) FROM vouchers").fetchone()[0]),
        )


def _is_of(argument: JsonValue, text: str) -> bool:
    """Return whether `text` is the value of an argument, of which a long one is shown by its beginning only."""
    if isinstance(argument, dict):
        return text.startswith(str(argument.get("preview")))
    return argument == text


def euros(cents: object) -> str:
    amount = int(str(cents))
    return f"{amount // 100}.{amount % 100:02d} EUR"
