"""Quantities in sentences: counted nouns, and spans of time in seconds."""

from datetime import timedelta


def count_noun(number: int, noun: str) -> str:
    """Return a number with its noun: `1 step`, `3 steps` or `1,200 steps`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def count_bytes(number: int) -> str:
    """Return a size as `1 byte` or `1200 bytes`, its digits as programs write them."""
    return "1 byte" if number == 1 else f"{number} bytes"


def count_times(number: int) -> str:
    """Return how often something happened: `once` or `3 times`."""
    return "once" if number == 1 else f"{number:,} times"


def write_seconds(length: timedelta | float) -> str:
    """Return a span of time as `0.3 s`, `1.25 s` or `90 s`: at most three decimals below a second, two from then on."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    written = f"{seconds:.{3 if seconds < 1 else 2}f}"
    return f"{written.rstrip('0').rstrip('.')} s"
