"""Attacks on plans, plans of models, the board and sessions: each is a promise of the pages that does not hold yet."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from mandate.activities.files import FileError
from mandate.workers.cli.requests import text as request_text
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.loop import run
from tests.support.agents import ALLOW_ALL, REQUESTER, Site, new_site, results_told, texts_told
from tests.support.people import asked, decide, open_requests, write_people
from tests.support.resets import reset_before
from tests.support.toolkit import CALLS, LET_GO, Call, calls_of

ALLOWED: dict[str, Any] = {"id": "rest", "match": {}, "verdict": "allow"}
FIND: dict[str, Any] = {"id": "find", "agent": "finder", "input": "'Find it.'"}
PAY: dict[str, Any] = {"id": "pay", "tool": "pay", "input": {"order": "7", "amount": "20.0"}}
BAD: dict[str, Any] = {"id": "bad", "tool": "look_bad", "input": {}, "on_failure": "ask"}
ASK_PAY: list[dict[str, Any]] = [
    {"id": "asks", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
    ALLOWED,
]
HELD: dict[str, Any] = {"call": [{"look": {"what": "a", "held": True}}]}
PAYS: dict[str, Any] = {"call": [{"pay": {"order": 1}}]}
DONE = {"say": "done"}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"call": [{"run_plan": {"steps": list(steps)}}]}


def write(site: Site, *turns: Any, **keys: Any) -> None:
    """A planner whose model answers with `turns`, and the agent that its plans may name."""
    plans = {"agents": ["finder"], "tools": ["look", "pay"], **keys.pop("plans", {})}
    site.write("planner", [*turns, DONE], plans=plans, **keys)
    site.write("finder", [{"say": "order 7"}], tools=[], people={"expires": "1s"})


def write_file(site: Site, *steps: dict[str, Any], **keys: Any) -> None:
    """A plan file; people are asked of its failed steps."""
    site.write("idle", [DONE])
    (site.folder / "plans").mkdir(exist_ok=True)
    tools = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad", "pay")]
    people = {"approvers": {"groups": ["finance"]}, "expires": "60s", **keys.pop("people", {})}
    made = {"name": "asks", "steps": steps, "tools": tools, "policy": ALLOW_ALL, "people": people, **keys}
    (site.folder / "plans" / "asks.yaml").write_text(json.dumps(made))


async def start(site: Site, named: Any = "asks") -> WorkflowHandle[Any, PlanResult]:
    return await site.client.start_workflow(
        "PlanWorkflow",
        {"plan": named, "requester": REQUESTER},
        id=f"plan-{uuid4().hex[:8]}",
        task_queue=site.queue,
        result_type=PlanResult,
    )


def by_id(result: PlanResult) -> dict[str, Any]:
    return {step.id: (step.status, step.output, step.attempts) for step in result.steps}


def calls_below(workflow_id: str, tool: str) -> list[Call]:
    return [call for call in CALLS if call.workflow_id.startswith(workflow_id) and call.tool == tool]


# Ways around rules, facts and limits.


async def test_a_step_of_an_agent_calls_no_tool_of_that_name(site: Site) -> None:
    rules = [{"id": "no", "match": {"tools": ["run_plan"]}, "when": "'pay' in args.tools", "verdict": "deny"}, ALLOWED]
    step = {"id": "a", "agent": "pay", "input": {"order": "7", "amount": "5000.0"}}
    write(site, plan(step), plans={"agents": ["pay"]}, policy=rules)
    site.write("pay", [{"say": "I am an agent"}], tools=[])

    with pytest.raises(FileError, match=r"plans.agents\[0\]: the agent has a tool 'pay' already"):
        await site.run("planner")


async def test_a_step_of_a_model_runs_the_agent_that_it_names(site: Site) -> None:
    steps = (
        {"id": "one", "agent": "find--er", "input": "'x'"},
        {"id": "zero", "agent": "find", "input": "'x'"},
        {"id": "er", "agent": "find", "input": "'x'", "budget": {"model_calls": 1}},
    )
    write(site, plan(*steps), plans={"agents": ["find", "find--er"]})
    site.write("find--er", [PAYS, DONE])
    site.write("find", [{"say": "of find"}], tools=[])

    _, workflow_id = await site.run("planner")

    assert len(calls_below(workflow_id, "pay")) == 1


async def test_a_step_of_a_plan_as_data_runs_the_agent_that_it_names(site: Site) -> None:
    site.write("find", [{"say": "of find"}], tools=[])
    site.write("find--er", [{"say": "of find--er"}], tools=[])
    steps = [
        {"id": "one", "agent": "find", "input": "'x'"},
        {"id": "er", "agent": "find", "input": "'x'", "budget": {"model_calls": 3}},
        {"id": "two", "agent": "find--er", "input": "'x'"},
    ]

    async with site.serving():
        result = await (await start(site, {"name": "data", "steps": steps})).result()

    assert by_id(result)["two"][1] == "of find--er"


async def test_totals_of_a_rule_hold_over_the_plans_of_a_run(site: Site) -> None:
    when = "run.totals.pay.amount + args.amount > 30.0"
    rules = [{"id": "much", "match": {"tools": ["pay"]}, "when": when, "verdict": "deny"}, ALLOWED]
    write(site, plan(PAY), plan({**PAY, "input": {"order": "8", "amount": "20.0"}}), policy=rules)

    _, workflow_id = await site.run("planner")

    assert len(calls_below(workflow_id, "pay")) == 1


async def test_a_rule_by_tag_denies_the_agent_in_a_plan_too(site: Site) -> None:
    rules = [{"id": "no", "match": {"tags": ["external"]}, "verdict": "deny"}, ALLOWED]
    entry = {"agent": "finder", "tags": ["external"]}
    write(site, plan(FIND), policy=rules, tools=[entry], plans={"tools": []})

    result, _ = await site.run("planner")

    assert "refused" in (await texts_told(site, result.head))[0]


async def test_an_untrusted_agent_in_a_plan_taints_the_run(site: Site) -> None:
    write(site, plan(FIND), tools=[{"agent": "finder", "untrusted": True}], plans={"tools": []})

    result, _ = await site.run("planner")

    assert result.tainted


# What people are shown, and what becomes of their word.


@pytest.mark.parametrize(("steps", "characters"), [(1, 1500), (12, 1000)])
async def test_people_see_a_plan_drawn_whatever_its_size(site: Site, steps: int, characters: int) -> None:
    rules = [{"id": "plans", "match": {"tools": ["run_plan"]}, "verdict": "ask"}, ALLOWED]
    made = [{**FIND, "id": f"s{number}", "input": f"'{'x' * characters}'"} for number in range(steps)]
    write(site, plan(*made), policy=rules)

    async with site.serving():
        handle = await site.start("planner")
        (request,) = await asked(handle)
        await decide(handle, request, "reject")
        await handle.result()

    assert request_text._draw_plan(request.arguments) is not None


@pytest.mark.parametrize(
    ("success", "guidance"),
    [
        (f"output == 'good' || output == '{'x' * 500}'", "be short"),
        ("output == 'good'", f"{'Think of the reader. ' * 30}be short"),
    ],
)
async def test_an_agent_is_told_all_of_the_guidance(site: Site, success: str, guidance: str) -> None:
    step = {"id": "bad", "agent": "poet", "input": "'write'", "success": success, "on_failure": "ask"}
    write_file(site, step, people={"expires": "4s"})
    site.write("poet", [], tools=[])
    turns = [{"match": "*be short*", "turns": [{"say": "good"}]}, {"match": "*", "turns": [{"say": "long"}]}]
    script = {"conversations": turns, "strict": False}
    (site.folder / "agents" / "poet.script.yaml").write_text(json.dumps(script))

    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        await decide(handle, request, "retry", value=guidance)
        result = await handle.result()

    assert by_id(result)["bad"] == ("completed", "good", 2)


async def test_a_plan_waits_for_nobody_once_its_time_is_over(site: Site) -> None:
    write_file(site, BAD, budget={"wall_time": "3s"}, people={"expires": "60s"})

    async with site.serving():
        handle = await start(site)
        await asked(handle)
        ended, _ = await asyncio.wait([asyncio.ensure_future(handle.result())], timeout=12)
        if not ended:
            await handle.terminate()

    assert ended


async def test_people_are_asked_of_20_calls_at_once_at_most(site: Site) -> None:
    items = {"for_each": f"[{', '.join(map(str, range(20)))}]", "input": {"shelf": "int(item)"}}
    wait = {"id": "wait", "tool": "look", "input": {"what": "'a'", "held": "true"}}
    write_file(site, {**BAD, **items, "id": "late", "depends_on": ["wait"]}, {**BAD, **items, "id": "soon"}, wait)

    async with site.serving():
        handle = await start(site)
        await asked(handle, 20)
        LET_GO.add(handle.id)
        await asyncio.sleep(5)
        found = (await open_requests(handle)).requests
        await handle.terminate()

    assert len(found) <= 20


# Values, and what ends of runs tell.


async def test_a_version_may_be_written_as_0_0(site: Site) -> None:
    value = {"key": "a", "value": 1, "expected_version": 0.0}
    site.write("writer", [{"call": [{"write_board": value}]}, DONE], board="write")

    async with site.serving():
        handle = await site.start("writer")
        ended, _ = await asyncio.wait([asyncio.ensure_future(handle.result())], timeout=12)
        if not ended:
            await handle.terminate()

    assert ended


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"type": "string", "pattern": "("}, {"$ref": "http://127.0.0.1:9/x"}]
)
async def test_a_plan_with_an_unsound_schema_is_not_begun(site: Site, schema: dict[str, Any]) -> None:
    write(site, plan({**FIND, "output_schema": schema}))

    result, _ = await site.run("planner")

    assert "output_schema" in (await texts_told(site, result.head))[0]


async def test_one_text_is_json_of_a_tool_and_a_text_of_an_agent(site: Site) -> None:
    text = json.dumps({"note": "x" * 200})
    site.write("finder", [{"say": "no"}], tools=[])
    words = {**FIND, "id": "words", "success": "false", "depends_on": ["bad"], "on_failure": "ask"}
    sizes = "string(size(steps.words.output)) + ' ' + string(size(steps.bad.output))"
    write_file(site, BAD, words, {"id": "sizes", "tool": "look", "input": {"what": sizes}})

    async with site.serving():
        handle = await start(site)
        for title in ("step bad", "step words"):
            async with asyncio.timeout(20):
                while not (request := (await asked(handle))[0]).title.startswith(title):
                    await asyncio.sleep(0.05)
            await decide(handle, request, "supply", value=text)
        await handle.result()

    assert [call.arguments["what"] for call in calls_of(handle.id, "look")] == [f"{len(text)} 1"]


async def test_the_result_of_a_stopped_plan_tells_of_its_steps(site: Site) -> None:
    write_file(
        site, PAY, {"id": "slow", "tool": "look", "input": {"what": "'a'", "held": "true"}, "depends_on": ["pay"]}
    )

    async with site.serving():
        handle = await start(site)
        async with asyncio.timeout(20):
            while not calls_of(handle.id, "look"):
                await asyncio.sleep(0.05)
        await site.agents.stop(handle.id, by="ann@example.com", reason="enough")
        LET_GO.add(handle.id)
        result = await handle.result()

    assert by_id(result)["pay"][0] == "completed"


# Sessions.


@pytest.fixture
def session(site: Site) -> str:
    """Id of a session whose agent asks a worker that looks, pays and looks; people are asked about the payment."""
    site.write("boss", [{"call": [{"worker": {"task": "go"}}]}, DONE], tools=[{"agent": "worker"}])
    return f"boss-{uuid4().hex[:8]}"


async def say(site: Site, session: str) -> Any:
    """The reply to one message, the same each time."""
    return await site.agents.say(session, "boss", "Pay.", by=REQUESTER, message_id="m1", idle="1s")


async def is_told_to_wait(site: Site, session: str) -> bool:
    """Whether `say` comes back at once, as while people are asked; ends the session's tree."""
    said = asyncio.create_task(say(site, session))
    done, _ = await asyncio.wait([said], timeout=4)
    for name in (session, f"{session}/c1"):
        await site.client.get_workflow_handle(name).terminate()
    await asyncio.gather(said, return_exceptions=True)
    return bool(done)


async def test_a_session_waits_for_nobody_after_people_have_decided(
    site: Site, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("worker", [PAYS, HELD, DONE], policy=ASK_PAY)

    async with site.serving():
        first = await say(site, session)
        child = site.client.get_workflow_handle(f"{session}/c1")
        (request,) = await asked(child)
        with monkeypatch.context() as patch:
            patch.setattr(run, "EVENTS", 5)
            await decide(child, request)
            async with asyncio.timeout(30):
                while not calls_of(child.id, "look"):
                    await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        still_open = (await open_requests(child)).requests
        again = await is_told_to_wait(site, session)

    assert (first.status, still_open) == ("waiting", ())
    assert not again


@pytest.mark.xfail(
    strict=True, reason="a child that was reset to before its question does not tell that it asks nobody"
)
async def test_a_session_waits_for_nobody_after_a_reset_of_the_child_that_asked(site: Site, session: str) -> None:
    site.write("worker", [HELD, PAYS, DONE], policy=ASK_PAY)
    child = site.client.get_workflow_handle(f"{session}/c1")

    async with site.serving():
        LET_GO.add(child.id)
        first = await say(site, session)
        LET_GO.discard(child.id)
        await reset_before(site.client, child, "run_tool")
        await asyncio.sleep(2)
        still_open = (await open_requests(child)).requests
        again = await is_told_to_wait(site, session)

    assert (first.status, still_open) == ("waiting", ())
    assert not again


@workflow.defn(sandboxed=False)
class Dispatcher:
    """A program's own workflow: starts one agent after the other, each for somebody else."""

    @workflow.run
    async def run(self, queue: str, starts: list[dict[str, Any]]) -> list[str]:
        heads = []
        for number, one in enumerate(starts):
            id_ = f"{workflow.info().workflow_id}-{number}"
            result = await workflow.execute_child_workflow("AgentWorkflow", one, id=id_, task_queue=queue)
            heads.append(str(result["head"]))
        return heads


async def test_runs_that_a_program_starts_for_two_people_have_a_board_each(site: Site) -> None:
    put = {"call": [{"write_board": {"key": "a", "value": "of eve", "expected_version": 0}}]}
    site.write("writer", [put, DONE], board="write")
    site.write("reader", [{"call": [{"read_board": {}}]}, DONE], board="read")
    starts = [
        {"agent": "writer", "input": "Write.", "requester": REQUESTER},
        {"agent": "reader", "input": "Read.", "requester": "dan@example.com"},
    ]

    async with (
        site.serving(),
        Worker(site.client, task_queue=f"{site.queue}-own", workflows=[Dispatcher]),
    ):
        _, head = await site.client.execute_workflow(
            Dispatcher.run, args=[site.queue, starts], id=f"own-{uuid4().hex[:8]}", task_queue=f"{site.queue}-own"
        )

    assert await texts_told(site, head) == ["{}"]


async def test_a_plan_that_people_could_not_be_shown_is_not_begun(site: Site) -> None:
    made = [{**FIND, "id": f"s{number}", "input": f"'{'x' * 1000}'"} for number in range(20)]
    write(site, plan(*made))

    result, _ = await site.run("planner")

    (part,) = await results_told(site, result.head or "")
    assert "people are shown the whole of it: at most 16384" in part.text
