"""Checks as a run makes them: by models that cost, by tools that get the key, only when it is worth it."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.fake_provider.behaviours import Answer
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import stop
from tests.support.toolkit import LET_GO, TOOLKIT_CHECKS, calls_of

PAY = {"pay": {"order": 1, "amount": 2}}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def judging(site: Site, *verdicts: tuple[str, str], name: str = "judge") -> str:
    """A model that judges so, the same whenever it is asked, at a price."""
    usage = {"input_tokens": 100, "output_tokens": 7, "cost_usd": "0.25"}
    turns = [{"say": json.dumps({"verdict": word, "reason": reason}), "usage": usage} for word, reason in verdicts]
    (site.folder / "agents").mkdir(exist_ok=True)
    (site.folder / "agents" / f"{name}.script.yaml").write_text(json.dumps({"turns": turns}))
    return f"scripted:{name}.script.yaml"


async def told(site: Site, result: RunResult) -> list[str]:
    return [part.text for part in await results_told(site, result.head or "")]


async def test_check_by_a_model_is_paid_by_the_run(site: Site) -> None:
    model = judging(site, ("pass", "it was paid"))
    own = {"input_tokens": 10, "output_tokens": 1, "cost_usd": "0.01"}
    checks = [
        {"after": "pay", "model": model, "rubric": "The order was paid."},
        {"after": "final", "model": model, "rubric": "The answer says what was done."},
    ]
    site.write("judged", [{"call": [PAY], "usage": own}, {"say": "done", "usage": own}], checks=checks)

    result, _ = await site.run("judged")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert result.usage.model_calls == 4
    assert (result.usage.input_tokens, result.usage.output_tokens) == (220, 16)
    assert result.usage.cost_usd == Decimal("0.52")


async def test_model_that_judges_is_asked_as_the_route_asks_it(tmp_path: Path, client: Client) -> None:
    async with FakeProvider() as fake:
        site = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
        entry = {"model": "vllm:llama", "params": {"reasoning_effort": "low"}}
        checks = [{"after": "final", "model": "vllm:llama", "rubric": "It is brief."}]
        site.write("judged", [], models=[entry], checks=checks)
        fake.will(Answer(text="Done."), Answer(text='{"verdict": "pass", "reason": "it is"}'))

        await site.run("judged")

    assert b"You check the work" in fake.requests[1].body
    assert [request.json.get("reasoning_effort") for request in fake.requests[:2]] == ["low", "low"]


async def test_verdict_of_a_model_is_told_with_its_reason(site: Site) -> None:
    checks = [{"name": "whole", "after": "pay", "model": judging(site, ("fail", "half is missing")), "rubric": "All."}]
    site.write("judged", [{"call": [PAY]}, {"say": "done"}], checks=checks)

    result, run = await site.run("judged")

    failed = "it was done, but check 'whole' failed: scripted:judge.script.yaml: half is missing"
    assert (await told(site, result))[0].startswith(f"[{failed}; do not make this call again")
    assert len(calls_of(run, "pay")) == 1


@pytest.mark.parametrize(
    ("settings", "status", "steps"),
    [
        ({"unable": "pass"}, RunStatus.COMPLETED, 1),
        ({"unable": "fail"}, RunStatus.DECLINED, 3),
        ({}, RunStatus.DECLINED, 3),
    ],
    ids=["pass", "fail", "by default"],
)
async def test_check_that_cannot_be_made_counts_as_it_says(
    site: Site, settings: dict[str, str], status: RunStatus, steps: int
) -> None:
    model = judging(site, ("unable", "there are no books"))
    checks = [{"name": "books", "after": "final", "model": model, "rubric": "As booked.", "retries": 0, **settings}]
    site.write("unable", [{"repeat": 3, "say": "paid"}], checks=checks)

    async with site.serving():
        handle = await site.start("unable")
        result = await handle.result()
        checked = await scheduled(handle, "verify_result")

    assert (result.status, result.output) == (status, "paid")
    # Each answer is judged once, and each judgement is a model call too.
    assert (len(checked), result.usage.model_calls) == (steps, 2 * steps)
    if status is RunStatus.DECLINED:
        assert (result.reason or "").startswith("the final answer could not be taken 3 times; nobody decided before ")


@pytest.mark.parametrize(
    ("when", "labels", "is_checked"),
    [
        ("run.labels.team == 'sales'", {}, True),
        ("run.labels.team == 'sales'", {"team": "support"}, False),
        ("run.labels.team == 'sales'", {"team": "sales"}, True),
        ("1 / (args.order - 1) > 0", {}, True),
    ],
    ids=["no such label", "another", "this one", "division by zero"],
)
async def test_condition_that_cannot_be_evaluated_counts_as_true(
    site: Site, when: str, labels: dict[str, str], is_checked: bool
) -> None:
    checks = [{"after": "pay", "expect": "false", "when": when}]
    site.write("careful", [{"call": [PAY]}, {"say": "done"}], checks=checks)

    result, _ = await site.run("careful", labels=labels)

    assert ("check 'pay_expect_1' failed" in (await told(site, result))[0]) == is_checked


async def scheduled(handle: WorkflowHandle[Any, Any], kind: str) -> list[tuple[HistoryEvent, str]]:
    """The activities of this type in the run's history, each with its summary."""
    found = []
    async for event in handle.fetch_history_events():
        attributes = event.activity_task_scheduled_event_attributes
        if event.HasField("activity_task_scheduled_event_attributes") and attributes.activity_type.name == kind:
            found.append((event, json.loads(event.user_metadata.summary.data)))
    return found


async def test_each_check_is_an_activity_with_its_name_and_limits(site: Site) -> None:
    checks = [
        {"name": "paid", "after": "pay", "python": "tests.support.toolkit:is_paid", "timeout": "7s", "retries": 4},
        {"after": "pay", "expect": "result.paid == args.amount"},
        {"name": "form", "after": "final", "schema": {}, "timeout": "9s", "retries": 0},
    ]
    site.write("named", [{"call": [PAY]}, {"say": "{}"}], checks=checks)
    before = len(TOOLKIT_CHECKS)

    async with site.serving():
        handle = await site.start("named")
        result = await handle.result()
        found = await scheduled(handle, "verify_result")

    assert result.status is RunStatus.COMPLETED
    assert len(TOOLKIT_CHECKS) == before + 1
    its = [event.activity_task_scheduled_event_attributes for event, _ in found]
    assert [
        (summary, one.start_to_close_timeout.seconds, one.retry_policy.maximum_attempts, one.heartbeat_timeout.seconds)
        for (_, summary), one in zip(found, its, strict=True)
    ] == [
        ("verify_result paid, step 1", 7, 5, 5),
        ("verify_result pay_expect_1, step 1", 60, 3, 5),
        ("verify_result form, step 2", 9, 1, 5),
    ]


async def test_agent_without_checks_makes_none(site: Site) -> None:
    site.write("plain", [{"call": [PAY]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("plain")
        await handle.result()

    assert await scheduled(handle, "verify_result") == []


async def test_check_tool_is_called_with_the_key(site: Site) -> None:
    checks = [{"after": "pay", "tool": "look", "with": {"what": "key"}, "expect": "result.startsWith('looked at ')"}]
    site.write("keyed", [{"call": [PAY]}, {"call": [PAY]}, {"say": "done"}], checks=checks)

    result, run = await site.run("keyed")

    keys = [entry.key for entry in result.effects.last]
    assert len(set(keys)) == 2
    assert [call.arguments["what"] for call in calls_of(run, "look")] == keys
    assert [call.key for call in calls_of(run, "pay")] == keys


async def test_condition_sees_the_run_without_the_call(site: Site) -> None:
    """Of the calls before it, those of its own turn included, but not itself nor those that come after it."""
    look = {"after": "pay", "tool": "look", "expect": "true"}
    checks = [
        {**look, "with": {"what": "'first ' + string(args.order)"}, "when": "run.calls.pay == 0"},
        {**look, "with": {"what": "'sum ' + string(args.order)"}, "when": "run.totals.pay.amount >= 5.0"},
    ]
    orders = [{"pay": {"order": number, "amount": 2}} for number in (1, 2, 3, 4)]
    site.write("sums", [{"call": orders[:3]}, {"call": orders[3:]}, {"say": "done"}], checks=checks)

    result, run = await site.run("sums")

    assert result.effects.count == 4
    # Before order 4 there are three payments of 2.
    assert [call.arguments["what"] for call in calls_of(run, "look")] == ["first 1", "sum 4"]


async def test_stop_during_a_check_makes_no_other(site: Site) -> None:
    checks = [
        {"after": "pay", "tool": "look", "with": {"what": "'a'", "held": "true"}, "expect": "true"},
        {"after": "pay", "tool": "look", "with": {"what": "'b'"}, "expect": "true"},
    ]
    site.write("stopped", [{"call": [PAY]}, {"say": "done"}], checks=checks)

    async with site.serving():
        handle = await site.start("stopped")
        async with asyncio.timeout(30):
            while not calls_of(handle.id, "look"):
                await asyncio.sleep(0.05)
        await stop(handle, {"by": "ann@example.com"})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert [call.arguments["what"] for call in calls_of(handle.id, "look")] == ["a"]
    assert (result.status, result.effects.count) == (RunStatus.STOPPED, 1)
