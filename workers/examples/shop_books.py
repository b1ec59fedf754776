"""The shop's own database: the proof of what the agent did."""

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
class Evidence:
    """The books' word on a call, and what stands for the reply that was lost."""

    says: str
    returned: str | None = None
    is_done: bool = field(default=True, kw_only=True)


@dataclass(frozen=True, slots=True)
class Books:
    """The tables of the shop that an agent can change; `stock` by article."""

    refunds: list[dict[str, object]]
    stock: dict[str, int]
    outbox: list[dict[str, object]]
    vouchers: int

    def restocked(self, before: "Books") -> dict[str, dict[str, int]]:
        """Return the articles whose number changed, with both numbers."""
        changed = {article: count for article, count in self.stock.items() if count != before.stock[article]}
        return {article: {"before": before.stock[article], "after": count} for article, count in changed.items()}

    def evidence(self, tool: str | None, arguments: Mapping[str, JsonValue]) -> Evidence | None:
        """Return whether such a call is in the books; `None` for tools that leave nothing in them that tells."""
        order, text, cents = (arguments.get(name) for name in ("order", "text", "amount_cents"))
        if tool == "send_customer_note":
            for email in self.outbox:
                if email["order"] == order and _is_text(text, str(email["text"])):
                    recipient = email["recipient"]
                    return Evidence(f"the shop's outbox has the email to {recipient}", f"sent to {recipient}")
            return Evidence("the shop's outbox has no such email", is_done=False)
        if tool == "issue_refund":
            for refund in self.refunds:
                if (refund["order"], refund["amount_cents"]) == (order, cents):
                    found = f"refund {refund['refund']}: {euros(cents)} of order {order}"
                    return Evidence(f"the shop's books have {found}", found)
            return Evidence("the shop's books have no such refund", is_done=False)
        if tool == "restock_item":
            count = self.stock.get(str(arguments.get("sku")), 0)
            found = f"{count} of {arguments.get('sku')} on the shelf"
            return Evidence(f"the shop's books have {found}", found, is_done=count == arguments.get("on_hand"))
        return None


def read_books(path: Path) -> Books:
    """Read the books as they are at this moment; waits for nobody who writes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return Books(
            refunds=[dict(row) for row in database.execute(REFUNDS)],
            stock={str(row["sku"]): int(row["on_hand"]) for row in database.execute("SELECT * FROM stock")},
            outbox=[dict(row) for row in database.execute('SELECT "order", recipient, text FROM outbox ORDER BY id')],
            vouchers=int(database.execute("SELECT count(*) FROM vouchers").fetchone()[0]),
        )


def euros(cents: object) -> str:
    return f"{int(str(cents)) / 100:.2f} EUR"


def _is_text(argument: JsonValue, text: str) -> bool:
    # Of a long argument only the beginning is known here.
    return text.startswith(str(argument.get("preview"))) if isinstance(argument, dict) else argument == text
