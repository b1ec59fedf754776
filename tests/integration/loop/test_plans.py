"""Plans: steps of agents, tools and plans, each begun as soon as what it needs is there."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from mandate.activities.files import FileError
from mandate.workers.client.client import RunFailed
from mandate.workflows import steps
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.rules import local_activities
from tests.support.agents import ALLOW_ALL, REQUESTER, Site, new_site
from tests.support.people import write_people
from tests.support.toolkit import LET_GO, calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    made = new_site(tmp_path, client)
    made.write("idle", [{"say": "done"}])
    return made


def write(site: Site, name: str, steps: list[dict[str, Any]], **keys: Any) -> None:
    (site.folder / "plans").mkdir(exist_ok=True)
    tools = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad", "pay", "send")]
    plan = {"name": name, "steps": steps, "tools": tools, "policy": ALLOW_ALL, "requester": "anyone", **keys}
    (site.folder / "plans" / f"{name}.yaml").write_text(json.dumps(plan))


async def test_a_client_runs_a_plan_and_is_told_what_does_not_fit(site: Site) -> None:
    write(site, "seen", [{"id": "seen", "tool": "look", "input": {"what": "input"}}])
    async with site.serving():
        result = await site.agents.run_plan("seen", "b", requester=REQUESTER)
        with pytest.raises(ValueError, match="steps"):
            await site.agents.start_plan({"name": "x", "steps": []})

    assert (result.status, result.output) == (RunStatus.COMPLETED, "looked at b")


async def start(site: Site, plan: Any, given: Any = None, **keys: Any) -> WorkflowHandle[Any, PlanResult]:
    return await site.client.start_workflow(
        "PlanWorkflow",
        {"plan": plan, "input": given, "requester": REQUESTER, **keys},
        id=f"plan-{uuid4().hex[:8]}",
        task_queue=site.queue,
        result_type=PlanResult,
    )


def statuses(result: PlanResult) -> dict[str, str]:
    return {step.id: step.status for step in result.steps}


async def test_steps_of_agents_and_tools_are_made_as_their_needs_are_met(site: Site) -> None:
    site.write("writer", [{"say": "a poem"}])
    write(
        site,
        "poem",
        [
            {"id": "pay", "tool": "pay", "input": {"order": "input.order"}, "depends_on": ["write"]},
            {"id": "write", "agent": "writer", "input": "'Write of ' + steps.seen.output"},
            {"id": "seen", "tool": "look", "input": {"what": "input.what"}},
        ],
        output="{'poem': steps.write.output, 'paid': steps.pay.output.paid}",
    )
    async with site.serving():
        handle = await start(site, "poem", {"what": "the sea", "order": 7})
        result = await handle.result()

    assert (result.status, result.reason) == (RunStatus.COMPLETED, None)
    assert result.output == {"poem": "a poem", "paid": 1.0}
    assert statuses(result) == {"pay": "completed", "write": "completed", "seen": "completed"}
    assert [call.tool for call in calls_of(handle.id)] == ["look", "pay"]
    assert result.effects.count == 1


async def test_a_fan_out_runs_side_by_side_and_keeps_the_order_of_its_items(site: Site) -> None:
    write(
        site,
        "many",
        [
            {"id": "each", "for_each": "input", "tool": "look", "input": {"what": "string(item)", "seconds": "2.0"}},
            {"id": "sum", "agent": "counter", "input": "string(size(steps.each.output)) + steps.each.output[3]"},
        ],
    )
    site.write("counter", [{"expect": {"user": "*20looked at 3*"}, "say": "counted"}])
    async with site.serving():
        handle = await start(site, "many", list(range(20)))
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "counted")
    calls = calls_of(handle.id, "look")
    began, ended = [call.began for call in calls], [call.ended or 0 for call in calls]
    assert max(began) < min(ended)
    (each,) = [step for step in result.steps if step.id == "each"]
    assert (each.items, each.completed, each.failed) == (20, 20, 0)


@pytest.mark.parametrize(("of_plan", "of_step"), [(3, None), (50, 3), (2, 3)])
async def test_no_more_calls_are_under_way_than_the_plan_and_the_step_allow(
    site: Site, of_plan: int, of_step: int | None
) -> None:
    each = {"id": "each", "for_each": "input", "tool": "look", "input": {"what": "string(item)", "seconds": "0.1"}}
    limit = {} if of_step is None else {"max_parallel": of_step}
    write(site, "narrow", [{**each, **limit}], max_parallel=of_plan)
    async with site.serving():
        handle = await start(site, "narrow", list(range(9)))
        result = await handle.result()

    assert result.output == [f"looked at {number}" for number in range(9)]
    calls = calls_of(handle.id, "look")
    most = max(sum(one.began <= call.began < (one.ended or 0) for one in calls) for call in calls)
    assert most == min(of_plan, of_step or of_plan)


async def test_a_failed_branch_skips_only_those_that_need_it(site: Site) -> None:
    write(
        site,
        "branches",
        [
            {"id": "bad", "tool": "look_bad", "input": {"shelf": "1"}},
            {"id": "after", "tool": "look", "input": {"what": "steps.bad.output"}},
            {"id": "last", "tool": "look", "input": {"what": "'x'"}, "depends_on": ["after"]},
            {"id": "good", "tool": "look", "input": {"what": "'y'"}},
            {"id": "then", "tool": "look", "input": {"what": "steps.good.output"}},
        ],
    )
    async with site.serving():
        handle = await start(site, "branches")
        result = await handle.result()

    assert result.status is RunStatus.DECLINED
    assert statuses(result) == {
        "bad": "failed", "after": "skipped", "last": "skipped", "good": "completed", "then": "completed",
    }  # fmt: skip
    reasons = {step.id: step.reason for step in result.steps}
    assert "the shelf is empty" in str(reasons["bad"])
    assert str(reasons["after"]).startswith("step 'bad' failed: ")
    assert result.output == {"last": None, "then": "looked at looked at y"}


@pytest.mark.parametrize(("needs", "status"), [(3, RunStatus.COMPLETED), (4, RunStatus.DECLINED)])
async def test_so_many_of_a_fan_out_must_end_well(site: Site, needs: int, status: RunStatus) -> None:
    write(
        site,
        "most",
        [
            {"id": "each", "for_each": "input", "needs": needs, "tool": "look", "input": {"what": "string(10 / item)"}},
            {"id": "then", "tool": "look", "input": {"what": "string(size(steps.each.output))"}},
        ],
    )
    async with site.serving():
        handle = await start(site, "most", [1, 2, 0, 5])
        result = await handle.result()

    assert result.status is status
    (each,) = [step for step in result.steps if step.id == "each"]
    # Once it is sure that too few end well, no other begins.
    assert (each.completed, each.failed) == ((3, 1) if needs == 3 else (0, 1))
    assert each.status == ("completed" if needs == 3 else "failed")


async def test_a_condition_skips_a_step_and_a_failure_may_be_let_pass_or_end_the_plan(site: Site) -> None:
    write(
        site,
        "odd",
        [
            {"id": "never", "tool": "look", "input": {"what": "'n'"}, "when": "input == 'yes'"},
            {"id": "after", "tool": "look", "input": {"what": "steps.never.output == null ? 'null' : 'x'"}},
            {"id": "weak", "tool": "look_bad", "input": {"shelf": "1"}, "on_failure": "continue"},
            {"id": "on", "tool": "look", "input": {"what": "steps.weak.status"}},
        ],
    )
    write(
        site,
        "ends",
        [
            {"id": "bad", "tool": "look_bad", "input": {"shelf": "1"}, "on_failure": "stop"},
            {"id": "slow", "tool": "look", "input": {"what": "'s'", "held": "true"}},
            {"id": "after", "tool": "look", "input": {"what": "steps.slow.output"}},
        ],
    )
    async with site.serving():
        odd = await (await start(site, "odd", "no")).result()
        handle = await start(site, "ends")
        async with asyncio.timeout(20):
            while len(calls_of(handle.id, "look_bad")) < 3:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        LET_GO.add(handle.id)
        ends = await handle.result()

    assert statuses(odd) == {"never": "skipped", "after": "completed", "weak": "failed", "on": "completed"}
    assert odd.status is RunStatus.COMPLETED
    assert odd.output == {"after": "looked at null", "on": "looked at failed"}
    assert statuses(ends) == {"bad": "failed", "slow": "completed", "after": "stopped"}
    assert str(ends.reason).startswith("step 'bad' failed: ")


async def test_an_agent_is_told_why_the_attempt_before_failed(site: Site) -> None:
    write(
        site,
        "again",
        [{"id": "try", "agent": "worker", "input": "'Go.'", "success": "output == 'good'", "attempts": 3}],
    )
    site.write("worker", [{"say": "${input}"}])
    async with site.serving():
        handle = await start(site, "again")
        result = await handle.result()
        goals = [(await site.agents.handle(f"{handle.id}/c{n}").query("state"))["goal"] for n in (1, 2, 3)]

    assert result.status is RunStatus.DECLINED
    (step,) = result.steps
    assert (step.status, step.attempts) == ("failed", 3)
    assert "[The attempt before this one failed: its output is no success: output == 'good']" in goals[1]


async def test_a_plan_that_is_data_names_agents_of_the_workers(site: Site) -> None:
    site.write("writer", [{"say": "a poem"}])
    steps = [{"id": "write", "agent": "writer"}, {"id": "more", "agent": "writer", "input": "steps.write.output"}]
    async with site.serving():
        result = await (await start(site, {"name": "made", "steps": steps}, "Write.")).result()
        told = []
        for plan in ("nothing", {"name": "x", "steps": [{"id": "a", "agent": "nobody"}]},
                     {"name": "x", "steps": [{"id": "a", "tool": "pay"}]}, {"name": "x", "steps": []}, 7):  # fmt: skip
            with pytest.raises(WorkflowFailureError) as failed:
                await (await start(site, plan)).result()
            told.append(getattr(failed.value.cause, "message", ""))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "a poem")
    assert told[0] == "plan: 'nothing' is not a plan of these workers; they have: none"
    assert "there is no agent 'nobody'" in told[1]
    assert "a plan as data has no tool 'pay'" in told[2]
    assert "plan" in told[3]
    assert "plan" in told[4]


async def test_a_plan_below_a_plan_reports_its_output(site: Site) -> None:
    write(site, "inner", [{"id": "seen", "tool": "look", "input": {"what": "input"}}])
    write(
        site,
        "outer",
        [
            {"id": "first", "plan": "inner", "input": "'a'"},
            {"id": "second", "plan": "inner", "input": "steps.first.output"},
        ],
    )
    async with site.serving():
        result = await (await start(site, "outer")).result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "looked at looked at a")


async def test_checks_of_a_step_are_its_own(site: Site) -> None:
    never = [{"expect": "false"}]
    write(
        site,
        "checked",
        [
            {"id": "good", "tool": "look", "input": {"what": "'a'"}},
            {"id": "bad", "tool": "look", "input": {"what": "'a'"}, "checks": never},
            {"id": "odd", "agent": "writer", "input": "'x'", "checks": [{"expect": "result == 'a poem'"}]},
            {"id": "worse", "agent": "writer", "input": "'x'", "checks": never, "attempts": 2},
        ],
    )
    site.write("writer", [{"say": "a poem"}])
    async with site.serving():
        handle = await start(site, "checked", None)
        result = await handle.result()

    assert statuses(result) == {"good": "completed", "bad": "failed", "odd": "completed", "worse": "failed"}
    reasons = {step.id: step.reason or "" for step in result.steps}
    assert "check" in reasons["bad"]
    assert [step.attempts for step in result.steps if step.id == "worse"] == [2]


async def test_rules_and_totals_know_the_tools_of_steps_with_limits_of_their_own(site: Site) -> None:
    rules = [
        {"id": "few", "match": {"tools": ["writer"]}, "when": "run.calls.writer >= 1", "verdict": "deny"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    write(
        site,
        "limited",
        [
            {"id": "one", "agent": "writer", "input": "'x'"},
            {"id": "two", "agent": "writer", "input": "'y'", "budget": {"model_calls": 3}, "depends_on": ["one"]},
        ],
        policy=rules,
    )
    site.write("writer", [{"say": "a poem"}])
    async with site.serving():
        handle = await start(site, "limited", None)
        result = await handle.result()

    assert statuses(result) == {"one": "completed", "two": "failed"}
    assert "rule 'few' denies 'writer'" in (result.steps[1].reason or "")


async def test_a_plan_below_a_plan_is_made_again_with_the_same_input(site: Site) -> None:
    write(
        site,
        "inner",
        [{"id": "seen", "tool": "look", "input": {"what": "input.what"}, "success": "input.what == 'b'"}],
    )
    write(site, "outer", [{"id": "only", "plan": "inner", "input": {"what": "'a'"}, "attempts": 2}])
    async with site.serving():
        handle = await start(site, "outer")
        result = await handle.result()
        told = [(await site.client.get_workflow_handle(f"{handle.id}/c{n}").query("state"))["goal"] for n in (1, 2)]

    assert told[0] == told[1]
    (only,) = result.steps
    assert only.attempts == 2
    assert "its output is no success" in str(only.reason)


async def test_an_output_is_whole_in_the_result_of_a_plan_up_to_sixteen_kilobytes(site: Site) -> None:
    write(site, "some", [{"id": "each", "for_each": "input", "tool": "look", "input": {"what": "item"}}])
    short, long = [f"{number:030}" for number in range(300)], [f"{number:030}" for number in range(500)]
    async with site.serving():
        whole = await (await start(site, "some", short)).result()
        cut = await (await start(site, "some", long)).result()

    assert whole.output == [f"looked at {item}" for item in short]
    assert whole.output_digest is None
    assert str(cut.output).startswith('["looked at 0000')
    assert cut.output_size == 1 + 500 * len(',"looked at "' + 30 * "0")


async def test_a_worker_that_dies_in_a_move_of_a_plan_is_missed_soon(site: Site) -> None:
    write(site, "seen", [{"id": "seen", "tool": "look", "input": {"what": "input"}}])
    shortest, local_activities.SHORTEST = local_activities.SHORTEST, timedelta(seconds=1)
    try:
        async with site.serving():
            handle = await start(site, "seen", "b")
            await handle.result()
    finally:
        local_activities.SHORTEST = shortest

    begun = [event.activity_task_scheduled_event_attributes for event in (await handle.fetch_history()).events]
    moves = [one.heartbeat_timeout.ToTimedelta() for one in begun if one.activity_type.name == "advance_plan"]
    assert moves == 2 * [steps.HEARTBEAT]


async def test_a_plan_that_workers_refuse_says_why(site: Site) -> None:
    async with site.serving():
        with pytest.raises(RunFailed) as refused:
            await site.agents.run_plan("nobody", workflow_id=f"{site.queue}-no", requester=REQUESTER)

    assert str(refused.value).startswith(f"run '{site.queue}-no' has no result: plan: 'nobody' is not a plan of these ")


async def test_a_plan_whose_approvers_nobody_knows_is_refused(site: Site, tmp_path: Path) -> None:
    """As a file by the worker, before it serves; as data when it is started."""
    people = {"approvers": {"groups": ["nobodies"]}}
    step = {"id": "write", "agent": "writer", "input": "'x'"}
    site.environment["MANDATE_PEOPLE"] = str(write_people(tmp_path))
    site.write("writer", [{"say": "a poem"}])
    async with site.serving():
        with pytest.raises(
            RunFailed, match=r"people\.approvers\.groups\[0\]: names the group 'nobodies', which the file"
        ):
            await site.agents.run_plan({"name": "asks", "steps": [step], "people": people}, requester=REQUESTER)
    (site.folder / "plans").mkdir(exist_ok=True)
    (site.folder / "plans" / "asks.yaml").write_text(json.dumps({"name": "asks", "steps": [step], "people": people}))

    with pytest.raises(FileError, match=r"asks\.yaml.*names the group 'nobodies', which the file of people does not"):
        async with site.serving():
            pass
