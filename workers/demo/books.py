"""What the shop's own database says: the proof of what the agent did."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

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
        """Articles whose number changed: what it was and what it is."""
        return {sku: (before.stock[sku], now) for sku, now in self.stock.items() if before.stock[sku] != now}


def read_books(path: Path) -> Books:
    """The books as they are now; waits for nobody who writes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return Books(
            refunds=[dict(row) for row in database.execute(REFUNDS)],
            stock={str(row["sku"]): int(row["on_hand"]) for row in database.execute("SELECT * FROM stock")},
            outbox=[dict(row) for row in database.execute('SELECT "order", recipient, text FROM outbox ORDER BY id')],
            vouchers=int(database.execute("SELECT count(*) FROM vouchers").fetchone()[0]),
        )


def euros(cents: object) -> str:
    amount = int(str(cents))
    return f"{amount // 100}.{amount % 100:02d} EUR"
