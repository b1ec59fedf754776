"""Limits of runs on the command line: `LIMIT=VALUE`."""

import re
from collections.abc import Sequence

from mandate.workers.cli.errors import CliError
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import BudgetRequest

LIMITS = ", ".join(BudgetRequest.model_fields)
"""Names of all limits, as `LIMIT` in `LIMIT=VALUE`."""

_WHOLE = re.compile(r"-?[0-9]{1,300}")


def read_limits(option: str, given: Sequence[str]) -> JsonObject:
    """Return limits by name, each given once; their values are checked by whoever takes them in.

    Raises:
        CliError: one is not `LIMIT=VALUE`, names no limit, or is there twice.
    """
    limits: JsonObject = {}
    for written in given:
        name, separator, value = written.partition("=")
        if not separator or name not in BudgetRequest.model_fields:
            raise CliError(f"{option} {written!r} is not LIMIT=VALUE with a limit of {LIMITS}")
        if name in limits:
            raise CliError(f"{option} {written!r}: {name} is given twice")
        # Amounts and times are texts, all others whole numbers.
        is_text = name.endswith(("_usd", "_time"))
        limits[name] = int(value) if not is_text and _WHOLE.fullmatch(value) else value
    return limits
