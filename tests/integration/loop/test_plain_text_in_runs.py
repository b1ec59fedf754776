"""A run whose model, tools and caller write what steers terminals: nowhere in Temporal is it seen."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.support.agents import Site, new_site, results_told
from tests.support.people import asked, decide, write_people
from tests.support.toolkit import calls_of
from tests.unit.workflows.rules.test_plain_text import forbidden

ESCAPES = "\x1b[2K\x1b]8;;http://evil.example\x1b\\click\x9b31m \u202e0001\u202c a\u200bb \x7f\u2028c"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def texts_of(message: Message) -> Iterator[str]:
    """All that a program which prints a history has to print."""
    if isinstance(message, Payload):
        if message.metadata.get("encoding") == b"json/plain":
            yield message.data.decode()
        return
    for field, value in message.ListFields():
        if field.type not in {field.TYPE_MESSAGE, field.TYPE_STRING}:
            continue
        if isinstance(value, str | Message):
            values: list[Any] = [value]
        elif hasattr(value, "items"):
            values = [part for pair in value.items() for part in pair]
        else:
            values = list(value)
        for part in values:
            yield from texts_of(part) if isinstance(part, Message) else [str(part)]


@activity.defn(name="Hostile")
async def hostile(whole: dict[str, Any]) -> str:
    raise ApplicationError(f"no {ESCAPES}", non_retryable=True, type="Refused")


async def test_nothing_that_strangers_write_reaches_who_looks_at_a_run(site: Site, client: Client) -> None:
    remote = {
        "activity": {"name": "Hostile", "task_queue": f"{site.queue}-remote"}, "name": "remote", "effect": "read",
        "input_schema": {"type": "object", "properties": {}},
    }  # fmt: skip
    turns = [
        {"call": [{"ask_person": {"question": f"Which? {ESCAPES}", "options": [ESCAPES]}}]},
        {"call": [{"ask_person": {"question": "Why?"}}]},
        {"call": [{"send": {"to": ESCAPES}}, {"remote": {}}]},
        {"call": [{"wipe": {ESCAPES: ESCAPES}}]},
        {"say": f"done {ESCAPES}"},
    ]
    tools = [{"python": "tests.support.toolkit:send"}, remote]
    policy = [
        {"id": "asked", "match": {"tools": ["send"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
        {"id": "all", "match": {"tools": ["remote", "ask_person"]}, "verdict": "allow"},
    ]
    site.write("memo", turns, tools=tools, policy=policy)

    async with site.serving(), Worker(client, task_queue=f"{site.queue}-remote", activities=[hostile]):
        handle = await site.start("memo", f"go {ESCAPES}", labels={f"team{ESCAPES}"[:60]: ESCAPES[:60]})
        (question,) = await asked(handle)
        await decide(handle, question, "answer", value=question.options[0], comment=ESCAPES)
        (why,) = await asked(handle)
        await decide(handle, why, "answer", value=f"this {ESCAPES}", comment=ESCAPES)
        (request,) = await asked(handle)
        looks = [await look(handle, name) for name in ("__temporal_workflow_metadata", "open_requests", "progress")]
        await decide(handle, request)
        result = await handle.result()
        looks.append(await look(handle, "__temporal_workflow_metadata"))

    seen = [text for event in (await handle.fetch_history()).events for text in texts_of(event)] + looks
    assert [text for text in seen if forbidden(text)] == []
    assert question.question == f"Which? {shown(ESCAPES)}"
    assert request.title.startswith("send to=\ufffd[2K\ufffd]8;;http://evil")
    assert calls_of(handle.id, "send")[0].arguments == {"to": ESCAPES}
    assert result.output == f"done {ESCAPES}"
    told = await results_told(site, result.head or "")
    assert shown(ESCAPES) in told[0].text
    assert told[1].text.count(ESCAPES) >= 1


async def look(handle: Any, query: str) -> str:
    raw = await handle.query(query, result_type=RawValue)
    text: str = raw.payload.data.decode()
    details = json.loads(text).get("currentDetails", "")
    return text + details


def shown(text: str) -> str:
    return "".join("\ufffd" if forbidden(character) else character for character in text)
