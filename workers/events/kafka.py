"""Events of Kafka topics: offsets are committed once Temporal has the events before them, and never earlier.

So a crash at any moment has the events since the last commit delivered again, and those that Temporal has are done.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from mandate.workers.client.in_flight import Pauses
from mandate.workers.events.cloud_event import CloudEvent, NotAnEvent, read_event
from mandate.workers.events.intake import Intake, Outcome, Unavailable

MOST_AT_ONCE = 100
"""Events that are taken in between two commits."""

POLL_SECONDS = 0.5

TOPIC_SECONDS = 10.0
"""Time for which a topic is waited for at the start."""

_PREFIX = "ce_"
_REASON_BYTES = 2000
_METADATA_MILLISECONDS = 30_000
"""Age at which a topic is looked at again, as one that has just been made."""

_log = structlog.stdlib.get_logger(__name__)


class KafkaUnusable(Exception):
    """Servers or topics that cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """Servers, and the way to reach them."""

    servers: str
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    mechanism: str = "SCRAM-SHA-512"

    def to_options(self) -> dict[str, object]:
        """Return the options that consumers and producers share."""
        kind = ("SASL_" if self.user is not None else "") + ("SSL" if self.tls is not None else "PLAINTEXT")
        signed_in = {
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
        }
        return {
            "bootstrap_servers": self.servers,
            "client_id": "mandate-listen",
            "security_protocol": kind,
            "ssl_context": self.tls,
            "metadata_max_age_ms": _METADATA_MILLISECONDS,
            **(signed_in if self.user is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class Subscription:
    """Topics whose events are taken in."""

    topics: tuple[str, ...]
    group: str
    dead_letter_topic: str
    session_timeout: timedelta
    """Time after which the partitions of a listener that died go to others."""


class KafkaListener:
    """A member of a consumer group: events of one partition are taken in their order, partitions side by side."""

    def __init__(self, access: KafkaAccess, subscription: Subscription, intake: Intake) -> None:
        self._subscription = subscription
        self._intake = intake
        self._servers = access.servers
        options, milliseconds = access.to_options(), int(subscription.session_timeout.total_seconds() * 1000)
        self._consumer = AIOKafkaConsumer(
            *subscription.topics,
            group_id=subscription.group,
            enable_auto_commit=False,
            # A new group begins with what is there: an event that came before it is not lost.
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=milliseconds,
            heartbeat_interval_ms=max(milliseconds // 4, 100),
            **options,
        )
        self._producer = AIOKafkaProducer(enable_idempotence=True, acks="all", **options)

    async def run(self, stopped: asyncio.Event) -> None:
        """Take events in until `stopped` is set.

        Raises:
            KafkaUnusable: the servers do not answer at the start, do not let us in, or lack a topic.
        """
        try:
            await self._producer.start()
            for topic in (*self._subscription.topics, self._subscription.dead_letter_topic):
                await self._demand_topic(topic)
            await self._consumer.start()
            while not stopped.is_set():
                batch = await self._consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=MOST_AT_ONCE)
                await self._take_batch(batch, stopped)
        except KafkaError as error:
            raise KafkaUnusable(f"Kafka at {self._servers}: {_describe(error)}") from None
        finally:
            await self._consumer.stop()
            await self._producer.stop()

    async def _demand_topic(self, topic: str) -> None:
        """Refuse a topic that is not there: the library waits for it for ever."""
        try:
            await asyncio.wait_for(self._producer.partitions_for(topic), TOPIC_SECONDS)
        except (TimeoutError, UnknownTopicOrPartitionError):
            said = f"there is no topic {topic!r}, and the server makes none by itself"
            raise KafkaUnusable(f"Kafka at {self._servers}: {said}") from None

    async def _take_batch(
        self, batch: Mapping[TopicPartition, Sequence[ConsumerRecord]], stopped: asyncio.Event
    ) -> None:
        """Take the events of several partitions, and commit how far each has come."""
        taken = await asyncio.gather(*(self._take_partition(records, stopped) for records in batch.values()))
        reached = {partition: offset for partition, offset in zip(batch, taken, strict=True) if offset is not None}
        if reached:
            await self._commit(reached)

    async def _commit(self, reached: Mapping[TopicPartition, int]) -> None:
        try:
            await self._consumer.commit(dict(reached))
        except KafkaError as error:
            # The partitions are another listener's by now, which begins with what is not committed: done already.
            _log.warning("commit_failed", reason=_describe(error))

    async def _take_partition(self, records: Sequence[ConsumerRecord], stopped: asyncio.Event) -> int | None:
        """Return the offset after the last event that was taken in; `None` where none was."""
        reached = None
        for record in records:
            if not await self._take(record, stopped):
                break
            reached = record.offset + 1
        return reached

    async def _take(self, record: ConsumerRecord, stopped: asyncio.Event) -> bool:
        """Take one event in, however long that takes; return false when told to stop before."""
        pauses = Pauses()
        while not stopped.is_set():
            try:
                await self._settle(record)
            except (Unavailable, KafkaError) as error:
                _log.warning("event_put_off", at=_place(record), reason=str(error))
                await _wait(stopped, pauses.next_seconds())
            else:
                return True
        return False

    async def _settle(self, record: ConsumerRecord) -> None:
        event: CloudEvent | None = None
        try:
            event = _read(record)
            outcome = await self._intake.take(event)
        except NotAnEvent as error:
            outcome = Outcome("dead", reason=str(error))
        if outcome.status == "dead":
            await self._bury(record, event, outcome)
            # At once: Temporal knows no dead letters, and one that comes again is there twice.
            await self._commit({TopicPartition(record.topic, record.partition): record.offset + 1})
        log = _log.warning if outcome.status == "dead" else _log.info
        log(
            f"event_{outcome.status}",
            event_id=event.workflow_id if event is not None else None,
            at=_place(record),
            trigger=outcome.trigger,
            run=outcome.workflow_id,
            reason=outcome.reason,
        )

    async def _bury(self, record: ConsumerRecord, event: CloudEvent | None, outcome: Outcome) -> None:
        """Send a record on to the topic of dead letters, with the reason, and return when it is kept there."""
        told = {
            "mandate_reason": (outcome.reason or "").encode()[:_REASON_BYTES],
            "mandate_trigger": (outcome.trigger or "").encode(),
            "mandate_event": event.workflow_id.encode() if event is not None else b"",
            "mandate_at": _place(record).encode(),
        }
        topic = self._subscription.dead_letter_topic
        ours = list(told.items())
        try:
            await self._producer.send_and_wait(topic, record.value, record.key, headers=[*record.headers, *ours])
        except MessageSizeTooLargeError:
            # What does not fit beside the reason is still where it came from.
            await self._producer.send_and_wait(topic, None, record.key, headers=ours)


def _read(record: ConsumerRecord) -> CloudEvent:
    """Read the event of a record; raise as `read_event`."""
    try:
        headers = {name.lower(): (value or b"").decode() for name, value in record.headers}
    except UnicodeDecodeError:
        raise NotAnEvent("a header of the record is not UTF-8") from None
    attributes = {name.removeprefix(_PREFIX): value for name, value in headers.items() if name.startswith(_PREFIX)}
    return read_event(headers.get("content-type", ""), attributes, record.value or b"")


def _place(record: ConsumerRecord) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _describe(error: KafkaError) -> str:
    if isinstance(error, KafkaConnectionError):
        # The library's words are of its own inside: the addresses are told already.
        return "it cannot be reached; check the address (--kafka, MANDATE_KAFKA_SERVERS), TLS and that it runs"
    said = " ".join(str(error).split()).removeprefix(f"{type(error).__name__}: ")
    return f"{type(error).__name__}{f': {said}' if said else ''}"[:300]


async def _wait(stopped: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until told to stop."""
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return
