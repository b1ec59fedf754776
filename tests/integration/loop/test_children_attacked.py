"""Attacks on runs with children: each test states a promise and shows whether it holds."""

import asyncio
import json
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.service import RPCError

from mandate.activities.files import FileError
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import RunStatus
from tests.integration.loop.test_children import PRICE, ask, priced
from tests.integration.loop.test_children_rights import begun
from tests.support.agents import ALLOW_ALL, Site, continued, new_site, texts_told
from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import asked, decide, send_update, write_people
from tests.support.resets import STARTS_CHILD, reset_before
from tests.support.toolkit import CALLS, LET_GO, calls_of

BY = "ann@example.com"
HELD = {"call": [{"look": {"what": "a", "held": True}}]}
PAY = {"call": [{"pay": {"order": 1}}]}
LOOK = {"python": "tests.support.toolkit:look"}
CHILD: list[dict[str, Any]] = [{"agent": "worker"}]


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


@pytest.fixture
def staffed(tmp_path: Path, client: Client) -> Site:
    """A site with people who answer."""
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def reached(workflow_id: str, tool: str = "look", count: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(calls_of(workflow_id, tool)) < count:
            await asyncio.sleep(0.02)


async def history(client: Client, workflow_id: str) -> bytes:
    events = client.get_workflow_handle(workflow_id).fetch_history_events()
    return b"".join([event.SerializeToString() async for event in events])


async def is_running(client: Client, workflow_id: str) -> bool:
    try:
        described = await client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        return False
    return described.status is WorkflowExecutionStatus.RUNNING


# Money


async def test_people_raise_a_child_no_further_than_what_its_parent_holds_for_it(staffed: Site) -> None:
    site = staffed
    site.write(
        "boss",
        [ask("a"), {"say": "done"}],
        tools=[{"agent": "worker", "budget": {"model_calls": 2}}],
        budget={"model_calls": 6},
    )
    site.write(
        "worker",
        [{"call": [{"look": {"what": f"{n}"}}]} for n in range(30)] + [{"say": "It is a."}],
        budget={"model_calls": 2, "when_used_up": "ask"},
    )
    async with site.serving():
        handle = await site.start("boss")
        child = await begun(site, f"{handle.id}/c1")
        (request,) = await asked(child)
        try:
            await decide(child, request, "raise", value={"model_calls": 40})
        except WorkflowUpdateFailedError:
            await decide(child, request, "answer")
        result = await handle.result()

    assert result.usage.model_calls <= 6


async def test_what_was_spent_below_a_terminated_child_counts(site: Site) -> None:
    """Its own children are shares in its ledger: nobody takes these in when it is ended from outside."""
    site.write(
        "boss",
        [ask("a"), {"say": "done"}],
        budget={"model_calls": 30},
        tools=[{"agent": "worker", "budget": {"model_calls": 20}}],
    )
    site.write("worker", [ask("b", agent="helper"), {"say": "It is a."}], tools=[{"agent": "helper"}])
    site.write("helper", [*[{"call": [{"look": {"what": f"{n}"}}]} for n in range(8)], HELD, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        helper = f"{handle.id}/c1/c1"
        await reached(helper, count=9)
        await site.client.get_workflow_handle(f"{handle.id}/c1").terminate(reason="by hand")
        result = await handle.result()
        spent = (await handle.query("progress"))["budget"]["use"]["model_calls"]["spent"]
        LET_GO.add(helper)

    # Two of its own, one of the worker, nine of the helper.
    assert spent >= 12, (spent, result.usage)


async def test_a_model_call_under_way_in_a_terminated_child_counts_as_it_was_reserved(
    tmp_path: Path, client: Client
) -> None:
    async def plays(_: Request) -> Behaviour:
        return Answer(text="done", reasoning=False, delay=60)

    async with FakeProvider(script=plays) as fake:
        site = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
        site.write(
            "boss",
            [ask("a"), {"say": "done"}],
            **priced("boss"),
            max_output_tokens=100,
            budget={"cost_usd": "100.00"},
            tools=[{"agent": "worker", "budget": {"cost_usd": "30.00"}}],
        )
        site.write("worker", [], models=[{"model": "vllm:worker", "price": PRICE}], max_output_tokens=100)
        async with site.serving():
            handle = await site.start("boss")
            child, held = await begun(site, f"{handle.id}/c1"), Decimal(0)
            async with asyncio.timeout(20):
                while not held:
                    with suppress(WorkflowQueryFailedError):
                        held = Decimal((await child.query("progress"))["budget"]["use"]["cost_usd"]["held"])
                    await asyncio.sleep(0.1)
            await child.terminate()
            result = await handle.result()

    assert result.usage.assumed_calls >= 1
    assert result.usage.cost_usd >= held


async def test_a_result_tells_of_no_more_tool_calls_than_were_made(site: Site) -> None:
    """Refused calls count up to the limit, and those of children beside them."""
    site.write(
        "boss",
        [ask("a"), {"call": [{"look": {"what": f"{n}"}} for n in range(6)]}, {"say": "done"}],
        budget={"tool_calls": 5},
        tools=[{"agent": "worker", "budget": {"tool_calls": 3}}, LOOK],
    )
    site.write("worker", [{"call": [{"look": {"what": f"{n}"}} for n in range(3)]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()

    made = 1 + len(calls_of(handle.id)) + len(calls_of(f"{handle.id}/c1"))
    assert result.usage.tool_calls == made == 5


async def test_a_child_without_a_price_is_refused_as_files_load_where_its_parent_limits_money(site: Site) -> None:
    """Its parent lends it a limit in money, under which it can ask nothing."""
    site.write("boss", [ask("a"), {"say": "done"}], **priced("boss"), tools=CHILD, budget={"cost_usd": "100.00"})
    site.write("worker", [{"say": "It is a."}])

    with pytest.raises(FileError, match="no price is known"):
        async with site.serving():
            pass


async def test_time_in_which_a_child_waits_for_people_is_no_work_of_its_parent(staffed: Site) -> None:
    site = staffed
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD, budget={"work_time": "4s"})
    site.write("worker", [PAY, {"say": "It is a."}], policy=[{"id": "asked", "match": {}, "verdict": "ask"}])
    async with site.serving():
        handle = await site.start("boss")
        child = await begun(site, f"{handle.id}/c1")
        (request,) = await asked(child)
        await asyncio.sleep(6)
        with suppress(RPCError, WorkflowUpdateFailedError):
            await decide(child, request)
        result, of_child = await handle.result(), await child.result()

    assert (result.status, of_child.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED), of_child.reason


# Rights


async def test_a_sensitive_argument_of_an_agent_is_in_no_history(site: Site) -> None:
    card = "4111-1111-1111-1111"
    schema = {"type": "object", "properties": {"card": {"type": "string"}}, "required": ["card"]}
    site.write(
        "boss",
        [{"call": [{"worker": {"card": card}}]}, {"say": "done"}],
        tools=[{"agent": "worker", "input_schema": schema, "sensitive": ["card"]}],
    )
    site.write("worker", [{"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()
        of_parent, of_child = await history(site.client, handle.id), await history(site.client, f"{handle.id}/c1")

    assert card.encode() not in of_parent
    # It is the goal of the child.
    assert card.encode() not in of_child


async def test_a_rule_of_an_ancestor_is_not_replaced_by_a_childs_own_of_the_same_name(staffed: Site) -> None:
    """Whom a rule asks is looked up by its name."""
    site = staffed
    asks = {"id": "big", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}}
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD, policy=[{**asks, "quorum": 2}])
    site.write(
        "worker",
        [PAY, {"say": "It is a."}],
        policy=[{"id": "boss--big", "match": {"tools": ["pay"]}, "verdict": "allow"}],
    )
    async with site.serving():
        handle = await site.start("boss")
        child = await begun(site, f"{handle.id}/c1")
        (request,) = await asked(child)
        await handle.terminate()
        await child.terminate()

    (need,) = request.needs
    assert (need.groups, need.quorum) == (("finance",), 2)


async def test_what_a_rule_of_an_ancestor_leaves_out_is_not_filled_in_by_the_child(staffed: Site) -> None:
    """Left out it means what it means in the ancestor: everybody, one rejection."""
    site = staffed
    asks = {"id": "big", "match": {"tools": ["pay"]}, "verdict": "ask"}
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD, policy=[asks], people={})
    site.write(
        "worker", [PAY, {"say": "It is a."}], people={"approvers": {"users": ["cleo@example.com"]}, "rejections": 3}
    )
    async with site.serving():
        handle = await site.start("boss")
        child = await begun(site, f"{handle.id}/c1")
        (request,) = await asked(child)
        await handle.terminate()
        await child.terminate()

    (need,) = request.needs
    assert (need.users, need.rejections) == ((), 1)


async def test_totals_keep_a_call_of_an_agent_that_has_changed_the_world(site: Site) -> None:
    """A call that failed gives its share back only if nothing was done."""
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    limit = {
        "id": "limit",
        "match": {"tools": ["worker"]},
        "verdict": "deny",
        "when": "run.totals.worker.amount + args.amount > 100.0",
    }
    site.write(
        "boss",
        [{"call": [{"worker": {"amount": 90}}]}, {"call": [{"worker": {"amount": 80}}]}, {"say": "done"}],
        tools=[{"agent": "worker", "input_schema": schema}],
        policy=[limit, *ALLOW_ALL],
    )
    site.write("worker", [PAY, HELD, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        await reached(child)
        LET_GO.add(f"{handle.id}/c2")
        await site.client.get_workflow_handle(child).terminate()
        result = await handle.result()

    assert result.effects.count == 1
    assert calls_of(f"{handle.id}/c2", "pay") == []


async def test_what_a_child_returns_is_written_in_histories_as_people_may_see_it(site: Site) -> None:
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [{"say": "paid \u202e\x9b2J to ann"}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        of_parent, of_child = await history(site.client, handle.id), await history(site.client, f"{handle.id}/c1")

    assert await texts_told(site, result.head) == ["[c1: completed, $0.0000]\npaid \u202e\x9b2J to ann"]
    assert "\u202e".encode() not in of_child
    assert "\u202e".encode() not in of_parent


# Stops, resets, other workers


async def test_a_run_that_is_cancelled_as_it_starts_children_leaves_none_running(site: Site) -> None:
    """A child whose start was under way is not in the state, and nobody cancels it."""
    site.write("boss", [ask(*(f"{number}" for number in range(60))), {"say": "done"}], tools=CHILD)
    site.write("worker", [HELD, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        await begun(site, f"{handle.id}/c1")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        running = [f"{handle.id}/c{number}" for number in range(1, 61)]
        ends_at = time.monotonic() + 60
        while running and time.monotonic() < ends_at:
            await asyncio.sleep(0.5)
            running = [one for one in running if await is_running(site.client, one)]
        for one in running:
            await site.client.get_workflow_handle(one).terminate()
        ended = [found.status async for found in site.client.list_workflows(f'RootWorkflowId = "{handle.id}"')]

    assert running == []
    # One that nobody cancels ends when its call has taken too long.
    assert {*ended} == {WorkflowExecutionStatus.CANCELED}


async def test_a_child_hears_its_parent_also_after_that_was_reset(site: Site) -> None:
    """The parent counts its messages anew, and the child takes them for old ones."""
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [HELD, {"call": [{"look": {"what": "b"}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        await reached(child)
        for verb in ("pause", "resume", "pause", "resume"):
            await send_update(handle, verb, {"by": BY, "tree": True})
            await asyncio.sleep(0.3)
        again = await reset_before(site.client, handle, STARTS_CHILD)
        await asyncio.sleep(1.0)
        LET_GO.add(child)
        async with asyncio.timeout(20):
            result = await again.result()

    assert await texts_told(site, result.head) == ["[c1: completed, $0.0000]\nIt is a."]


async def test_a_reset_parent_takes_its_children_up_whatever_their_order(tmp_path: Path, client: Client) -> None:
    """The model asks for the same once more, the other way round."""
    tasks = ["a", "b"]

    async def plays(request: Request) -> Behaviour:
        if any(message["role"] == "tool" for message in request.json["messages"]):
            return Answer(text="done", reasoning=False)
        calls = tuple(Call("worker", json.dumps({"task": task}), id=f"call-{task}") for task in tasks)
        return Answer(calls=calls, reasoning=False)

    async with FakeProvider(script=plays) as fake:
        site = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
        site.write("boss", [], models=["vllm:boss"], tools=CHILD)
        site.write("worker", [PAY, {"say": "It is a."}])
        async with site.serving():
            handle = await site.start("boss")
            await handle.result()
            tasks.reverse()
            again = await reset_before(site.client, handle, "call_model")
            await again.result()

    paid = [call.workflow_id for call in CALLS if call.workflow_id.startswith(f"{handle.id}/") and call.tool == "pay"]
    assert len(paid) == 2, paid


async def test_a_run_with_a_long_workflow_id_is_told_that_it_can_have_no_children(site: Site) -> None:
    """The server takes 1,000 bytes; a start beyond that fails the workflow task for ever."""
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [{"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss", workflow_id=uuid4().hex + "x" * 966)
        try:
            async with asyncio.timeout(20):
                result = await handle.result()
        finally:
            if await is_running(site.client, handle.id):
                await handle.terminate()

    (told,) = await texts_told(site, result.head)
    assert told.startswith("not started: ")


async def test_a_worker_with_another_store_leaves_children_to_others(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    """As it does with runs that continue as new."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = new_site(tmp_path / "one", client)
    other = Site(tmp_path / "other", await connect(address=temporal.address), one.queue, {})
    tasks = ask(*(f"{number}" for number in range(12)))
    for of in (one, other):
        of.write("boss", [HELD, tasks, {"say": "done"}], tools=[*CHILD, LOOK])
        of.write("worker", [{"call": [{"look": {"what": "b"}}]}, {"say": "It is a."}])
    async with one.serving():
        handle = await one.start("boss")
        await reached(handle.id)
        async with other.serving():
            LET_GO.add(handle.id)
            # Each time that it gets a task, the next attempt comes later: it does not stay until all are done.
            await asyncio.sleep(5)
        async with asyncio.timeout(120):
            result = await handle.result()
        children = [client.get_workflow_handle(f"{handle.id}/c{number}") for number in range(1, 13)]
        ends = [(await child.describe()).status for child in children]

    assert result.status is RunStatus.COMPLETED
    assert ends == [WorkflowExecutionStatus.COMPLETED] * 12


async def test_a_worker_of_one_file_serves_the_agents_that_this_names(site: Site) -> None:
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    site.environment["MANDATE_AGENTS"] = str(site.folder / "agents" / "boss.yaml")
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()

    assert len(calls_of(f"{handle.id}/c1", "look")) == 1


async def test_the_memo_of_a_cancelled_run_tells_what_may_have_happened_below_it(site: Site) -> None:
    site.write("boss", [ask("Send."), HELD, {"say": "done"}], tools=[*CHILD, LOOK])
    site.write("worker", [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "Sent."}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(handle.id)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        memo = await (await handle.describe()).memo()

    assert [entry["tool"] for entry in memo["mandate"]["uncertain"]] == ["send"]


async def test_a_child_that_was_ended_from_outside_is_missed_soon_after_its_parent_has_continued(site: Site) -> None:
    """It has promised to report, and cannot."""
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [HELD, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss")
        child = site.agents.handle(f"{handle.id}/c1")
        await reached(child.id)
        await continued(handle)
        async with asyncio.timeout(20):
            while not (await child.query("state"))["child"].get("reports"):
                await asyncio.sleep(0.05)
        await child.terminate()
        async with asyncio.timeout(60):
            result = await handle.result()

    assert (await texts_told(site, result.head))[0].startswith("c1: declined")


async def test_what_is_known_below_a_cancelled_child_is_not_told_as_unknown(site: Site) -> None:
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [ask("b", agent="helper"), {"say": "It is a."}], tools=[{"agent": "helper"}])
    site.write("helper", [HELD, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(f"{handle.id}/c1/c1")
        await site.client.get_workflow_handle(f"{handle.id}/c1").cancel()
        result = await handle.result()

    assert result.uncertain == ()
    assert await texts_told(site, result.head) == ["c1: declined, $0.0000; it was cancelled"]


async def test_a_result_tells_of_each_call_below_that_may_have_happened(site: Site) -> None:
    """Fifty are kept, and nothing says that there were more."""
    site.write("boss", [ask(*(f"{number}" for number in range(60))), {"say": "done"}], tools=CHILD)
    site.write("worker", [{"call": [{"send": {"to": "ü" * 90, "lose_reply": True}}]}, {"say": "Sent."}])
    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()

    assert len(result.uncertain) == 60


async def test_a_long_answer_of_a_child_is_shown_as_what_it_is(site: Site) -> None:
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [{"say": "word " * 100}])
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()
        recent = (await handle.query("progress"))["recent"]

    assert not any("null" in line for line in recent), recent


# Forks, sessions, ways back


def forked(site: Site, work: list[Any]) -> None:
    """A boss that looks and then asks a worker for `work`."""
    site.write("boss", [{"call": [{"look": {"what": "a"}}]}, ask("Do it."), {"say": "done"}], tools=[*CHILD, LOOK])
    site.write("worker", work)


async def test_a_fork_of_a_run_whose_child_is_at_work_does_not_do_that_again(site: Site) -> None:
    forked(site, [PAY, HELD, {"say": "Paid."}])
    async with site.serving():
        first = await site.start("boss")
        await reached(f"{first.id}/c1")
        fork = await site.start("boss", "Once more.", continues={"run": first.id, "step": 1})
        LET_GO.add(f"{fork.id}/c1")
        await fork.result()
        LET_GO.add(f"{first.id}/c1")
        await first.result()

    assert calls_of(f"{fork.id}/c1", "pay") == []


async def test_a_fork_knows_what_may_have_happened_below_its_origin(site: Site) -> None:
    forked(site, [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "Sent."}])
    async with site.serving():
        first = await site.start("boss")
        origin = await first.result()
        fork = await site.start("boss", "Once more.", continues={"run": first.id, "step": 1})
        await fork.result()

    assert len(origin.uncertain) == 1
    assert calls_of(f"{fork.id}/c1", "send") == []


async def test_a_session_that_was_ended_amid_a_childs_work_does_not_do_that_again(site: Site) -> None:
    """Nobody has cancelled the child, which works on; of a call of its own the session would say: not known."""
    site.write("boss", [ask("Pay."), ask("Pay."), {"say": "two"}], tools=CHILD)
    site.write("worker", [PAY, HELD, {"say": "Paid."}])
    session = f"talk-{site.queue}"
    async with site.serving():
        said = asyncio.create_task(site.agents.say(session, "boss", "Pay.", by="ann", message_id="m1", idle="10s"))
        await reached(f"{session}/c1")
        said.cancel()
        await site.client.get_workflow_handle(session).terminate()
        LET_GO.add(f"{session}/c2")
        await site.agents.say(session, "boss", "Go on.", by="ann", message_id="m2", idle="200ms")
        LET_GO.add(f"{session}/c1")

    assert calls_of(f"{session}/c2", "pay") == []


async def test_whoever_speaks_to_a_session_is_told_that_people_are_waited_for_below_it(staffed: Site) -> None:
    """As of the session's own requests: `say` returns with the status `waiting`."""
    site = staffed
    site.write("boss", [ask("a"), {"say": "done"}], tools=CHILD)
    site.write("worker", [PAY, {"say": "It is a."}], policy=[{"id": "asked", "match": {}, "verdict": "ask"}])
    session = f"talk-{site.queue}"
    async with site.serving():
        said = asyncio.create_task(site.agents.say(session, "boss", "Pay.", by=BY, message_id="m1", idle="1s"))
        child = await begun(site, f"{session}/c1")
        (request,) = await asked(child)
        reply = await asyncio.wait_for(said, timeout=10)
        await decide(child, request, by="bob@example.com")
        later = await site.agents.say(session, "boss", "Pay.", by=BY, message_id="m1", idle="1s")

    assert (reply.status, reply.waiting_for) == ("waiting", request.waits_for)
    assert later.status in {"waiting", "completed"}


@pytest.mark.parametrize("beside", [("worker", {"task": "Pay."}), ("pay", {"order": 1, "seconds": 1})])
async def test_a_way_back_tells_of_what_was_done_beside_it(
    tmp_path: Path, client: Client, beside: tuple[str, dict[str, Any]]
) -> None:
    """The note is written while the other calls of the turn are under way."""
    seen: list[Any] = []

    async def plays(request: Request) -> Behaviour:
        seen.append(request.json["messages"])
        back = Call("go_back", json.dumps({"to": 1, "because": "so"}), id="call-3")
        turns = {
            1: (Call("look", json.dumps({"what": "a"}), id="call-1"),),
            2: (Call(beside[0], json.dumps(beside[1]), id="call-2"), back),
        }
        calls = turns.get(len(seen), ())
        return Answer(text="step", calls=calls, reasoning=False)

    async with FakeProvider(script=plays) as fake:
        site = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
        tools = [*CHILD, LOOK, {"python": "tests.support.toolkit:pay"}]
        site.write("boss", [], models=["vllm:boss"], backtrack=True, tools=tools)
        site.write("worker", [PAY, {"say": "Paid."}])
        async with site.serving():
            handle = await site.start("boss")
            result = await handle.result()

    assert result.effects.count == 1
    assert "Nothing was changed there" not in json.dumps(seen[2])
