"""Limits of time: what is cut off, what is waited for, and the time that the last answer has."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, texts_told
from tests.support.fake_provider.behaviours import Answer, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import ASK_ALL, asked, decide, write_people

LAST = "This is all that I have."
LIMIT = "10s"
"""Of which 2 s are kept back; where nothing was, the last answer had one."""

FIRST: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "model-call": ("look", [{"what": "x"}]),
    "read": ("look", [{"what": "x", "seconds": 60}]),
    "effect": ("pay", [{"order": 1, "seconds": 11}]),
    "effects": ("pay", [{"order": number, "seconds": 3} for number in range(5)]),
    "approval": ("pay", [{"order": 1}]),
    "late-answer": ("look", [{"what": "x", "seconds": 8.2}]),
    "pause": ("look", [{"what": "x", "seconds": 1}]),
}
"""Calls of the model of this name, after which it says nothing for long."""


async def script(request: Request) -> Answer:
    """A model that makes its calls, then says nothing for long, and takes a second for its last answer."""
    if b"This is your last answer" in request.body:
        return Answer(text=LAST, delay=1)
    tool, arguments = FIRST[request.json["model"]]
    if len(request.json["messages"]) > 2:
        return Answer(text="too late", delay=60)
    return Answer(calls=tuple(Call(tool, json.dumps(one)) for one in arguments), reasoning=False)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=script) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    environment = {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)), **environment)


@pytest.mark.alone
async def test_last_answer_has_the_time_that_is_kept_back_for_it(site: Site) -> None:
    """Whatever went before: a call that is cut off, one that is not, people who decide late or never, a pause."""
    for name in FIRST:
        limit = {"work_time": LIMIT} if name == "read" else {"wall_time": LIMIT}
        keys: dict[str, Any] = {"policy": ASK_ALL} if name == "approval" else {}
        budget = {**limit, "when_used_up": "ask" if name == "late-answer" else "answer"}
        site.write(name, [], models=[f"vllm:{name}"], budget=budget, **keys)
    async with asyncio.timeout(90), site.serving():
        runs = {name: await site.start(name) for name in FIRST}
        await asyncio.gather(pause(site, runs["pause"]), answer_late(runs["late-answer"]))
        results = {name: await run.result() for name, run in runs.items()}

    assert {name: (result.status, result.output) for name, result in results.items()} == dict.fromkeys(
        FIRST, (RunStatus.EXHAUSTED, LAST)
    )
    assert [results[name].effects.count for name in ("effect", "effects", "approval")] == [1, 3, 0]
    effects = await texts_told(site, results["effects"].head or "")
    assert effects[3:] == ["not made: the limit of 10s since the start is used up"] * 2
    assert await texts_told(site, results["approval"].head or "") == [
        "refused: nobody decided before the time of the run was used up"
    ]


async def pause(site: Site, run: WorkflowHandle[Any, Any]) -> None:
    await site.agents.pause(run.id, by="ann@example.com")
    await asyncio.sleep(11)
    await site.agents.resume(run.id, by="ann@example.com")


async def answer_late(run: WorkflowHandle[Any, Any]) -> None:
    (request,) = await asked(run)
    await asyncio.sleep(2.5)
    await decide(run, request, "answer")


async def test_a_model_that_judges_is_cut_off_too(site: Site, fake: FakeProvider) -> None:
    async def judged(request: Request) -> Answer:
        is_judge = b"You check the work" in request.body
        return Answer(text='{"verdict": "pass", "reason": "fine"}', delay=30) if is_judge else Answer(text="Done.")

    check = {"name": "judged", "after": "final", "rubric": "It is brief.", "model": "vllm:main", "retries": 0}
    fake._script = judged
    site.write("judged", [], models=["vllm:main"], checks=[check], budget={"wall_time": "6s"}, people={"expires": "1s"})
    began = time.monotonic()
    async with asyncio.timeout(60), site.serving():
        handle = await site.start("judged")
        result = await handle.result()

    assert time.monotonic() - began < 25
    assert result.status is not RunStatus.COMPLETED


async def test_nobody_is_waited_for_beyond_the_time_when_no_model_answers(site: Site) -> None:
    """It would keep the run above a child for a day."""
    quota = {"fault": "quota"}
    site.write(
        "silent",
        [{"fail": [quota] * 6, "say": "late"}],
        budget={"wall_time": "3s"},
        people={"expires": "24h"},
    )

    began = time.monotonic()
    result, _ = await site.run("silent")

    assert time.monotonic() - began < 30
    assert result.status is RunStatus.DECLINED
    assert "nobody decided before the time of the run was used up" in (result.reason or "")
