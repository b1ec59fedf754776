"""`mandate listen` killed at random moments: no event is lost, and none is done twice."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mandate.workers.events.cloud_event import STRUCTURED, read_event
from tests.integration.cli.test_listen import FILES
from tests.support.events import BEARER, ENVIRONMENT, new_event
from tests.support.kafka import find_lack, kafka_server
from tests.support.place import Place, line_with, new_place
from tests.support.ports import free_port

# They take the whole machine: others beside them would be late.
pytestmark = pytest.mark.alone

KILLS = 12
"""Of each listener."""
STARTS = 300
MESSAGES = 30
POISON = 30
SESSIONS = 3
PARTITIONS = 3


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    env = {"MANDATE_TRIGGERS": str(tmp_path / "triggers.yaml"), **ENVIRONMENT}
    async with new_place(tmp_path, FILES, **env) as made, made.serving("writer"):
        yield made


def new_events() -> list[dict[str, Any]]:
    """Return events of all kinds in a random order; each tenth comes twice."""
    starts = [new_event(f"start-{number}", data={"order": number}) for number in range(STARTS)]
    messages = [
        new_event(
            f"say-{number}",
            type="chat",
            data={"chat": str(number % SESSIONS), "text": f"message {number}", "by": "bob@example.com"},
        )
        for number in range(MESSAGES)
    ]
    poison = [new_event(f"poison-{number}", type="strange") for number in range(POISON)]
    events = [*starts, *messages, *poison]
    events += random.sample(events, len(events) // 10)
    random.shuffle(events)
    return events


def key_of(event: dict[str, Any]) -> str:
    return read_event(STRUCTURED, {}, json.dumps(event).encode()).workflow_id


async def kill_often(place: Place, words: tuple[str, ...], is_done: Callable[[], Awaitable[bool]]) -> list[float]:
    """Kill listeners after random times, and let the last one finish; return the times."""
    lived = []
    for number in range(KILLS + 1):
        process = await place.start("listen", *words, "-o", "json", "--log-level", "error")
        try:
            await line_with(process.stdout, "triggers")
            if number < KILLS:
                lived.append(random.uniform(0.0, 1.5))
                await asyncio.sleep(lived[-1])
            else:
                async with asyncio.timeout(120):
                    while not await is_done():
                        await asyncio.sleep(0.5)
        finally:
            process.kill()
            await process.wait()
    return lived


async def started(place: Place) -> Counter[str]:
    """Count the runs by their workflow ids; a session is one of many parts at most."""
    return Counter([run.id async for run in place.client.list_workflows("WorkflowType = 'AgentWorkflow'")])


async def told(place: Place, sessions: set[str]) -> Counter[str]:
    """Count the messages that the sessions have answered or hold, by their ids."""
    found: Counter[str] = Counter()
    for session in sessions:
        state = (await place.client.get_workflow_handle(session).query("state"))["session"]
        found.update(state.get("replies", {}).keys())
        found.update(message["id"] for key in ("queue", "now", "telling") for message in state.get(key, ()))
        found.update(state.get("told", ()))
    return found


async def count_answers(place: Place, sessions: set[str]) -> int:
    states = [await place.client.get_workflow_handle(session).query("state") for session in sessions]
    return sum(state["session"]["number"] for state in states)


async def check(place: Place, dead: Counter[str]) -> None:
    """Assert that each event was done, and once."""
    runs = await started(place)
    wanted = {key_of(new_event(f"start-{number}", data={})) for number in range(STARTS)}
    assert {name: count for name, count in runs.items() if name.startswith("event-")} == dict.fromkeys(wanted, 1)
    sessions = {name for name in runs if name.startswith("chat-")}
    assert len(sessions) == SESSIONS
    messages = {key_of(new_event(f"say-{number}")).rpartition("-")[2] for number in range(MESSAGES)}
    assert await told(place, sessions) == Counter(messages)
    async with asyncio.timeout(60):
        while (answered := await count_answers(place, sessions)) < MESSAGES:
            await asyncio.sleep(0.5)
    assert answered == MESSAGES
    assert set(dead) == {key_of(new_event(f"poison-{number}")) for number in range(POISON)}


async def test_events_of_kafka_outlive_their_listeners(place: Place, tmp_path: Path) -> None:
    if (lack := find_lack()) is not None:
        pytest.skip(lack)
    events = new_events()
    (tmp_path / "kafka").mkdir()
    async with kafka_server(tmp_path / "kafka") as kafka:
        words = ("--topic", "events", "--kafka", kafka, "--session-timeout", "1s", "--dead-letter-topic", "dead")
        sending = asyncio.create_task(_produce(kafka, events))

        async def is_done() -> bool:
            return sending.done() and await _lag(kafka) == 0

        # Two of one group: each death and each start gives partitions to the other.
        lived = await asyncio.gather(*(kill_often(place, words, is_done) for _ in range(2)))
        await sending
        dead = await _dead(kafka)

    await check(place, Counter(event for event, _ in dead))
    # A kill between a dead letter and its commit, in each partition at most.
    kills, again = sum(map(len, lived)), len(dead) - len(set(dead))
    print(f"{kills} kills, {again} dead letters sent twice")
    assert again <= PARTITIONS * kills


async def test_events_over_http_outlive_their_listener(place: Place, tmp_path: Path) -> None:
    """Senders send again what was not answered, or answered with 503."""
    port = free_port()
    waiting = new_events()
    total = len(waiting)
    answered: list[int] = []

    async def send() -> None:
        async with httpx2.AsyncClient(timeout=20) as http:
            while waiting:
                event = waiting.pop()
                # So that the events last for as long as there are kills.
                await asyncio.sleep(random.uniform(0.0, 0.4))
                while True:
                    try:
                        answer = await http.post(
                            f"http://127.0.0.1:{port}/events",
                            content=json.dumps(event).encode(),
                            headers={"content-type": STRUCTURED, **BEARER},
                        )
                    except httpx2.TransportError:
                        await asyncio.sleep(0.1)
                        continue
                    if answer.status_code in {200, 202}:
                        answered.append(answer.status_code)
                        break
                    assert answer.status_code == 503, answer.text

    senders = [asyncio.create_task(send()) for _ in range(4)]

    async def is_done() -> bool:
        return all(sender.done() for sender in senders)

    await kill_often(place, ("--port", str(port)), is_done)
    await asyncio.gather(*senders)

    assert len(answered) == total
    letters = [json.loads(path.read_text()) for path in (tmp_path / "state/dead-letters").glob("*.json")]
    await check(place, Counter(key_of(one["event"]) for one in letters))


async def _produce(kafka: str, events: list[dict[str, Any]]) -> None:
    """Send the events over the time in which listeners are killed."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    try:
        for event in events:
            await asyncio.sleep(random.uniform(0.0, 0.12))
            headers = [("content-type", STRUCTURED.encode())]
            # A conversation is of one partition.
            key = str(event["data"]["chat"] if event["type"] == "chat" else event["id"]).encode()
            await producer.send_and_wait("events", json.dumps(event).encode(), key=key, headers=headers)
    finally:
        await producer.stop()


async def _lag(kafka: str) -> int:
    """Count the records that are not committed."""
    consumer = AIOKafkaConsumer("events", bootstrap_servers=kafka)
    of_group = AIOKafkaConsumer(bootstrap_servers=kafka, group_id="mandate", enable_auto_commit=False)
    await consumer.start()
    await of_group.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return sum([end - (await of_group.committed(partition) or 0) for partition, end in ends.items()])
    finally:
        await consumer.stop()
        await of_group.stop()


async def _dead(kafka: str) -> list[tuple[str, str]]:
    """Return the events of all dead letters, each with the place that it had."""
    consumer = AIOKafkaConsumer("dead", bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        batches = []
        while batch := await consumer.getmany(timeout_ms=3000):
            batches += [record for records in batch.values() for record in records]
        told = [dict(record.headers) for record in batches]
        return [(one["mandate_event"].decode(), one["mandate_at"].decode()) for one in told]
    finally:
        await consumer.stop()
