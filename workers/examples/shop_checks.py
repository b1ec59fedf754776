"""Checks of the demo's agent: ordinary functions that are given its answer."""

import re

from mandate import check
from mandate.workers.examples.shop_books import euros, read_books
from mandate.workers.examples.shop_data import shop_path


@check
def refunds_are_told(answer: str) -> tuple[bool, str]:
    """Return whether the answer names the amount refunded by the books, for each order that it is about."""
    refunds = read_books(shop_path().absolute()).refunds
    orders = {int(str(row["order"])) for row in refunds} & {int(number) for number in re.findall(r"\b\d{4}\b", answer)}
    for order in sorted(orders):
        amounts = [int(str(row["amount_cents"])) for row in refunds if row["order"] == order]
        if not _is_named(sum(amounts), answer) and not all(_is_named(amount, answer) for amount in amounts):
            told = f"{euros(sum(amounts))} of order {order} were refunded"
            return False, f"by the books {told}, and the answer does not name that amount"
    return True, "the answer names what the books show as refunded"


def _is_named(cents: int, answer: str) -> bool:
    """Return whether an amount is in a text, with a point or a comma."""
    return re.search(rf"(?<!\d){cents // 100}[.,]{cents % 100:02d}(?!\d)", answer) is not None
