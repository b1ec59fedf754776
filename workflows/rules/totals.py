"""Totals of the calls of a run, by tool and numeric argument: exact decimals."""

import math
from collections.abc import Iterator, Mapping
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

from pydantic import JsonValue

from mandate.workflows.contracts.policy import ToolTotals
from mandate.workflows.contracts.tool import Tool

_EXACT = Context(prec=1200, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
"""More digits than any sum of doubles has."""


def reserve(totals: Mapping[str, ToolTotals], tool: Tool, arguments: Mapping[str, JsonValue]) -> dict[str, ToolTotals]:
    """Return `totals` with one more call of `tool` and its numeric arguments."""
    return _change(totals, tool, arguments, 1)


def give_back(
    totals: Mapping[str, ToolTotals], tool: Tool, arguments: Mapping[str, JsonValue]
) -> dict[str, ToolTotals]:
    """Return `totals` without the share that `reserve` added for this call."""
    return _change(totals, tool, arguments, -1)


def _change(
    totals: Mapping[str, ToolTotals], tool: Tool, arguments: Mapping[str, JsonValue], sign: int
) -> dict[str, ToolTotals]:
    """Return the changed totals; leave out what comes to nothing, so that giving back leaves no trace."""
    before = totals.get(tool.known_as, ToolTotals())
    sums = dict(before.sums)
    for name, value in _amounts(tool, arguments):
        sums[name] = _EXACT.add(sums.get(name, Decimal(0)), value * sign)
    after = ToolTotals(calls=before.calls + sign, sums={name: value for name, value in sums.items() if value})
    changed = {**totals, tool.known_as: after}
    if not after.calls and not after.sums:
        del changed[tool.known_as]
    return changed


def _amounts(tool: Tool, arguments: Mapping[str, JsonValue]) -> Iterator[tuple[str, Decimal]]:
    for name in tool.numeric:
        match arguments.get(name):
            case bool():
                continue
            case int() as value:
                yield name, Decimal(value)
            case float() as value if math.isfinite(value):
                # The shortest text that is this double: what was written, so that 0.1 is a tenth.
                yield name, Decimal(repr(value))


def add(totals: Mapping[str, ToolTotals], more: Mapping[str, ToolTotals], sign: int = 1) -> dict[str, ToolTotals]:
    """Return `totals` with `more`; with `sign` -1, what `totals` have beyond them."""
    changed = dict(totals)
    for name, other in more.items():
        before = changed.pop(name, ToolTotals())
        sums = {
            key: value
            for key in {**before.sums, **other.sums}
            if (value := _EXACT.add(before.sums.get(key, Decimal(0)), other.sums.get(key, Decimal(0)) * sign))
        }
        after = ToolTotals(calls=before.calls + sign * other.calls, sums=sums)
        if after.calls or after.sums:
            changed[name] = after
    return changed
