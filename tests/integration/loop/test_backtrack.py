"""Going back inside a run: the branch is forgotten, and what was done in it stays done."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.history.events import CallReturned
from mandate.workers.history.stream import unfolding
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site, texts_told
from tests.support.fake_provider.behaviours import Answer, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import asked, decide, refusal_of, write_people

SEEN: list[Any] = []


def act(tool: str, number: int, **arguments: Any) -> Answer:
    return Answer(text=f"answer {number}", calls=(Call(tool, json.dumps(arguments), id=f"c{number}"),), reasoning=False)


BACK = ("go_back", {"to": 1, "because": "order 2 was the wrong one"})
LOOK = ("look", {"what": "x"})

PLANS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "wanderer": [("pay", {"order": 1}), ("pay", {"order": 2}), BACK, ("pay", {"order": 3})],
    "far": [LOOK, ("go_back", {"to": 9, "because": "so"})],
    "here": [LOOK, ("go_back", {"to": 2, "because": "so"})],
    "often": [LOOK, LOOK, BACK, LOOK, BACK, LOOK, BACK],
    "stuck": [LOOK, LOOK, ("look_bad", {})],
    "straight": [LOOK, BACK],
}
"""Calls of models by their names, one an answer; then they are done."""


async def plays(request: Request) -> Answer:
    """A model that keeps to its plan, whatever it remembers."""
    SEEN.append(request.json["messages"])
    number, plan = len(SEEN), PLANS[request.json["model"]]
    if number > len(plan):
        return Answer(text="done", reasoning=False)
    tool, arguments = plan[number - 1]
    return act(tool, number, **arguments)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    SEEN.clear()
    async with FakeProvider(script=plays) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    environment = {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)), **environment)


async def test_branch_is_forgotten_and_what_was_done_stays_done(site: Site) -> None:
    site.write("wanderer", [], models=["vllm:wanderer"], backtrack=True)

    result, _ = await site.run("wanderer")

    assert (result.status, result.effects.count, result.usage.model_calls) == (RunStatus.COMPLETED, 3, 5)
    after = json.dumps(SEEN[3])
    assert "answer 1" in after
    assert "answer 2" not in after
    assert "went back to step 1: order 2 was the wrong one" in after
    assert "- step 2: pay order=2" in after
    # What follows begins with it, byte for byte.
    assert SEEN[4][: len(SEEN[3])] == SEEN[3]
    whole = [message.text for message in await conversation(site, result.head or "") if message.role == "assistant"]
    assert whole == ["answer 1", "answer 2", "answer 3", "answer 4", "done"]


async def test_way_back_is_told_to_whoever_watches(site: Site) -> None:
    site.write("wanderer", [], models=["vllm:wanderer"], backtrack=True)
    _, run = await site.run("wanderer")

    told = [
        (happening.call.request.tool, happening.call.state, happening.call.result and happening.call.result.text)
        async for _, happened in unfolding(site.client, run, None)
        for happening in happened
        if isinstance(happening, CallReturned)
    ]

    assert [one[:2] for one in told] == [("pay", "done"), ("pay", "done"), ("go_back", "done"), ("pay", "done")]
    assert told[2][2] == "gone back"


async def test_tool_is_there_only_for_agents_that_may(site: Site) -> None:
    site.write("straight", [], models=["vllm:straight"])

    result, _ = await site.run("straight")

    (misfit,) = (text for text in await texts_told(site, result.head) if "go_back" in text)
    assert misfit.startswith("not called: there is no tool 'go_back'; there are: ")


@pytest.mark.parametrize(("model", "to"), [("far", 9), ("here", 2)])
async def test_step_that_is_none_is_told_to_the_model(site: Site, model: str, to: int) -> None:
    site.write("lost", [], models=[f"vllm:{model}"], backtrack=True)

    result, _ = await site.run("lost")

    told = await texts_told(site, result.head)
    assert told[1:] == [f"not gone back: to: {to}: must be a step from 1 to 1; this is step 2"]


async def test_it_goes_back_as_often_as_attempts_allow(site: Site) -> None:
    site.write("often", [], models=["vllm:often"], backtrack=True, attempts=2)

    result, _ = await site.run("often")

    told = await texts_told(site, result.head)
    assert (result.status, result.usage.model_calls) == (RunStatus.COMPLETED, 8)
    assert told[-1] == "not gone back: you have gone back 2 times, which is as often as you may; go on from here"


async def test_people_may_send_the_agent_back(site: Site) -> None:
    site.write("stuck", [], models=["vllm:stuck"], backtrack=True, attempts=1)
    async with site.serving():
        run = await site.start("stuck")
        (request,) = await asked(run)
        said = {"request": request.id, "digest": request.digest, "choice": "go_back", "by": "ann@example.com"}
        no_value = await refusal_of(run, "decide", said)
        no_step = await refusal_of(run, "decide", {**said, "value": 7})
        await decide(run, request, "go_back", value={"to": 1}, comment="Look at y.")
        result = await run.result()

    assert request.choices == ("retry", "supply", "go_back", "stop")
    assert no_value == 'value: must be the step to go back to, for example 3 or {"to": 3}'
    assert no_step == "value: to: 7: must be a step from 1 to 2; this is step 3"
    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    told = json.dumps(SEEN[-1])
    assert "You went back to step 1: Look at y." in told
    assert "[ann@example.com says] I have put you back to step 1. Look at y." in told
    assert "answer 2" not in told
