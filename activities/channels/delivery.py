"""Messages of one channel: each with a few attempts, all within one deadline."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mandate.activities.channels.base import Channel, DeliveryFailed, Parcel
from mandate.workflows.rules import quantities

SHOWN = 5
"""Requests that a sentence about a failure names."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times and number of the attempts at a delivery."""

    attempts: int = 4
    attempt: timedelta = timedelta(seconds=8)
    """Longest that one attempt takes."""
    first_wait: timedelta = timedelta(milliseconds=500)
    """Before the second attempt; four times as long before each one after it."""
    longest_wait: timedelta = timedelta(seconds=15)
    """However long a receiver asks to be left alone."""
    whole: timedelta = timedelta(seconds=40)
    """All attempts at all messages of a channel."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A message that did not arrive."""

    parcel: Parcel
    reason: str
    attempts: int


async def deliver(channel: Channel, parcels: Sequence[Parcel], pace: Pace) -> list[Lost]:
    """Send `parcels` and return those that did not arrive."""
    deadline = asyncio.get_running_loop().time() + pace.whole.total_seconds()
    slots = asyncio.Semaphore(channel.sender.at_once)

    async def one(parcel: Parcel) -> Lost | None:
        async with slots:
            return await _attempt(channel, parcel, pace, deadline)

    outcomes = await asyncio.gather(*map(one, parcels), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Lost)]


def describe_loss(channel: Channel, lost: Sequence[Lost]) -> str:
    """Describe a loss: `channel 'oncall' did not tell of r3: HTTP 503 Service Unavailable (4 attempts)`."""
    ids = list(dict.fromkeys(notice.request.id for loss in lost for notice in loss.parcel.notices))
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    first = lost[0]
    tried = quantities.count_noun(first.attempts, "attempt")
    return f"channel {channel.name!r} did not tell of {', '.join(ids[:SHOWN])}{more}: {first.reason} ({tried})"


async def _attempt(channel: Channel, parcel: Parcel, pace: Pace, deadline: float) -> Lost | None:
    clock = asyncio.get_running_loop().time
    wait = pace.first_wait.total_seconds()
    if clock() >= deadline:
        return Lost(parcel, "no time was left after those before it", 0)
    for attempt in range(1, pace.attempts + 1):
        try:
            async with asyncio.timeout_at(min(deadline, clock() + pace.attempt.total_seconds())):
                await channel.sender.send(parcel)
            return None
        except TimeoutError:
            failed = DeliveryFailed("no answer in time", retry=True)
        except DeliveryFailed as error:
            failed = error
        pause = min(wait if failed.retry_after is None else failed.retry_after, pace.longest_wait.total_seconds())
        if not failed.retry or attempt == pace.attempts or clock() + pause >= deadline:
            return Lost(parcel, str(failed), attempt)
        await asyncio.sleep(pause)
        wait *= 4
    raise AssertionError("the last attempt returns")
