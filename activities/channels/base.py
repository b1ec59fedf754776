"""Channels: a name, filters, and a sender that makes one attempt at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.channels import Filters
from mandate.workflows.contracts.request import ANYONE, Notice, NotifyRequest, Request


class DeliveryFailed(Exception):
    """One attempt that did not reach its receiver; the text names neither address nor secret."""

    def __init__(self, reason: str, *, retry: bool, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry = retry
        """Whether the same again may succeed."""
        self.retry_after = retry_after
        """Seconds that the receiver asked for."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message to be sent."""

    run: NotifyRequest
    namespace: str
    notices: tuple[Notice, ...]
    """Its contents: one notice, unless the sender puts several together."""
    key: Digest
    """The same for every attempt at this message, those of a later worker included."""


class Sender(Protocol):
    """Sender of the messages of one kind of channel."""

    at_once: int
    """Number of messages that may be under way."""

    waits_for_others: bool
    """True if a message goes to another process."""

    def bundle(self, notices: tuple[Notice, ...]) -> tuple[tuple[Notice, ...], ...]:
        """Group `notices` by the message that tells them."""
        ...

    async def send(self, parcel: Parcel) -> None:
        """Make one attempt to send a message.

        Raises:
            DeliveryFailed: it did not arrive, or nobody knows whether it did.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as the file of channels describes it, ready for use."""

    filters: Filters
    sender: Sender

    @property
    def name(self) -> str:
        return self.filters.name

    def make_parcels(self, run: NotifyRequest, namespace: str) -> tuple[Parcel, ...]:
        """Return the messages for all notices that the filters let through."""
        wanted = tuple(notice for notice in run.notices if is_wanted(self.filters, notice))
        return tuple(
            Parcel(run, namespace, notices, make_key(run.run_id, notices, self.name))
            for notices in (self.sender.bundle(wanted) if wanted else ())
        )


def is_wanted(filters: Filters, notice: Notice) -> bool:
    """Return whether a channel with these filters tells of `notice`."""
    request = notice.request
    return (
        (filters.kinds is None or request.kind in filters.kinds)
        and (filters.occasions is None or notice.occasion in filters.occasions)
        and (filters.groups is None or any(group in filters.groups for group in _groups(request)))
    )


def make_key(run_id: str, notices: Sequence[Notice], channel: str) -> Digest:
    """Return the name of one message of one channel, so that a receiver knows it when it comes again."""
    contents: list[JsonValue] = [[notice.request.digest, notice.occasion, notice.number] for notice in notices]
    return digest_of(canonical_json([run_id, channel, *contents]))


def _groups(request: Request) -> list[str]:
    """Return the groups that `request` still waits for; a user who is named like a group is none."""
    waiting = [need for need in request.needs if len(need.approved_by) < need.quorum]
    named = [group for need in waiting for group in need.groups]
    return named if all(need.groups or need.users for need in waiting) else [*named, ANYONE]
