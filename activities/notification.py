"""Notices to people that a run waits for them: on all channels at once, none of which can hold another back."""

import asyncio
import traceback
from collections.abc import Sequence
from pathlib import Path

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.channels.base import Channel, Parcel, is_wanted
from mandate.activities.channels.delivery import Pace, deliver, describe_loss
from mandate.activities.heartbeat import send_heartbeats
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import Notified, NotifyRequest
from mandate.workflows.rules import needs
from mandate.workflows.rules.plain_text import make_plain, make_plain_json

log = structlog.stdlib.get_logger(__name__)


class NotificationActivities:
    """The channels of this worker."""

    def __init__(self, channels: Sequence[Channel], pace: Pace | None = None) -> None:
        self._channels = tuple(channels)
        self._pace = pace or Pace()

    @property
    def waits_for_others(self) -> bool:
        """True if some channel sends to another process, and so is no local activity."""
        return any(channel.sender.waits_for_others for channel in self._channels)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.sender.close()

    @activity.defn
    async def notify_people(self, request: NotifyRequest) -> Notified:
        """Tell of each notice on every channel that takes it, within 45 seconds.

        A worker that is lost makes Temporal run it again: every message carries a key by which its receiver knows it.

        Raises:
            ApplicationError: a fault of ours, after all other channels have been told; not retried.
        """
        info, notices = activity.info(), request.notices
        if info.is_local and self.waits_for_others:
            raise ApplicationError("a channel waits for others", type=FailureType.NOT_QUICK, category=failures.EXPECTED)
        namespace = info.namespace
        request = _make_readable(request)
        self._warn_of_untold(request)
        async with send_heartbeats():
            sentences = await asyncio.gather(
                *(self._tell(channel, channel.make_parcels(request, namespace)) for channel in self._channels),
                return_exceptions=True,
            )
        for channel, outcome in zip(self._channels, sentences, strict=True):
            if isinstance(outcome, BaseException):
                raise _wrap_defect(channel, outcome)
        lost = tuple(failure for failure in sentences if isinstance(failure, str))
        return Notified(failures=lost, notices=notices if info.is_local else ())

    async def _tell(self, channel: Channel, parcels: Sequence[Parcel]) -> str | None:
        """Send the notices of one channel and return one sentence if anything did not arrive."""
        lost = await deliver(channel, parcels, self._pace)
        if not lost:
            return None
        log.warning(
            "channel_failed",
            channel=channel.name,
            requests=[notice.request.id for loss in lost for notice in loss.parcel.notices],
            reason=lost[0].reason,
            attempts=lost[0].attempts,
        )
        return describe_loss(channel, lost)

    def _warn_of_untold(self, request: NotifyRequest) -> None:
        """Warn where filters let a request fall through: its operator should hear of it."""
        for notice in request.notices:
            if not any(is_wanted(channel.filters, notice) for channel in self._channels):
                told = notice.request
                log.warning(
                    "no_channel_for_request",
                    request=told.id,
                    kind=told.kind,
                    occasion=notice.occasion,
                    waits_for=list(told.waits_for),
                )


def _make_readable(request: NotifyRequest) -> NotifyRequest:
    """Return `text` as people may see it; an id stays as it is, since commands name it."""
    notices = tuple(
        notice.model_copy(
            update={
                "request": needs.make_readable(notice.request).model_copy(
                    update={"arguments": make_plain_json(notice.request.arguments)}
                )
            }
        )
        for notice in request.notices
    )
    return request.model_copy(
        update={
            "requester": None if request.requester is None else make_plain(request.requester),
            "labels": {make_plain(name): make_plain(label) for name, label in request.labels.items()},
            "notices": notices,
        }
    )


def _wrap_defect(channel: Channel, error: BaseException) -> ApplicationError:
    """Return the failure for an error that no channel may raise; its text may hold a secret and is not logged."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    log.error("channel_broken", channel=channel.name, error=type(error).__name__, at=place)
    return ApplicationError(
        f"channel {channel.name!r} broke with {type(error).__name__} at {place}; the other channels were told",
        type=FailureType.CHANNEL_BROKEN,
        non_retryable=True,
    )
