"""Runs that go on with the conversation of another one, at its end or at a step of it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site, texts_told
from tests.support.fake_provider.behaviours import Answer, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider


async def pays(request: Request) -> Answer:
    """A model that pays order 1, 2 and 3 in a step each, as often as it is asked to, and then tells of it."""
    messages = request.json["messages"]
    answered = sum(message["role"] == "assistant" for message in messages)
    asked = max(place for place, message in enumerate(messages) if message["role"] == "user")
    since = sum(message["role"] == "assistant" for message in messages[asked:])
    order = since + 1 if "again from 2" not in json.dumps(messages[asked]) else since + 2
    if order <= 3:
        return Answer(calls=(Call("pay", json.dumps({"order": order}), id=f"c{answered}"),), reasoning=False)
    return Answer(text="paid", reasoning=False)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=pays) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    made = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
    made.write("payer", [], models=["vllm:payer"])
    return made


async def test_what_the_origin_did_after_the_step_is_not_done_again(site: Site) -> None:
    async with site.serving():
        first = await site.start("payer", "Pay all.")
        ended = await first.result()
        fork = await site.start("payer", "Do it again from 2.", continues={"run": first.id, "step": 1})
        forked = await fork.result()

    assert (ended.status, ended.effects.count) == (RunStatus.COMPLETED, 3)
    assert (forked.status, forked.effects.count) == (RunStatus.COMPLETED, 0)
    told = await texts_told(site, forked.head or "")
    assert len(told) == 3
    assert told[1].startswith(f"not made again: the run {first.id} made this call at its step 2, and it is done")
    notes = [
        part.text
        for message in await conversation(site, forked.head or "")
        if message.role == "user"
        for part in message.parts
        if part.kind == "text" and part.text.startswith("[Note")
    ]
    (note,), origin = notes, f"step 1 of the run {first.id}"
    assert note.split("\n") == [
        f"[Note from the runtime] You go on from {origin}, in a run of your own; approvals of there do not count here.",
        "After that step the other run made these calls. Do not make them again; they are done, or may be:",
        "- pay order=2: done",
        "- pay order=3: done",
    ]


async def test_run_that_goes_on_from_the_end_may_do_the_same_once_more(site: Site) -> None:
    async with site.serving():
        first = await site.start("payer", "Pay all.")
        await first.result()
        again = await site.start("payer", "Pay all once more.", continues={"run": first.id})
        result = await again.result()

    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 3)


@pytest.mark.parametrize(
    ("continues", "says"),
    [
        ({"run": "nobody"}, "continues.run: there is no run 'nobody' that the server knows"),
        ({"run": "{first}", "step": 9}, "continues.step: 9: the run '{first}' has taken 4 steps so far"),
        ({"run": "{first}", "step": 0}, "continues.step: 0: must be at least 1"),
        ({"run": "{first}", "steps": 2}, "continues.steps"),
    ],
)
async def test_origin_that_is_none_is_refused(site: Site, continues: dict[str, Any], says: str) -> None:
    async with site.serving():
        first = await site.start("payer", "Pay all.")
        await first.result()
        asked = {**continues, "run": continues["run"].format(first=first.id)}
        with pytest.raises((WorkflowFailureError, ValueError)) as refused:
            await (await site.start("payer", "Go on.", continues=asked)).result()

    error = refused.value.cause if isinstance(refused.value, WorkflowFailureError) else refused.value
    assert says.format(first=first.id) in str(error)
