"""Limit of the time that a check may take, whatever is away."""

import asyncio
from collections.abc import Awaitable

from mandate.workers.doctor.findings import Finding

CONNECT_SECONDS = 3.0
CHECK_SECONDS = 2.5


async def bound(check: str, finding: Awaitable[Finding], advice: str, seconds: float = CHECK_SECONDS) -> Finding:
    """Return the finding of a check, or that it had no answer in time."""
    try:
        async with asyncio.timeout(seconds):
            return await finding
    except TimeoutError:
        return Finding(check, "fail", f"no answer within {seconds:g} s", advice)
