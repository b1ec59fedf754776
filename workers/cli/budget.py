"""`mandate budget`: what budgets beyond one run have spent, hold and have left, as the store says."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.budgets import Balance
from mandate.workers.catalog.budgets import budgets_path, read_budgets
from mandate.workers.cli.errors import DONE, CliError
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.cli.output import print_table
from mandate.workers.cli.validation.budgets import describe_limits, describe_runs
from mandate.workers.settings import Settings
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.contracts.budget_file import PeriodBudget
from mandate.workflows.rules import quantities
from mandate.workflows.rules.period_budgets import describe_scope, find_scope, format_usd, name_period

_LAST = "9999"
_HEAD = ("budget", "of", "period", "limit", "spent", "assumed", "held", "left", "since")


@dataclass(frozen=True, slots=True)
class _Row:
    """One account of a budget, or a budget in which nothing has been reserved yet."""

    id: str
    scope: str
    period: str
    budget: PeriodBudget | None
    """`None` for one that the file does not have any more."""
    balance: Balance | None


@offline_verb
async def budget(
    call: Invocation,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of budgets; all if left out.", metavar="BUDGET")] = None,
    *,
    period: Annotated[
        str | None, typer.Option(help="A month with its days, or a day: 2026-11 or 2026-11-30.", metavar="PERIOD")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="All periods from this month or day on: 2026-11 or 2026-11-30.", metavar="PERIOD")
    ] = None,
) -> int:
    """Show what budgets beyond one run have spent, hold and have left in this day or month, or in earlier ones.

    Limits are those of the file of budgets (MANDATE_BUDGETS) at this moment, the rest is in the store of MANDATE_STORE;
    no Temporal server is asked. `assumed` is the part of what is spent that no provider has reported: calls whose
    answers were lost count as they were reserved. `held` is for calls under way.
    """
    if period is not None and since is not None:
        raise CliError("--period and --since: give one of them")
    for option, value in (("--period", period), ("--since", since)):
        _demand_period(option, value)
    settings = Settings.from_environment()
    found = read_budgets(settings)
    budgets = found[0].budgets if found is not None else ()
    balances = await _read_balances(call, settings)
    if found is None and not balances:
        raise CliError(
            f"there is no file of budgets; write {settings.default_budgets}, or name another one with MANDATE_BUDGETS "
            "or `budgets` in mandate.yaml"
        )
    _demand_known(ids or [], budgets, balances)
    rows = [row for row in _select(budgets, balances, period=period, since=since) if not ids or row.id in ids]
    if call.out.as_json:
        path = budgets_path(settings)
        call.out.json({"file": str(path) if path is not None else None, "budgets": list(map(_to_json, rows))})
    elif rows:
        print_table(call.out, [_to_cells(row) for row in rows], _HEAD)
    else:
        call.out.print(_describe_nothing(period, since))
    return DONE


def _demand_period(option: str, value: str | None) -> None:
    if value is None:
        return
    try:
        if not re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", value):
            raise ValueError
        datetime.fromisoformat(value if len(value) == 10 else f"{value}-01")
    except ValueError:
        raise CliError(f"{option} {value!r} is not a month or a day, for example 2026-11 or 2026-11-30") from None


def _demand_known(ids: Sequence[str], budgets: Sequence[PeriodBudget], balances: Sequence[Balance]) -> None:
    known = dict.fromkeys([*(one.id for one in budgets), *(balance.account.budget for balance in balances)])
    for name in ids:
        if name not in known:
            raise CliError(f"there is no budget {name!r}; there are {', '.join(known) or 'none'}")


async def _read_balances(call: Invocation, settings: Settings) -> tuple[Balance, ...]:
    """Return all accounts of the store; looking for them makes no store."""
    address = settings.store
    if _is_missing(address):
        if budgets_path(settings) is not None:
            call.out.note(f"there is no {address} yet; MANDATE_STORE names the workers' store")
        return ()
    try:
        store = open_store(address)
    except ValueError as error:
        raise CliError(f"MANDATE_STORE: {error}") from None
    try:
        return await store.list_balances("", _LAST)
    except StoreUnavailable as error:
        raise CliError(str(error)) from None
    finally:
        await store.close()


def _is_missing(address: str) -> bool:
    return address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).is_file()


def _select(
    budgets: Sequence[PeriodBudget], balances: Sequence[Balance], *, period: str | None, since: str | None
) -> Iterator[_Row]:
    """Yield what is to be shown, in the order of the file; what it does not have any more comes last."""
    now = datetime.now(UTC)
    is_current = period is None and since is None
    for one in budgets:
        own = [balance for balance in balances if balance.account.budget == one.id]
        this = name_period(one, now)
        shown = [balance for balance in own if _is_asked_for(balance.account.period, this, period=period, since=since)]
        yield from (_Row(one.id, balance.account.scope, balance.account.period, one, balance) for balance in shown)
        if is_current and not shown:
            yield _Row(one.id, find_scope(one), this, one, None)
    ids = {one.id for one in budgets}
    today = f"{now:%Y-%m-%d}"
    for balance in balances:
        account = balance.account
        this = today[: len(account.period)]
        if account.budget not in ids and _is_asked_for(account.period, this, period=period, since=since):
            yield _Row(account.budget, account.scope, account.period, None, balance)


def _is_asked_for(found: str, this: str, *, period: str | None, since: str | None) -> bool:
    if period is not None:
        return found == period or found.startswith(f"{period}-")
    return found >= since[: len(found)] if since is not None else found == this


def _describe_nothing(period: str | None, since: str | None) -> str:
    when = f" in {period}" if period is not None else f" since {since}" if since is not None else ""
    return f"no budget was used{when}" if when else "the file of budgets has none"


def _to_cells(row: _Row) -> tuple[str, ...]:
    found, balance = row.budget, row.balance
    limit = describe_limits(found) if found is not None else "not in the file"
    runs = describe_runs(found) if found is not None else "all"
    whose = (describe_scope(row.scope) or runs) if balance is not None else runs
    since = f"{balance.since:%Y-%m-%d %H:%M} UTC" if balance is not None else "not used yet"
    spent, assumed, held = _amounts(balance)
    amounts = (_write(found, one) for one in (spent, assumed, held))
    return (row.id, whose, row.period, limit, *amounts, _write_left(found, spent + held), since)


def _amounts(balance: Balance | None) -> tuple[Amount, Amount, Amount]:
    """Spent, assumed and held."""
    return (balance.spent, balance.assumed, balance.held) if balance is not None else (Amount(), Amount(), Amount())


def _write(found: PeriodBudget | None, amount: Amount) -> str:
    """Write what is limited of an amount; all of it where the limits are not known."""
    lines = []
    if found is None or found.cost_usd is not None:
        lines.append(format_usd(amount.cost_usd))
    if found is None or found.tokens is not None:
        lines.append(quantities.count_noun(amount.tokens, "token"))
    return "\n".join(lines)


def _write_left(found: PeriodBudget | None, used: Amount) -> str:
    cost_usd, tokens = _left(found, used)
    money = [format_usd(cost_usd)] if cost_usd is not None else []
    return "\n".join([*money, *([quantities.count_noun(tokens, "token")] if tokens is not None else [])])


def _left(found: PeriodBudget | None, used: Amount) -> tuple[Decimal | None, int | None]:
    if found is None:
        return None, None
    return (
        found.cost_usd - used.cost_usd if found.cost_usd is not None else None,
        found.tokens - used.tokens if found.tokens is not None else None,
    )


def _to_json(row: _Row) -> JsonObject:
    found, balance = row.budget, row.balance
    spent, assumed, held = _amounts(balance)
    left_usd, left_tokens = _left(found, spent + held)
    return {
        "budget": row.id,
        "scope": _find_runs(row),
        "period": row.period,
        "per": found.per if found is not None else None,
        "time_zone": found.time_zone if found is not None else None,
        "limit": _amount_json(found.cost_usd, found.tokens) if found is not None else None,
        "spent": _amount_json(spent.cost_usd, spent.tokens),
        "assumed": _amount_json(assumed.cost_usd, assumed.tokens),
        "held": _amount_json(held.cost_usd, held.tokens),
        "left": _amount_json(left_usd, left_tokens) if found is not None else None,
        "since": balance.since.isoformat() if balance is not None else None,
        "last_used": balance.last_used.isoformat() if balance is not None else None,
    }


def _find_runs(row: _Row) -> JsonObject:
    """Return of which runs an account is: what the file names, and whose own account it is."""
    own: JsonObject = json.loads(row.scope)
    found = row.budget
    if found is None:
        return own
    named: JsonObject = {"agent": found.agent, "requester": found.requester, "labels": {**found.labels}}
    runs: JsonObject = {key: value for key, value in named.items() if value}
    labels = own.get("labels")
    own_labels = {"labels": {**found.labels, **labels}} if isinstance(labels, dict) else {}
    return {**runs, **own, **own_labels}


def _amount_json(cost_usd: Decimal | None, tokens: int | None) -> JsonObject:
    written = format_usd(cost_usd).replace("$", "").replace(",", "") if cost_usd is not None else None
    return {"cost_usd": written, "tokens": tokens}
