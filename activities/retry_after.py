"""Waits that the other side asks for: `Retry-After` and its relatives."""

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 31 * 24 * 3600.0
"""A longer wait than a month, over which no quota is counted, is one that nobody means."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the other side asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.

    0 for a date that is over; `None` where it says nothing, or what cannot be read.
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = read_wait(headers.get(name), divisor=divisor)
        if seconds is not None:
            return seconds
    return None


def read_wait(value: object, *, divisor: float = 1.0) -> float | None:
    """Return the seconds that somebody asks to wait: a number, a duration, or a date as HTTP or ISO 8601 write it.

    0 for a date that is over; `None` for anything that cannot be read, or that no timer can wait.
    """
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(str(value)) / divisor
    except (ValueError, OverflowError):
        seconds = _seconds_until(str(value))
    return seconds if 0 <= seconds < LONGEST_WAIT_SECONDS else None


def _seconds_until(date: str) -> float:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        # What strangers send makes the readers of dates fail in many ways.
        with suppress(ValueError, OverflowError, IndexError, TypeError, AttributeError):
            at = read(date.strip())
            at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
            return max((at - datetime.now(UTC)).total_seconds(), 0.0)
    return math.nan
