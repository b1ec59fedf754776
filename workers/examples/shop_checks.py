"""Checks of the demo's agent: ordinary functions that are given its answer."""

import re

from mandate import check
from mandate.workers.examples.shop_data import shop

_REFUNDED = """
SELECT "order", refunds.amount_cents AS cents FROM refunds JOIN payments ON payment = payments.id ORDER BY refunds.id
"""


@check
def refunds_are_told(answer: str) -> tuple[bool, str]:
    """Return whether the answer names the amount refunded by the books, for each order that it is about."""
    with shop() as database:
        refunds = database.execute(_REFUNDED).fetchall()
    orders = {row["order"] for row in refunds} & {int(number) for number in re.findall(r"\b\d{4}\b", answer)}
    for order in sorted(orders):
        amounts = [row["cents"] for row in refunds if row["order"] == order]
        if not _is_named(sum(amounts), answer) and not all(_is_named(amount, answer) for amount in amounts):
            told = f"{_euros(sum(amounts))} EUR of order {order} were refunded"
            return False, f"by the books {told}, and the answer does not name that amount"
    return True, "the answer names what the books show as refunded"


def _is_named(cents: int, answer: str) -> bool:
    """Return whether an amount is in a text, with a point or a comma."""
    return re.search(rf"(?<!\d){cents // 100}[.,]{cents % 100:02d}(?!\d)", answer) is not None


def _euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
