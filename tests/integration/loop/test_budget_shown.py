"""Budgets of runs as people see them: the query `progress`, the current details, and the record without a worker."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.history.record import read_record
from mandate.workflows.contracts.budget import BudgetUse, LimitUse
from mandate.workflows.contracts.run import Progress, RunStatus
from tests.support.agents import Site, continued, new_site
from tests.support.people import asked, decide, write_people

USAGE = {"input_tokens": 1000, "output_tokens": 200}
LOOK: dict[str, Any] = {"repeat": 100, "call": [{"look": {"what": "x"}}], "usage": USAGE}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def write(site: Site, name: str, turns: list[Any], **budget: Any) -> None:
    """An agent whose model has a price."""
    model = {"model": f"scripted:{name}.script.yaml", "price": {"input": "1", "output": "10"}}
    site.write(name, turns, models=[model], budget=budget, max_output_tokens=1000)


async def progress(handle: WorkflowHandle[Any, Any]) -> BudgetUse:
    told = await handle.query("progress", result_type=Progress)
    assert told.budget is not None
    return told.budget


async def recorded(site: Site, handle: WorkflowHandle[Any, Any]) -> BudgetUse:
    record = await read_record(site.client, handle.id, None)
    assert record.budget is not None
    return record.budget


def counted(use: BudgetUse) -> dict[str, LimitUse]:
    """All but the times, which go on between two looks."""
    return {name: one for name, one in use.use.items() if not name.endswith("_time")}


async def test_query_and_record_tell_the_same_before_and_after_limits_are_raised(site: Site) -> None:
    write(site, "asks", [LOOK], model_calls=4, cost_usd="0.50", work_time="10m", tool_calls=9, when_used_up="ask")
    async with site.serving():
        handle = await site.start("asks", budget={"cost_usd": "0.40", "wall_time": "1h"})
        (request,) = await asked(handle)
        before, known = await progress(handle), await recorded(site, handle)
        details = str(await handle.query("__temporal_workflow_metadata"))
        await decide(handle, request, "raise", value={"model_calls": 6})
        (request,) = await asked(handle)
        raised, known_raised = await progress(handle), await recorded(site, handle)
        await continued(handle)
        carried = await recorded(site, handle)
        await decide(handle, request, "answer")
        result = await handle.result()
    ended = await recorded(site, handle)

    assert counted(before) == {
        "steps": LimitUse(limit=40, spent=3, assumed=0, held=0, left=37),
        "model_calls": LimitUse(limit=4, spent=3, assumed=0, held=0, left=1),
        "tokens": LimitUse(limit=None, spent=3600, assumed=0, held=0, left=None),
        "cost_usd": LimitUse(limit="0.40", spent="0.009", assumed="0", held="0", left="0.391"),
        "tool_calls": LimitUse(limit=9, spent=3, assumed=0, held=0, left=6),
    }
    assert (before.limits, counted(before)) == (known.limits, counted(known))
    assert known.use["wall_time"].limit == "1h"
    assert "Budget: $0.009 of $0.40 spent, $0.391 left; 3 of 4 model calls made, 1 left; 3 of 9 tool calls" in details
    assert counted(raised)["model_calls"] == LimitUse(limit=6, spent=5, assumed=0, held=0, left=1)
    assert (raised.limits, counted(raised)) == (known_raised.limits, counted(known_raised))
    assert (raised.limits, counted(raised)) == (carried.limits, counted(carried))
    assert (result.status, ended.use["model_calls"].spent) == (RunStatus.EXHAUSTED, 6)
    assert ended.used_up == "the limit of 6 model calls is used up"


async def test_lost_answers_are_told_as_assumed(site: Site) -> None:
    write(site, "lost", [{"fail": [{"cut": True}], **LOOK, "repeat": 2}, {"say": "done", "usage": USAGE}], cost_usd="1")

    result, workflow_id = await site.run("lost")
    record = await read_record(site.client, workflow_id, None)

    assert record.budget is not None
    assert result.usage.assumed_calls == 2
    cost = record.budget.use["cost_usd"]
    assert (cost.spent, float(cost.assumed) > 0) == (f"{result.usage.cost_usd:f}", True)
    assert record.budget.use["model_calls"].assumed == 2


async def test_what_the_run_answers_itself_is_no_call_of_a_tool(site: Site) -> None:
    keep = {"call": [{"keep_in_mind": {"text": "The order is 81."}}], "usage": USAGE}
    write(site, "keeps", [keep, {**LOOK, "repeat": 1}, {"say": "done", "usage": USAGE}], tool_calls=5)
    async with site.serving():
        handle = await site.start("keeps")
        await handle.result()
        told, known = await progress(handle), await recorded(site, handle)

    assert told.use["tool_calls"] == known.use["tool_calls"] == LimitUse(limit=5, spent=1, assumed=0, held=0, left=4)


async def test_why_a_last_answer_is_asked_for_is_told_alike_beside_a_note(site: Site) -> None:
    write(site, "notes", [{"finish": "empty", "usage": USAGE}], model_calls=2)
    async with site.serving():
        handle = await site.start("notes")
        await handle.result()
        told, known = await progress(handle), await recorded(site, handle)

    assert told.used_up == known.used_up == "the limit of 2 model calls is used up"


async def test_checks_by_models_count_for_the_limits(site: Site) -> None:
    (site.folder / "agents").mkdir(exist_ok=True)
    verdict = {"say": '{"verdict": "pass", "reason": "fine"}', "usage": USAGE}
    (site.folder / "agents" / "judge.script.yaml").write_text(json.dumps({"turns": [], "otherwise": verdict}))
    judge = "scripted:judge.script.yaml"
    check = {"name": "true", "after": "final", "rubric": "It is true.", "model": judge}
    model = {"model": "scripted:judged.script.yaml", "price": {"input": "1", "output": "10"}}
    site.write(
        "judged",
        [{**LOOK, "repeat": 2}, {"say": "done", "usage": USAGE}],
        models=[model],
        checks=[check],
        prices={judge: {"input": "2", "output": "20"}},
        budget={"cost_usd": "1"},
        max_output_tokens=1000,
    )
    async with site.serving():
        handle = await site.start("judged")
        result = await handle.result()
        told = await progress(handle)

    known = await recorded(site, handle)
    assert result.status == RunStatus.COMPLETED
    # Three answers at $0.003, and one of the judge at $0.006.
    assert told.use["cost_usd"].spent == "0.015"
    assert counted(told) == counted(known)
    assert f"{result.usage.cost_usd:f}" == "0.015"


async def test_what_a_call_under_way_holds_is_told(site: Site) -> None:
    write(site, "slow", [{"delay": "3s", "say": "done", "usage": USAGE}], cost_usd="1", tokens=100_000)
    async with site.serving():
        handle = await site.start("slow")
        async with asyncio.timeout(20):
            while (known := (await read_record(site.client, handle.id, None)).budget) is None or not held(known):
                await asyncio.sleep(0.1)
        told = await progress(handle)
        await handle.result()

    assert counted(told) == counted(known)
    assert float(str(told.use["cost_usd"].held)) > 0
    assert held(await recorded(site, handle)) == 0


def held(use: BudgetUse) -> int | str:
    return use.use["tokens"].held
