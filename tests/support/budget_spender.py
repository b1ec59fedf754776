"""Another process that reserves: `python -m tests.support.budget_spender URL NAME COUNT [hold]`.

It reserves `NAME-0` to `NAME-COUNT` of `CALL` at once on both lines of `lines()`, over two stores of its own. It
prints each number as soon as that is granted; with `hold` it then stays, until somebody kills it.
"""

import asyncio
import sys
from decimal import Decimal

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import BlobStore
from mandate.activities.stores.budgets import Account, Line
from mandate.workflows.contracts.budget import Amount
from tests.support.store_writer import ROOT

CALL = Amount(cost_usd=Decimal("0.05"), tokens=1000)
FITTING = 20
"""Calls that fit both limits."""


def lines(*, is_turned: bool = False) -> tuple[Line, ...]:
    """A budget that twenty calls fit, and one that has more room; `is_turned` gives them in the other order."""
    pair = (
        Line(Account("all", "{}", "2026-11"), CALL.cost_usd * FITTING, CALL.tokens * FITTING),
        Line(Account("team", '{"team": "support"}', "2026-11-30"), Decimal(1000)),
    )
    return pair[::-1] if is_turned else pair


async def start_spender(url: str, name: str, count: int, *more: str) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.support.budget_spender", url, name, str(count), *more)
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def _main(url: str, name: str, count: int, *, holds: bool) -> None:
    stores = [open_store(url) for _ in range(2)]

    async def reserve(store: BlobStore, number: int) -> None:
        reserved = await store.reserve(f"{name}-{number}", lines(is_turned=number % 4 < 2), CALL)
        if reserved.full is None:
            print(f"{name}-{number}", flush=True)

    await asyncio.gather(*(reserve(stores[number % 2], number) for number in range(count)))
    while holds:
        await asyncio.sleep(1)
    for store in stores:
        await store.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), holds="hold" in sys.argv[4:]))
