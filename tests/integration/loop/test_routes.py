"""Routes on a real server: where a run goes, why, and that it stays there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from mandate.activities.files import FileError
from mandate.workers.history.record import read_record
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelRequest
from mandate.workflows.contracts.run import Progress, RunStatus
from tests.support.agents import Site, continued, new_site
from tests.support.fake_provider.behaviours import Answer, Behaviour, Call, Problem
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import asked, decide, write_people

CHEAP, STRONG, OTHER = "vllm:cheap", "vllm:strong", "vllm:other"
DOWN = Problem(503, "server_error", "down", {"x-should-retry": "false"})
LOOKS = 4
"""Calls of `look` before the answer."""


class Plan:
    """Behaviours by model; the others look a few times and answer."""

    def __init__(self) -> None:
        self.by_model: dict[str, list[Behaviour] | Behaviour] = {}
        self.delays: dict[str, float] = {}

    async def __call__(self, request: Request) -> Behaviour:
        model = request.json["model"]
        planned = self.by_model.get(model)
        if isinstance(planned, list):
            planned = planned.pop(0) if planned else None
        if planned is not None:
            return planned
        done = sum(message["role"] == "tool" for message in request.json["messages"])
        delay = self.delays.get(model, 0.0)
        if done >= LOOKS:
            return Answer(text="Done.", delay=delay)
        return Answer(calls=(Call("look", json.dumps({"what": f"n{done}"}), id=f"c{done}"),), delay=delay)


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
async def fake(plan: Plan) -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=plan) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    return new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", MANDATE_PEOPLE=str(write_people(tmp_path)))


def models_of(fake: FakeProvider) -> list[str]:
    return [request.json["model"] for request in fake.requests]


async def requests_of(client: Client, handle: WorkflowHandle[Any, Any]) -> list[ModelRequest]:
    """Requests to models of the newest part of a run."""
    found = []
    async for event in client.get_workflow_handle(handle.id).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "call_model":
            given = json.loads(scheduled.input.payloads[0].data)
            found.append(ModelRequest.model_validate(given.get("value", given)))
    return found


async def why_of(client: Client, workflow_id: str) -> dict[int, str]:
    """Why the models of a run were asked, by step, as `mandate show` reads it."""
    return (await read_record(client, workflow_id, None)).history.why


async def progress(handle: WorkflowHandle[Any, Any]) -> Progress:
    return await handle.query("progress", result_type=Progress)


async def details_of(handle: WorkflowHandle[Any, Any]) -> str:
    """The current details of a run, as Temporal's Web UI shows them."""
    metadata = await handle.query("__temporal_workflow_metadata", result_type=RawValue)
    return str(json.loads(metadata.payload.data)["currentDetails"])


async def test_a_condition_moves_the_run_and_it_stays(site: Site, fake: FakeProvider, client: Client) -> None:
    """The condition holds at one step only; the run does not go back when it holds no more."""
    when = "run.step == 2 && run.last_tools == ['look'] && run.risk == 0.0 && run.failures == 0"
    site.write("moves", [], models=[CHEAP, {"model": STRONG, "when": when}])

    async with site.serving():
        handle = await site.start("moves")
        result = await handle.result()
        seen = await progress(handle)
        details = await details_of(handle)

    assert result.status is RunStatus.COMPLETED
    assert "Model: `vllm:strong`: a condition of the route holds: run.step == 2" in details
    assert models_of(fake) == ["cheap", "cheap", "strong", "strong", "strong"]
    because = f"a condition of the route holds: {when}"
    assert await why_of(client, handle.id) == {1: "it is the first of the route", 3: because}
    assert (seen.model, seen.why_model) == (STRONG, because)
    assert f"step 2: going on with {STRONG}: {because}" in seen.recent


async def test_failed_calls_are_counted_for_conditions(site: Site, fake: FakeProvider, plan: Plan) -> None:
    bad = Answer(calls=(Call("look_bad", '{"shelf": 1}', id="c1"),))
    plan.by_model["cheap"] = [bad, Answer(text="Done.")]
    plan.by_model["strong"] = [Answer(text="Done.")]
    site.write("fails", [], models=[CHEAP, {"model": STRONG, "when": "run.failures > 0"}])

    result, _ = await site.run("fails")

    assert result.status is RunStatus.COMPLETED
    assert models_of(fake) == ["cheap", "strong"]


async def test_a_failed_check_asks_the_next_model_and_says_so(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.by_model["cheap"] = [Answer(text="no")]
    plan.by_model["strong"] = [Answer(text="yes")]
    site.write(
        "checked",
        [],
        models=[CHEAP, STRONG],
        after_failure="next_model",
        checks=[{"after": "final", "expect": "result == 'yes'"}],
    )

    async with site.serving():
        handle = await site.start("checked")
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "yes")
    assert models_of(fake) == ["cheap", "strong"]
    assert (await why_of(client, handle.id))[2] == ("an attempt failed, and the agent goes on with its next model then")


async def test_a_condition_that_cannot_be_evaluated_does_not_hold_and_is_told_once(
    site: Site, fake: FakeProvider
) -> None:
    when = "run.labels.team == 'support'"
    site.write("odd", [], models=[CHEAP, {"model": STRONG, "when": when}])

    async with site.serving():
        handle = await site.start("odd")
        await handle.result()
        seen = await progress(handle)

    told = [line for line in seen.recent if "could not be evaluated" in line]
    assert set(models_of(fake)) == {"cheap"}
    assert len(told) == 1
    assert told[0].startswith(f"step 0: the condition of {STRONG} could not be evaluated, so it does not hold: ")


async def test_the_cheaper_of_equal_models_is_asked(site: Site, fake: FakeProvider, client: Client) -> None:
    dear = {"model": CHEAP, "price": {"input": "3", "output": "9"}}
    low = {"model": STRONG, "price": {"input": "1", "output": "9"}}
    site.write("equal", [], models=[[OTHER, dear, low]], prefer="cost")

    async with site.serving():
        handle = await site.start("equal")
        await handle.result()

    assert set(models_of(fake)) == {"strong"}
    assert await why_of(client, handle.id) == {
        1: "it is the first of the route; of 3 equal ones the cheapest, $0.01 a call"
    }


async def test_the_fastest_of_equal_models_is_asked_once_all_are_known(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.delays = {"cheap": 0.6, "strong": 0.05, "other": 0.6}
    site.write("equal", [], models=[[CHEAP, STRONG, OTHER]], prefer="latency")

    async with site.serving():
        handle = await site.start("equal")
        await handle.result()

    assert models_of(fake) == ["cheap", "strong", "other", "strong", "strong"]
    assert "s an answer, vllm:other" in (await why_of(client, handle.id))[4]


async def test_no_answer_tells_its_time_where_nobody_asks_for_it(site: Site, client: Client) -> None:
    site.write("plain", [], models=[CHEAP])

    async with site.serving():
        handle = await site.start("plain")
        await handle.result()
        history = (await handle.fetch_history()).to_json()

    assert "latency" not in history
    assert "why_model" not in history
    requests = await requests_of(client, handle)
    assert {(request.model, request.why, request.has_others) for request in requests} == {(None, "", False)}


async def test_a_provider_that_is_down_is_left_for_the_next_model(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.by_model["cheap"] = DOWN
    site.write("down", [], models=[CHEAP, STRONG])

    async with site.serving():
        handle = await site.start("down")
        result = await handle.result()
        seen = await progress(handle)

    assert result.status is RunStatus.COMPLETED
    assert models_of(fake) == ["cheap", *["strong"] * 5]
    why = await why_of(client, handle.id)
    assert why[1].startswith("vllm:cheap gave no answer: 'vllm:cheap' answered 503")
    assert seen.why_model == why[1]
    assert [request.has_others for request in await requests_of(client, handle)] == [True, *[False] * 5]


async def test_a_breaker_sends_the_next_run_to_the_next_model_at_once(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.by_model["cheap"] = DOWN
    site.write("down", [], models=[CHEAP, STRONG])

    async with site.serving():
        for _ in range(5):
            await (await site.start("down")).result()
        fake.reset()
        handle = await site.start("down")
        await handle.result()
        seen = await progress(handle)

    assert set(models_of(fake)) == {"strong"}
    assert seen.why_model.startswith("vllm:cheap gave no answer: its breaker is open for ")
    assert "after 5 faults of the provider in a row, the last: 'vllm:cheap' answered 503" in seen.why_model
    assert (await why_of(client, handle.id))[1] == seen.why_model


async def test_an_open_breaker_is_told_while_a_run_with_one_model_waits(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.by_model["cheap"] = DOWN
    site.write("down", [], models=[CHEAP, STRONG])
    site.write("alone", [], models=[CHEAP])

    async with site.serving():
        for _ in range(5):
            await (await site.start("down")).result()
        plan.by_model.clear()
        fake.reset()
        handle = await site.start("alone")
        while (retrying := (await read_record(client, handle.id, None)).retrying) is None:
            await asyncio.sleep(0.05)
        asked_before = len(fake.requests)
        result = await handle.result()

    assert asked_before == 0
    assert retrying.startswith("call_model, attempt 2: its breaker is open for ")
    assert result.status is RunStatus.COMPLETED
    assert models_of(fake) == ["cheap"] * (LOOKS + 1)


async def test_a_rate_limit_only_delays_a_run_with_one_model(site: Site, fake: FakeProvider, plan: Plan) -> None:
    busy = Problem(429, "rate_limit_exceeded", "slow down", {"retry-after": "2"})
    plan.by_model["cheap"] = [busy]
    site.write("alone", [], models=[CHEAP])

    async with site.serving():
        first = await site.start("alone")
        while not fake.requests:
            await asyncio.sleep(0.01)
        second = await site.start("alone")
        results = [await first.result(), await second.result()]

    assert [result.status for result in results] == [RunStatus.COMPLETED] * 2
    assert len(models_of(fake)) == 1 + 2 * (LOOKS + 1)


async def test_a_start_names_a_model_that_is_allowed(site: Site, fake: FakeProvider, client: Client) -> None:
    site.write("named", [], models=[CHEAP, STRONG], models_allowed=["vllm:o*"])

    async with site.serving():
        handle = await site.start("named", model=OTHER)
        result = await handle.result()
        seen = await progress(handle)

    assert result.status is RunStatus.COMPLETED
    assert set(models_of(fake)) == {"other"}
    assert (seen.model, seen.why_model) == (OTHER, "the start request names it")
    assert await why_of(client, handle.id) == {1: "the start request names it"}
    assert not any(request.has_others for request in await requests_of(client, handle))


async def test_a_start_may_name_any_model_of_the_route(site: Site, fake: FakeProvider) -> None:
    site.write("named", [], models=[CHEAP, {"model": STRONG, "when": "run.tainted"}])

    await site.run("named", model=STRONG)
    await site.run("named", model=CHEAP)

    assert models_of(fake) == [*["strong"] * 5, *["cheap"] * 5]


async def test_a_start_that_names_another_model_is_refused_with_those_that_are_allowed(site: Site) -> None:
    site.write("named", [], models=[CHEAP, STRONG], models_allowed=["openai:gpt-6*"])

    async with site.serving():
        handle = await site.start("named", model=OTHER)
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()

    cause = raised.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == FailureType.BAD_INPUT
    assert cause.message == (
        "start request: model: 'vllm:other' is not a model that runs of 'named' may name; allowed are vllm:cheap, "
        "vllm:strong, openai:gpt-6* (`models_allowed` in the agent file allows more)"
    )


async def test_a_named_model_without_a_price_is_refused_where_money_is_limited(site: Site) -> None:
    priced = {"model": CHEAP, "price": {"input": "1", "output": "1"}}
    keys: dict[str, Any] = {"models": [priced], "models_allowed": ["vllm:*"], "budget": {"cost_usd": "2.00"}}
    site.write("named", [], **keys, prices={STRONG: {"input": "1", "output": "1"}})

    async with site.serving():
        known = await (await site.start("named", model=STRONG)).result()
        handle = await site.start("named", model=OTHER)
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()

    cause = raised.value.cause
    assert known.status is RunStatus.COMPLETED
    assert isinstance(cause, ApplicationError)
    assert cause.message == (
        "start request: model: no price is known for 'vllm:other', and runs of 'named' are limited in 'cost_usd'; its "
        "price belongs under `prices` in the agent file"
    )


async def test_a_name_that_is_no_model_is_refused_before_anything_starts(site: Site) -> None:
    with pytest.raises(ValueError, match=r"^model: 'gpt-6' "):
        await site.start("named", model="gpt-6")


async def test_continue_as_new_keeps_the_model_and_why(
    site: Site, fake: FakeProvider, plan: Plan, client: Client
) -> None:
    plan.by_model["strong"] = [
        Answer(calls=(Call("ask_person", '{"question": "Which one?"}', id="q1"),)),
        Answer(text="Done."),
    ]
    site.write("long", [], models=[CHEAP, {"model": STRONG, "when": "run.step == 1"}])

    async with site.serving():
        handle = await site.start("long")
        (request,) = await asked(handle)
        await continued(handle)
        before = await progress(handle)
        await decide(handle, request, "answer", value="this one")
        result = await handle.result()
        after = await progress(handle)

    because = "a condition of the route holds: run.step == 1"
    assert result.status is RunStatus.COMPLETED
    assert models_of(fake) == ["cheap", "strong", "strong"]
    assert (before.model, before.why_model) == (after.model, after.why_model) == (STRONG, because)
    assert await why_of(client, handle.id) == {3: because}
    assert [request.why for request in await requests_of(client, handle)] == [""]


async def test_a_timeout_of_the_route_is_that_of_each_call(site: Site, fake: FakeProvider, plan: Plan) -> None:
    plan.by_model["cheap"] = [Answer(text="Late.", delay=20.0), Answer(text="Done.")]
    site.write("slow", [], models=[{"model": CHEAP, "timeout": "200ms"}, STRONG])

    async with site.serving():
        handle = await site.start("slow")
        result = await handle.result()
        described = [event async for event in handle.fetch_history_events()]

    scheduled = [event.activity_task_scheduled_event_attributes for event in described]
    limits = [one.start_to_close_timeout for one in scheduled if one.activity_type.name == "call_model"]
    assert result.output == "Done."
    assert models_of(fake) == ["cheap", "cheap"]
    # Ten seconds more to store the answer.
    assert [limit.ToTimedelta().total_seconds() for limit in limits] == [10.2]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"models": [CHEAP, {"model": STRONG, "when": "run.failure > 0"}]},
            "models[1].when: column 4: run has no 'failure'; did you mean 'failures'?",
        ),
        (
            {"models": [CHEAP, [{"model": STRONG, "when": "run.context_tokens"}, OTHER]]},
            "models[1][0].when: column 1: has the type int; a condition is true or false",
        ),
        (
            {"models": [CHEAP, {"model": STRONG, "when": "args.amount > 1.0"}]},
            "models[1].when: column 5: there is no 'args'; it sees agent, run",
        ),
        (
            {"models": [CHEAP, {"model": STRONG, "when": "run.risk >"}]},
            "models[1].when: column 11: Syntax error",
        ),
        (
            {"models": [{"model": CHEAP, "when": "true"}, STRONG]},
            "models[0].when: belongs to models further on; the first is asked from the start",
        ),
        (
            {"models": [[CHEAP, {"model": STRONG, "when": "true"}]]},
            "models[0][1].when: belongs to models further on; the first is asked from the start",
        ),
        ({"models": [[CHEAP, STRONG], CHEAP]}, f"models[1]: '{CHEAP}' is given twice"),
        ({"models": [[CHEAP, STRONG], [OTHER, CHEAP]]}, f"models[1][1]: '{CHEAP}' is given twice"),
        ({"models": [[CHEAP]]}, "models[0]: equal models are at least two; write one model without a list"),
        ({"prefer": "speed"}, "prefer: 'speed' is not one of order, cost, latency"),
        ({"models_allowed": ["vllm:*-large"]}, "models_allowed[0]: 'vllm:*-large': `*` stands at the end only"),
        ({"models_allowed": ["vllm:a", "vllm:a"]}, "models_allowed[1]: 'vllm:a' is given twice"),
        ({"models_allowed": ["gpt-6"]}, "models_allowed[0]: 'gpt-6' is not 'provider:model'"),
        ({"models": [{"model": CHEAP, "timeout": "2h"}]}, "models[0].timeout: '2h': must be at most 1h"),
    ],
)
async def test_what_is_wrong_with_a_route_is_told_when_files_load(site: Site, keys: dict[str, Any], told: str) -> None:
    site.write("wrong", [], **{"models": [CHEAP], **keys})

    with pytest.raises(FileError) as raised:
        async with site.serving():
            pass

    assert told in str(raised.value)
