"""Children: agents as tools of agents, their results, and their shares of the budget."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import ALLOW_ALL, Site, continued, new_site, part_of, parts_taken, results_told, texts_told
from tests.support.resets import STARTS_CHILD, reset, reset_before
from tests.support.toolkit import LET_GO, calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def boss(site: Site, turns: list[Any], **keys: Any) -> None:
    site.write("boss", turns, **{"tools": [{"agent": "worker"}], **keys})


def ask(*tasks: str, agent: str = "worker") -> dict[str, Any]:
    return {"call": [{agent: {"task": task}} for task in tasks]}


async def child(site: Site, handle: WorkflowHandle[Any, Any], number: int = 1) -> RunResult:
    result: RunResult = await site.agents.handle(f"{handle.id}/c{number}").result()
    return result


async def history_bytes(handle: WorkflowHandle[Any, Any]) -> int:
    return (await handle.describe()).raw_description.workflow_execution_info.history_size_bytes


async def test_a_child_works_and_its_answer_is_the_result_of_the_call(site: Site) -> None:
    boss(site, [ask("Look it up."), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss", "Find out.")
        result = await handle.result()
        of_child = await child(site, handle)

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert (of_child.status, of_child.output) == (RunStatus.COMPLETED, "It is a.")
    assert await texts_told(site, result.head) == ["[c1: completed, $0.0000]\nIt is a."]
    assert (result.usage.model_calls, result.usage.tool_calls) == (4, 2)
    described = await site.client.get_workflow_handle(f"{handle.id}/c1").describe()
    info = described.raw_description.workflow_execution_info
    assert (info.parent_execution.workflow_id, info.root_execution.workflow_id) == (handle.id, handle.id)


async def test_a_long_answer_travels_by_reference_and_is_read_on(site: Site) -> None:
    long = "word " * 20_000
    boss(site, [ask("Write."), {"say": "done"}])
    site.write("worker", [{"say": long}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        of_child = await child(site, handle)

    (told,) = await results_told(site, result.head)
    assert (of_child.output, of_child.output_size) == (None, len(long))
    assert told.digest == of_child.output_digest
    assert told.text.startswith("[c1: completed, $0.0000]\nword word ")
    assert f"{of_child.output_size} bytes shown; go on with read_result" in told.text


async def test_a_child_answers_with_json_of_the_schema_that_its_entry_names(site: Site) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    asked = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    boss(
        site,
        [{"call": [{"count": {"order": 7}}]}, {"say": "done"}],
        tools=[{"agent": "worker", "name": "count", "input_schema": asked, "output_schema": schema}],
    )
    site.write("worker", [{"say": "seven"}, {"say": json.dumps({"total": 7})}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        of_child = await child(site, handle)

    assert of_child.output == {"total": 7}
    assert await texts_told(site, result.head) == ['[c1: completed, $0.0000]\n{"total":7}']


async def test_children_of_a_turn_run_side_by_side_and_one_that_fails_costs_the_others_nothing(site: Site) -> None:
    """One is terminated, one declines, one is stopped, one uses its limit up, one cannot begin; the rest complete."""
    entries: list[dict[str, Any]] = [{"agent": name} for name in ("worker", "slow", "short", "loud")]
    tasks = [{"worker": {"task": f"{number}"}} for number in range(14)]
    others = [{"slow": {"task": "stop"}}, {"slow": {"task": "end"}}, {"short": {"task": "s"}}, {"loud": {"task": "l"}}]
    boss(site, [{"call": [*others, *tasks]}, {"say": "done"}], tools=entries)
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    site.write("slow", [{"call": [{"look": {"what": "a", "held": True}}]}, {"say": "late"}])
    site.write("short", [{"call": [{"look": {"what": "a"}}]}] * 9, budget={"steps": 2, "when_used_up": "stop"})
    site.write("loud", [{"fail": [{"status": 400}] * 6, "say": "never"}], attempts=1)
    async with site.serving():
        handle = await site.start("boss")
        async with asyncio.timeout(30):
            while not (calls_of(f"{handle.id}/c1", "look") and calls_of(f"{handle.id}/c2", "look")):
                await asyncio.sleep(0.05)
            finished = [await child(site, handle, number) for number in range(5, 19)]
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        await site.client.get_workflow_handle(f"{handle.id}/c1").signal("stop", {"by": "ann"})
        await site.client.get_workflow_handle(f"{handle.id}/c2").terminate(reason="by hand")
        LET_GO.add(f"{handle.id}/c1")
        result = await handle.result()

    assert {one.status for one in finished} == {RunStatus.COMPLETED}
    told = await texts_told(site, result.head)
    assert result.status is RunStatus.COMPLETED
    assert told[0] == "c1: stopped, $0.0000; stopped by ann"
    assert told[1].startswith("c2: declined, $0.0000; it was terminated: by hand")
    assert "exhausted" in told[2]
    assert told[4:] == [f"[c{number}: completed, $0.0000]\nIt is a." for number in range(5, 19)]


async def test_a_parent_that_continues_as_new_loses_no_report_of_twenty_children(site: Site) -> None:
    boss(site, [ask(*(f"task {number}" for number in range(20))), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a", "held": True}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        ids = [f"{handle.id}/c{number}" for number in range(1, 21)]
        async with asyncio.timeout(60):
            while not all(calls_of(one, "look") for one in ids):
                await asyncio.sleep(0.05)
        # Some end while it continues, some before it has asked them to report, and some long after.
        LET_GO.update(ids[:5])
        await continued(handle)
        LET_GO.update(ids[5:10])
        await continued(handle)
        LET_GO.update(ids[10:])
        result = await handle.result()

    assert result.status is RunStatus.COMPLETED
    assert await parts_taken(site.client, handle.id) >= 3
    told = await texts_told(site, result.head)
    assert told == [f"[{one.rpartition('/')[2]}: completed, $0.0000]\nIt is a." for one in ids]
    assert result.usage.model_calls == 2 + 2 * 20
    assert all(len(calls_of(one, "look")) == 1 for one in ids)


async def test_a_child_that_ends_while_its_parent_has_no_worker_is_known(site: Site) -> None:
    """Its parent has continued as new, and was about to ask it to report."""
    boss(site, [ask("a", "b"), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a", "held": True}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        ids = [f"{handle.id}/c1", f"{handle.id}/c2"]
        async with asyncio.timeout(30):
            while not all(calls_of(one, "look") for one in ids):
                await asyncio.sleep(0.05)
        await continued(handle)
        LET_GO.add(ids[0])
        await site.client.get_workflow_handle(ids[1]).terminate()
        result = await handle.result()

    told = await texts_told(site, result.head)
    assert told[0] == "[c1: completed, $0.0000]\nIt is a."
    assert told[1].startswith("c2: declined, $0.0000; it was terminated")


async def test_a_child_adds_little_to_the_history_of_its_parent(site: Site) -> None:
    task = "Look up the order."
    boss(site, [ask(task), {"say": "done"}])
    site.write("bare", [{"call": [{"look": {"what": "a"}}]}, {"say": "done"}])
    site.write("many", [ask(*[task] * 20), {"say": "done"}], tools=[{"agent": "worker"}])
    site.write(
        "worker", [{"say": "I have found it, and here is what there is to know of the order: all is well. " * 9}]
    )
    async with site.serving():
        one, many = await site.start("boss"), await site.start("many")
        await one.result()
        await many.result()

    added = (await history_bytes(many) - await history_bytes(one)) / 19
    assert added <= 1200, added


PRICE = {"input": "1000", "output": "1000"}
"""A tenth of a cent a token."""


def priced(name: str) -> dict[str, Any]:
    return {"models": [{"model": f"scripted:{name}.script.yaml", "price": PRICE}]}


async def test_a_share_is_held_until_the_child_has_reported_and_the_rest_is_given_back(site: Site) -> None:
    boss(
        site,
        [ask("a"), {"say": "done"}],
        **priced("boss"),
        budget={"cost_usd": "100.00", "tool_calls": 10},
        tools=[{"agent": "worker", "budget": {"cost_usd": "30.00", "tool_calls": 4}}],
        max_output_tokens=100,
    )
    site.write(
        "worker",
        [{"call": [{"look": {"what": "a", "held": True}}]}, {"say": "It is a."}],
        **priced("worker"),
        max_output_tokens=100,
    )
    async with site.serving():
        handle = await site.start("boss")
        async with asyncio.timeout(30):
            while not calls_of(f"{handle.id}/c1", "look"):
                await asyncio.sleep(0.05)
        held = (await handle.query("progress"))["budget"]["use"]
        LET_GO.add(f"{handle.id}/c1")
        result = await handle.result()
        use = (await handle.query("progress"))["budget"]["use"]
        of_child = await child(site, handle)

    assert (held["cost_usd"]["held"], held["tool_calls"]["held"]) == ("30.00", 4)
    assert (use["cost_usd"]["held"], use["tool_calls"]["held"], use["tool_calls"]["spent"]) == ("0", 0, 2)
    assert of_child.usage.cost_usd > 0
    assert Decimal(use["cost_usd"]["spent"]) == result.usage.cost_usd > of_child.usage.cost_usd


async def test_a_child_without_room_for_its_share_is_not_started_and_the_model_is_told_what_is_missing(
    site: Site,
) -> None:
    boss(
        site,
        [ask("a", "b", "c"), {"say": "done"}],
        budget={"model_calls": 12},
        tools=[{"agent": "worker", "budget": {"model_calls": 4}}],
    )
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()

    told = await texts_told(site, result.head)
    assert [text.startswith("[") for text in told] == [True, True, False]
    assert told[2] == (
        "not started: a child takes 4 model calls, the run has 3 model calls left, and keeps 1 model call back for its "
        "last answer"
    )
    assert result.status is RunStatus.COMPLETED


async def test_a_child_spends_no_more_than_its_share_and_answers_with_what_it_has(site: Site) -> None:
    boss(
        site,
        [ask("a"), {"say": "done"}],
        tools=[{"agent": "worker", "budget": {"model_calls": 3}}],
        budget={"model_calls": 10},
    )
    site.write("worker", [{"call": [{"look": {"what": f"{n}"}}]} for n in range(9)])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        of_child = await child(site, handle)

    assert (of_child.status, of_child.usage.model_calls) == (RunStatus.EXHAUSTED, 3)
    (told,) = await texts_told(site, result.head)
    assert "c1: exhausted" in told
    assert "the limit of 3 model calls is used up" in told


async def test_depth_and_number_of_children_are_limited_by_a_sentence_to_the_model(site: Site) -> None:
    boss(site, [ask("a", "b", "c"), {"say": "done"}], budget={"children": 2, "depth": 1})
    site.write("worker", [ask("deep", agent="helper"), {"say": "It is a."}], tools=[{"agent": "helper"}])
    site.write("helper", [{"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        below = (await site.agents.handle(f"{handle.id}/c1").query("progress"))["head"]

    told = await texts_told(site, result.head)
    assert told[2] == "not started: the limit of 2 children is used up"
    assert await texts_told(site, below) == ["not started: agents may work at no level below this one (limit 'depth')"]
    assert result.status is RunStatus.COMPLETED


async def test_a_tree_of_three_levels_counts_what_all_of_it_has_used(site: Site) -> None:
    boss(site, [ask("a", "b"), {"say": "done"}])
    site.write(
        "worker", [ask("deep", agent="helper"), {"say": "It is a."}], tools=[{"agent": "helper"}], policy=ALLOW_ALL
    )
    site.write("helper", [{"call": [{"pay": {"order": 1}}]}, {"say": "paid"}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        leaf: RunResult = await site.agents.handle(f"{handle.id}/c1/c1").result()

    assert result.usage.model_calls == 2 + 2 * (2 + 2)
    assert result.effects.count == 2
    assert sorted((entry.run or "", entry.count) for entry in result.effects.last) == [
        (f"{handle.id}/c1", 1),
        (f"{handle.id}/c2", 1),
    ]
    assert leaf.effects.count == 1
    assert len(calls_of(f"{handle.id}/c1/c1", "pay")) == 1


async def test_a_workflow_id_that_is_used_again_has_children_of_its_own(site: Site) -> None:
    boss(site, [ask("a", "b"), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    async with site.serving():
        first = await site.start("boss", workflow_id=f"again-{site.queue}")
        await first.result()
        second = await site.start("boss", workflow_id=f"again-{site.queue}", again=True)
        result = await second.result()

    told = await texts_told(site, result.head)
    run = await part_of(second)
    assert (await site.client.get_workflow_handle(f"{second.id}/{run[:8]}/c2").describe()).status is not None
    assert told == [f"[c{number}: completed, $0.0000]\nIt is a." for number in (1, 2)]


async def test_a_reset_parent_takes_up_the_child_that_it_has_started_for_the_same_call(site: Site) -> None:
    boss(site, [ask("a"), {"say": "done"}])
    site.write("worker", [{"call": [{"pay": {"order": 1}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()
        again = await reset_before(site.client, handle, STARTS_CHILD)
        result: RunResult = await again.result()

    assert result.status is RunStatus.COMPLETED
    assert await texts_told(site, result.head) == ["[c1: completed, $0.0000]\nIt is a."]
    assert len(calls_of(f"{handle.id}/c1", "pay")) == 1
    assert result.effects.count == 1


async def test_a_fork_knows_what_a_child_did_after_its_step(site: Site) -> None:
    """The same call is answered and not made again."""
    boss(site, [{"call": [{"look": {"what": "a"}}]}, ask("Pay."), {"say": "done"}],
         tools=[{"agent": "worker"}, {"python": "tests.support.toolkit:look"}])  # fmt: skip
    site.write("worker", [{"call": [{"pay": {"order": 1}}]}, {"say": "Paid."}])
    async with site.serving():
        first = await site.start("boss")
        await first.result()
        fork = await site.start("boss", "Once more.", continues={"run": first.id, "step": 1})
        result = await fork.result()

    assert result.status is RunStatus.COMPLETED
    told = await texts_told(site, result.head)
    assert "has changed the world" in told[-1]
    assert [one async for one in site.client.list_workflows(f'WorkflowId="{fork.id}/c1"')] == []


async def test_children_of_the_next_part_of_a_session_have_ids_of_their_own(site: Site) -> None:
    boss(site, [ask("a"), {"say": "one"}, ask("b"), {"say": "two"}])
    site.write("worker", [{"say": "It is a."}])
    async with site.serving():
        session = f"talk-{site.queue}"
        for number in (1, 2):
            reply = await site.agents.say(session, "boss", "Go.", by="ann", message_id=f"m{number}", idle="200ms")
            assert reply.status == "completed"
            await site.agents.handle(session).result()
        last = [one.id async for one in site.client.list_workflows(f'WorkflowId="{session}/c2"')]

    assert last == [f"{session}/c2"]


async def test_a_reset_that_cuts_off_the_end_of_a_child_does_not_lose_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mandate.workflows.loop.children.LOOK_AFTER", timedelta(seconds=2))
    boss(site, [ask("a", "b"), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a", "seconds": 0.5}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()
        events = [event async for event in handle.fetch_history_events()]
        started = max(
            event.event_id for event in events if event.HasField("child_workflow_execution_started_event_attributes")
        )
        to = min(
            event.event_id
            for event in events
            if event.event_id > started and event.HasField("workflow_task_completed_event_attributes")
        )
        again = await reset(site.client, handle.id, to)
        result: RunResult = await again.result()

    assert result.status is RunStatus.COMPLETED
    assert await texts_told(site, result.head) == [f"[c{n}: completed, $0.0000]\nIt is a." for n in (1, 2)]
