"""`mandate listen` on Kafka topics: events are taken in once, and what nothing can be done with goes to a topic."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from mandate.workers.events.cloud_event import MOST_BYTES, STRUCTURED, read_event
from mandate.workflows.contracts.run import RunResult
from tests.integration.cli.test_listen import FILES
from tests.support.events import listening, new_event
from tests.support.kafka import find_lack, kafka_server
from tests.support.place import Place, new_place

CONTENT_TYPE = ("content-type", STRUCTURED.encode())


@pytest.fixture(scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    if (lack := find_lack()) is not None:
        pytest.skip(lack)
    async with kafka_server(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, kafka: str) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("events")
    env = {"MANDATE_TRIGGERS": str(folder / "triggers.yaml"), "MANDATE_KAFKA_SERVERS": kafka}
    async with new_place(folder, FILES, **env) as made, made.serving("writer"):
        yield made


async def send(kafka: str, topic: str, records: Sequence[tuple[bytes | None, list[tuple[str, bytes]]]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=2_000_000)
    await producer.start()
    try:
        for value, headers in records:
            await producer.send_and_wait(topic, value, key=b"k", headers=headers)
    finally:
        await producer.stop()


def structured(event: dict[str, Any]) -> tuple[bytes, list[tuple[str, bytes]]]:
    return json.dumps(event).encode(), [CONTENT_TYPE]


async def received(kafka: str, topic: str, count: int) -> list[Any]:
    """The first records of a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def committed(kafka: str, topic: str) -> int:
    """How many records of a topic are committed by the group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id="mandate", enable_auto_commit=False)
    await consumer.start()
    try:
        return sum([await consumer.committed(TopicPartition(topic, number)) or 0 for number in range(3)])
    finally:
        await consumer.stop()


def workflow_id(event: dict[str, Any]) -> str:
    return read_event(STRUCTURED, {}, json.dumps(event).encode()).workflow_id


async def output(place: Place, event: dict[str, Any]) -> Any:
    async with asyncio.timeout(60):
        while True:
            try:
                handle = place.client.get_workflow_handle(workflow_id(event), result_type=RunResult)
                return (await handle.result()).output
            except Exception as error:
                if "not found" not in str(error):
                    raise
                await asyncio.sleep(0.2)


async def test_events_of_both_modes_start_runs_once(place: Place, kafka: str) -> None:
    first, second = new_event("k1", data={"order": 1}), new_event("k2", data={"order": 2})
    attributes = {name: value for name, value in second.items() if name != "data"}
    message = sdk.to_binary(SdkEvent({**attributes, "datacontenttype": "application/json"}, {"order": 2}), JSONFormat())
    assert message.value is not None
    binary = (message.value, list(message.headers.items()))
    await send(kafka, "modes", [structured(first), binary, structured(first)])

    async with listening(place, "--topic", "modes"):
        assert [await output(place, event) for event in (first, second)] == ["a poem", "a poem"]
        async with asyncio.timeout(30):
            while await committed(kafka, "modes") < 3:
                await asyncio.sleep(0.2)

    runs = [run async for run in place.client.list_workflows(f"WorkflowId = '{workflow_id(first)}'")]
    assert len(runs) == 1


async def test_what_nothing_can_be_done_with_goes_to_the_topic_of_dead_letters(place: Place, kafka: str) -> None:
    lost, last = new_event("k3", type="strange"), new_event("k4", data={"order": 4})
    records = [
        (b"{", [CONTENT_TYPE]),
        (b"no event", []),
        (None, []),
        (b"x" * (MOST_BYTES + 1), [CONTENT_TYPE]),
        (b"\xff", [("x", b"\xff")]),
        structured(lost),
        structured(last),
    ]
    await send(kafka, "poison", records)

    async with listening(place, "--topic", "poison", "--dead-letter-topic", "poison-dead"):
        assert await output(place, last) == "a poem"
        dead = await received(kafka, "poison-dead", 6)

    headers = [{name: value.decode(errors="replace") for name, value in one.headers} for one in dead]
    assert [one.value for one in dead] == [value for value, _ in records[:6]]
    assert [one["mandate_at"].rpartition("/")[2] for one in headers] == ["0", "1", "2", "3", "4", "5"]
    assert headers[5]["mandate_reason"] == "no trigger matches the event"
    assert headers[5]["mandate_event"] == workflow_id(lost)
    assert headers[5]["content-type"] == STRUCTURED
    assert headers[3]["mandate_reason"] == "the event has 262,145 bytes; at most 262,144 are taken"


async def test_without_temporal_nothing_is_committed(kafka: str, tmp_path: Path) -> None:
    """What comes meanwhile is taken in by the next listener, with no event lost."""
    env = {"MANDATE_TRIGGERS": str(tmp_path / "triggers.yaml"), "MANDATE_KAFKA_SERVERS": kafka}
    async with new_place(tmp_path, FILES, **env) as gone:
        process = await gone.start("listen", "--topic", "away", "-o", "json")
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.readline()
    event = new_event("k5", data={"order": 5})
    try:
        await send(kafka, "away", [structured(event)])
        async with asyncio.timeout(60):
            while b"event_put_off" not in await process.stderr.readline():
                pass
        assert await committed(kafka, "away") == 0
    finally:
        process.kill()
        await process.wait()

    async with (
        new_place(tmp_path, FILES, **env) as place,
        place.serving("writer"),
        listening(place, "--topic", "away", "--session-timeout", "1s"),
    ):
        assert await output(place, event) == "a poem"


async def test_what_cannot_listen_to_kafka_is_one_sentence(place: Place) -> None:
    sentences = {
        ("--kafka", "127.0.0.1:1"): "--kafka goes with --topic, which names what is read",
        ("--topic", "a", "--dead-letter-topic", "a"): (
            "--dead-letter-topic 'a' is read too: dead letters would come again for ever"
        ),
        ("--topic", "a", "--session-timeout", "x"): (
            "--session-timeout 'x': a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'"
        ),
    }

    said = {words: await place.run("listen", *words) for words in sentences}
    nameless = await place.run("listen", "--topic", "no topic", "--log-level", "never")
    unreachable = await place.run("listen", "--topic", "a", "--kafka", "127.0.0.1:1", "--log-level", "never")

    assert {words: (one.code, one.err) for words, one in said.items()} == {
        words: (2, f"error: {sentence}\n") for words, sentence in sentences.items()
    }
    assert nameless.code == 2
    assert nameless.err.startswith("error: Kafka at 127.0.0.1:")
    assert nameless.err.count("\n") == 1
    assert unreachable.code == 2
    assert unreachable.err.startswith("error: Kafka at 127.0.0.1:1: it cannot be reached; ")
