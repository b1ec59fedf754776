"""Record the histories of today's code: `python -m tests.replay.record VERSION [NAME ...]`.

Each file is one run as the server has it. A change of the command order keeps the old files and adds new ones.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import Worker

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.loop import people, run
from tests.support.agents import ALLOW_ALL, REQUESTER, Site, new_site
from tests.support.agents import continued as went_on
from tests.support.http_peer import Reply, http_peer
from tests.support.mcp_peer import COMMAND
from tests.support.people import ASK_ALL, PEOPLE, asked, decide, decision, refusal_of, send_update, write_people
from tests.support.toolkit import BOOKED, LET_GO, calls_of

HISTORIES = Path(__file__).parent / "histories"

Started = WorkflowHandle[Any, Any]


@activity.defn(name="Describe")
async def describe(whole: dict[str, Any]) -> str:
    return "it is " + str(whole["what"])


async def ended(site: Site, name: str, **options: Any) -> Started:
    """A run that a worker of its own has served to its end."""
    async with site.serving(identity="worker"):
        handle = await site.start(name, **options)
        await handle.result()
    return handle


async def completed(site: Site) -> Started:
    """Reads side by side, effects in order, a misfit, a refusal."""
    policy = [
        {"id": "no-letters", "match": {"tools": ["send"]}, "verdict": "deny"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    turns = [
        {"say": "First.", "call": [{"look": {"what": "a"}}, {"look": {"what": "b"}}, {"pay": {"order": 1}}]},
        {"call": [{"nothing": {}}, {"send": {"to": "Ann"}}, {"pay": {"order": 1}}, {"pay": {"order": 2}}]},
        {"say": "done"},
    ]
    site.write("completed", turns, policy=policy)
    return await ended(site, "completed", requester="ann@example.com", labels={"team": "support"})


async def structured(site: Site) -> Started:
    site.write("structured", [{"say": "5"}, {"say": '{"a": 1}'}], output_schema={"type": "object", "required": ["a"]})
    return await ended(site, "structured")


async def declined(site: Site) -> Started:
    site.write("declined", [{"call": [{"send": {"to": "Ann", "lose_reply": True}}, {"pay": {"order": 1}}]}])
    return await ended(site, "declined")


async def exhausted(site: Site) -> Started:
    site.write("exhausted", [{"repeat": 9, "call": [{"look": {"what": "x"}}]}], budget={"steps": 3})
    return await ended(site, "exhausted")


async def rerouted(site: Site) -> Started:
    site.write("rerouted", [{"fail": [{"status": 401}] * 3, "say": "x"}])
    site.write("backup", [{"say": "from the backup"}])
    models = ["scripted:rerouted.script.yaml", "scripted:backup.script.yaml"]
    site.write("rerouted", [{"fail": [{"status": 401}] * 3, "say": "x"}], models=models)
    return await ended(site, "rerouted")


async def remote(site: Site) -> Started:
    schema = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    place = {"name": "Describe", "task_queue": "describers"}
    tools = [{"activity": place, "name": "describe", "input_schema": schema, "effect": "keyed"}]
    site.write("remote", [{"call": [{"describe": {"what": "a"}}]}, {"say": "done"}], tools=tools)
    foreign = await Client.connect(site.client.service_client.config.target_host, identity="foreign")
    async with Worker(foreign, task_queue="describers", activities=[describe]):
        return await ended(site, "remote")


async def cancelled(site: Site) -> Started:
    site.write("cancelled", [{"call": [{"pay": {"order": 1}}, {"pay": {"order": 2, "seconds": 15}}]}])
    async with site.serving(identity="worker"):
        handle = await site.start("cancelled")
        while len(calls_of(handle.id, "pay")) < 2:
            await asyncio.sleep(0.05)
        await handle.cancel()
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
    return handle


async def refused(site: Site) -> Started:
    site.write("refused", [{"say": "never"}])
    async with site.serving(identity="worker"):
        bad = {"agent": "refused", "inputt": "y"}
        handle = await site.client.start_workflow("AgentWorkflow", bad, id="refused-1", task_queue=site.queue)
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
    return handle


async def continued(site: Site) -> Started:
    """The second of several runs: it begins in the middle of a turn."""
    calls = [{"pay": {"order": n}} for n in range(6)]
    site.write("continued", [{"repeat": 6, "call": calls}, {"say": "done"}])
    return await second_run(site, await ended(site, "continued"))


async def second_run(site: Site, handle: Started) -> Started:
    first = await site.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).fetch_history()
    last = first.events[-1].workflow_execution_continued_as_new_event_attributes
    return site.client.get_workflow_handle(handle.id, run_id=last.new_execution_run_id)


def asking(**keys: Any) -> list[dict[str, Any]]:
    return [{**ASK_ALL[0], **keys}, ASK_ALL[1]]


async def decided(site: Site) -> Started:
    """Requests of all outcomes: a quorum with a repeat, an edit, an answer, a rejection, refusals of both stages."""
    calls = [{"pay": {"order": 1}}, {"pay": {"order": 2}}, {"send": {"to": "Ann"}}, {"look": {"what": "a"}}]
    question = {"ask_person": {"question": "Which colour?", "options": ["red"]}}
    site.write("decided", [{"call": [*calls, question]}, {"say": "done"}], policy=asking(quorum=2))
    async with site.serving(identity="worker"):
        handle = await site.start("decided", requester="eve@example.com")
        first, second, letter, asked_for = await asked(handle, 4)
        await decide(handle, asked_for, "answer", value="blue")
        await handle.signal("decide", decision(first, "maybe"))
        await refusal_of(handle, "decide", decision(first, by="cleo@example.com"))
        await decide(handle, first)
        await decide(handle, first)
        await decide(handle, first, by="bob@example.com", value={"order": 1, "amount": 7})
        (edited, *_) = await asked(handle, 3)
        await decide(handle, edited)
        await asyncio.gather(decide(handle, second), decide(handle, second, by="bob@example.com"))
        await handle.signal("decide", decision(letter, "reject", comment="too dear"))
        await handle.result()
    return handle


async def carried(site: Site) -> Started:
    """The second of several runs: it begins with open requests, one of them half approved, and decides them."""
    calls = [{"pay": {"order": 1}}, {"pay": {"order": 2}}, {"send": {"to": "Ann"}}]
    site.write("carried", [{"call": calls}, {"say": "done"}], policy=asking(quorum=2, expires="2h", remind="30m"))
    async with site.serving(identity="worker"):
        handle = await site.start("carried")
        first, second, _ = await asked(handle, 3)
        await decide(handle, first)
        for number in range(30):
            await handle.signal("decide", decision(first, by=f"nobody-{number}"))
        while (await handle.describe()).run_id == handle.first_execution_run_id:
            await asyncio.sleep(0.1)
        await asked(handle, 3)
        await decide(handle, first)
        await decide(handle, first, by="bob@example.com")
        await decide(handle, second, value={"order": 3})
        (edited, *_) = await asked(handle, 2)
        await decide(handle, edited, by="bob@example.com")
        await handle.signal("decide", {"request": "*", "choice": "reject"})
        await handle.result()
    return await second_run(site, handle)


async def parked(site: Site) -> Started:
    """Paused, steered, decided while paused, resumed; the next request goes on to others and expires."""
    escalate = {"escalate": {"groups": ["legal"], "expires": "1s"}}
    turns = [{"call": [{"pay": {"order": 1}}]}, {"call": [{"pay": {"order": 2}}]}, {"say": "done"}]
    site.write("parked", turns, policy=asking(expires="3s", remind="1s", on_expiry=escalate))
    async with site.serving(identity="worker"):
        handle = await site.start("parked")
        (request,) = await asked(handle)
        await send_update(handle, "pause", {"by": "ann@example.com"})
        await send_update(handle, "steer", {"by": "bob@example.com", "text": "Be brief."})
        await decide(handle, request)
        await handle.signal("resume", {"by": "ann@example.com"})
        await handle.result()
    return handle


async def stopped(site: Site) -> Started:
    """Stopped while requests are open and people are still being told of them."""
    calls = [{"pay": {"order": number}} for number in range(60)]
    site.write("stopped", [{"call": calls}, {"say": "done"}], policy=asking())
    async with http_peer(Reply(late=1.0)) as peer:
        hook = {"name": "slow", "kind": "webhook", "url": peer.url, "secret": "${secret:HOOK}"}
        (site.folder / "channels.yaml").write_text(json.dumps({"channels": [hook]}))
        site.environment.update(MANDATE_CHANNELS=str(site.folder / "channels.yaml"), HOOK="hook-secret-0123456789")
        async with site.serving(identity="worker"):
            handle = await site.start("stopped")
            await handle.signal("stop", "by nobody")
            await asked(handle, 60)
            await handle.signal("stop", {"by": "ann@example.com", "reason": "enough"})
            await handle.result()
    return handle


def only(*names: str, **probe: Any) -> list[dict[str, Any]]:
    """These tools of the toolkit, so that the history is short; with `probe`, of `send`."""
    entries = [{"python": f"tests.support.toolkit:{name}"} for name in names]
    return [{**entry, "probe": probe} if probe and entry["python"].endswith(":send") else entry for entry in entries]


async def escalated(site: Site) -> Started:
    """A tool that fails, then the same call again, which is not made; a person lets it try again, and it works."""
    bad = {"call": [{"send": {"to": "Ann", "refuse": True}}, {"look": {"what": "a"}}]}
    site.write(
        "escalated",
        [bad, bad, {"call": [{"send": {"to": "Bob"}}]}, {"say": "done"}],
        tools=only("send", "look"),
        attempts=2,
    )
    async with site.serving(identity="worker"):
        handle = await site.start("escalated")
        (request,) = await asked(handle)
        await decide(handle, request, "retry", value={"to": "Bob"}, comment="Ann has moved")
        await handle.result()
    return handle


async def probed(site: Site) -> Started:
    """Two calls whose replies are lost: the probe finds that one happened, and not the other, which is made again."""
    BOOKED.add("Ann")
    calls = [{"send": {"to": "Bob", "lose_first": True}}, {"send": {"to": "Ann", "lose_reply": True}}]
    tools = only("send", "find_letter", tool="find_letter", patience="1s", **{"with": {"to": "args.to"}})
    site.write("probed", [{"call": calls}, {"say": "done"}], tools=tools)
    return await ended(site, "probed")


async def doubted(site: Site) -> Started:
    """The same two without a probe: a person says what became of them, the second time by a signal."""
    calls = [{"send": {"to": "Bob", "lose_first": True}}, {"send": {"to": "Ann", "lose_reply": True}}]
    site.write("doubted", [{"call": calls}, {"say": "done"}], tools=only("send"))
    async with site.serving(identity="worker"):
        handle = await site.start("doubted")
        (first,) = await asked(handle)
        await decide(handle, first, "not_happened")
        while (second := (await asked(handle))[0]).id == first.id:
            await asyncio.sleep(0.05)
        await handle.signal("decide", decision(second, "happened", value="letter 7"))
        await handle.result()
    return handle


async def checked(site: Site) -> Started:
    """A check of an effect fails, and so does one of the answer, until it is taken."""
    checks = [
        {"after": "pay", "expect": "result.paid > 5.0"},
        {"after": "pay", "expect": "false", "when": "args.amount > 5.0"},
        {"after": "final", "schema": {"type": "object"}},
    ]
    pay = {"call": [{"pay": {"order": 1, "amount": 2}}]}
    site.write("checked", [pay, pay, {"say": "paid"}, {"say": "{}"}], tools=only("pay"), checks=checks)
    return await ended(site, "checked")


async def undone(site: Site) -> Started:
    """Stopped while a request is open: two calls are taken back, one by a person's leave; a request escalates."""
    back = {"tool": "give_back", "with": {"order": "args.order", "paid": "result.paid", "key": "key"}}
    pay, send, *rest = only("pay", "send", "give_back", "write_note", "look")
    tools = [
        {**pay, "compensate": back},
        {**send, "compensate": {"tool": "write_note", "with": {"text": "key"}}},
        *rest,
    ]
    escalate = {"escalate": {"groups": ["legal"], "expires": "60s"}}
    ask = {
        "id": "asked",
        "match": {"tools": ["give_back", "pay"]},
        "when": "args.order > 1",
        "verdict": "ask",
        "approvers": {"groups": ["finance"]},
        "expires": "1s",
        "on_expiry": escalate,
    }
    calls = [{"pay": {"order": 1}}, {"send": {"to": "Ann"}}, {"pay": {"order": 2}}]
    allow = {"id": "all", "match": {}, "verdict": "allow"}
    look = {"call": [{"look": {"what": "x", "seconds": 1.0}}]}
    site.write("undone", [{"call": calls}, look, {"say": "done"}], tools=tools, policy=[allow, ask])
    async with site.serving(identity="worker"):
        handle = await site.start("undone")
        (request,) = await asked(handle)
        await decide(handle, request)
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
        await handle.signal("stop", {"by": "ann@example.com", "reason": "enough"})
        (back_again,) = await asked(handle)
        async with asyncio.timeout(20):
            while "legal" not in back_again.waits_for:
                await asyncio.sleep(0.05)
                (back_again,) = await asked(handle)
        await decide(handle, back_again, by="cleo@example.com")
        await handle.result()
    return handle


async def controlled(site: Site) -> Started:
    """Who controls is looked up: by update and by signal, those who may and others, also with a file that is broken."""
    people = {**PEOPLE, "control": {"groups": ["finance"]}}
    write_people(site.folder, people)
    site.write("controlled", [{"call": [{"ask_person": {"question": "Which?"}}]}, {"say": "done"}])
    async with site.serving(identity="worker"):
        handle = await site.start("controlled")
        await asked(handle)
        for verb in ("pause", "resume"):
            await send_update(handle, verb, {"by": "ann@example.com"})
            await refusal_of(handle, verb, {"by": "dan@example.com"})
            await handle.signal(verb, {"by": "bob@example.com"})
            await handle.signal(verb, {"by": "dan@example.com"})
        (site.folder / "people.yaml").write_text("people: [")
        await send_update(handle, "pause", {"by": "dan@example.com"})
        await refusal_of(handle, "steer", {"by": "ann@example.com", "text": "Use euros."})
        write_people(site.folder, people)
        await send_update(handle, "steer", {"by": "ann@example.com", "text": "Use euros."})
        await handle.signal("stop", {"by": "bob@example.com", "reason": "enough"})
        await handle.result()
    return handle


async def together(site: Site) -> Started:
    """Many decisions in one message, by update and by signal; what changes arguments is looked up by itself."""
    rule = {**ASK_ALL[0], "quorum": 2}
    calls = [{"pay": {"order": number}} for number in range(1, 7)]
    site.write("together", [{"call": calls}, {"say": "done"}], policy=[rule, ASK_ALL[1]])
    async with site.serving(identity="worker"):
        handle = await site.start("together")
        requests = await asked(handle, 6)
        foreign = [decision(requests[0], by="dan@example.com"), decision(requests[1], digest="x"), {"request": "r1"}]
        approved = [decision(request) for request in requests]
        await send_update(handle, "decide", {"decisions": [*approved, *foreign, *approved[:2]]})
        changed = decision(requests[0], "approve", "bob@example.com", value={"order": 9})
        others = [decision(request, by="bob@example.com") for request in requests[1:4]]
        await handle.signal("decide", {"decisions": [changed, *others]})
        for request in requests[4:]:
            await handle.signal("decide", decision(request, by="bob@example.com"))
        (again,) = [one for one in await asked(handle) if one.id == "r1"]
        while again.digest == requests[0].digest:
            (again,) = [one for one in await asked(handle) if one.id == "r1"]
        await decide(handle, again)
        await handle.result()
    return handle


async def kept(site: Site) -> Started:
    """What came by signal to a crowded run, in the part of it that comes after."""
    run.MESSAGES, people.CROWD = 5, 6
    site.write("kept", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=[{**ASK_ALL[0], "quorum": 2}])
    async with site.serving(identity="worker"):
        handle = await site.start("kept")
        (request,) = await asked(handle)
    for number in range(8):
        await handle.signal("decide", decision(request, by="cleo@example.com", comment=str(number)))
    for by in ("ann@example.com", "bob@example.com"):
        await handle.signal("decide", decision(request, by=by))
    async with site.serving(identity="worker", sandboxed=False):
        await handle.result()
    return site.client.get_workflow_handle(handle.id)


async def inquired(site: Site) -> Started:
    """A server asks twice in one call, and a read goes on meanwhile; another call is left without an answer."""
    journal = str(site.folder / "journal")
    server = {"name": "shop", "command": [*COMMAND, "asking", "stdio", journal], "env": {"PYTHONPATH": str(Path.cwd())}}
    calls = [{"ship": {"order": 1}}, {"look": {"order": 2}}]
    tools = [{"mcp": server, "effects": {"look": "read"}}]
    site.write("inquired", [{"call": calls}, {"call": [{"wish": {"order": 3}}]}, {"say": "done"}], tools=tools)
    async with site.serving(identity="worker"):
        handle = await site.start("inquired")
        for request, choice, value in (
            ("r1", "answer", {"approve": True}),
            ("r2", "answer", "fast"),
            ("r3", "cancel", None),
        ):
            while (open_one := (await asked(handle))[0]).id != request:
                await asyncio.sleep(0.05)
            await decide(handle, open_one, choice, value=value)
        await handle.result()
    return handle


async def local(site: Site) -> Started:
    """Quick reads and checks, one that fails for good, one that fails in passing, and decisions by each way."""
    odd = [{"call": [{"look_odd": {}}, {"look": {"what": "a"}}]}, {"call": [{"look_odd": {"refuse": True}}]}]
    passing = {"call": [{"look_odd": {"break_first": 2}}, {"look": {"what": "b"}}, {"look": {"what": "c"}}]}
    slow = {"call": [{"look": {"what": "d", "seconds": 1.0}}, {"pay": {"order": 1}}]}
    pays = {"call": [{"pay": {"order": 2}}, {"pay": {"order": 3}}]}
    checks = [{"after": "pay", "expect": "result.paid > 0.0"}]
    tools = only("look", "look_odd", "pay")
    site.write("local", [*odd, passing, slow, pays, {"say": "done"}], tools=tools, checks=checks, policy=ASK_ALL)
    async with site.serving(identity="worker"):
        handle = await site.start("local")
        (first,) = await asked(handle)
        await decide(handle, first)
        while first.id in {request.id for request in await asked(handle)}:
            await asyncio.sleep(0.05)
        second, third = await asked(handle, 2)
        await handle.signal("decide", decision(second))
        await send_update(handle, "decide", {"decisions": [decision(third)]})
        await handle.result()
    return handle


async def spent(site: Site) -> Started:
    """A limit that people raise, then another one that leaves a last answer; calls of tools beyond theirs."""
    budget = {"model_calls": 3, "tool_calls": 4, "tokens": 1_000_000, "when_used_up": "ask"}
    look = {"repeat": 9, "call": [{"look": {"what": "x"}}]}
    check = {"name": "judged", "after": "final", "rubric": "It is brief.", "model": "scripted:judge.script.yaml"}
    site.write("judge", [{"say": '{"verdict": "pass", "reason": "it is"}'}])
    site.write("spent", [look], budget=budget, checks=[check])
    async with site.serving(identity="worker"):
        handle = await site.start("spent")
        (request,) = await asked(handle)
        await decide(handle, request, "raise", value={"model_calls": 12})
        while (again := (await asked(handle))[0]).id == request.id:
            await asyncio.sleep(0.05)
        await decide(handle, again, "answer")
        await handle.result()
    return handle


async def halted(site: Site) -> Started:
    """A limit at which the run ends without an answer."""
    look = {"repeat": 9, "call": [{"look": {"what": "x"}}]}
    site.write("halted", [look], budget={"model_calls": 4, "when_used_up": "stop"})
    return await ended(site, "halted")


async def timed(site: Site) -> Started:
    """A call that waits for approval until only the time of the last answer is left, and a judge of that answer."""
    check = {"name": "judged", "after": "final", "rubric": "It is brief.", "model": "scripted:judge.script.yaml"}
    site.write("judge", [{"say": '{"verdict": "pass", "reason": "it is"}'}])
    pays = {"call": [{"pay": {"order": 1}}, {"look": {"what": "x"}}]}
    site.write("timed", [pays], budget={"wall_time": "4s"}, policy=ASK_ALL, checks=[check])
    return await ended(site, "timed")


async def cut(site: Site) -> Started:
    """A conversation that is cut for a small window, facts kept in mind, and a model that a condition calls."""
    small = [
        {"model": "scripted:cut.script.yaml", "window": 6000},
        {"model": "scripted:other.script.yaml", "window": 6000, "when": "run.step >= 6"},
    ]
    keep = {"call": [{"keep_in_mind": {"text": "The order is 81."}}]}
    turns = [keep, {"repeat": 7, "call": [{"big": {"size": 4000}}]}, {"say": "done"}]
    site.write("other", turns)
    site.write("cut", turns, models=small)
    return await ended(site, "cut")


async def conversed(site: Site) -> Started:
    """A session: messages as updates and signals, one that comes again, a call in it, the idle end."""
    turns = [{"say": "One."}, {"call": [{"pay": {"order": 1}}]}, {"repeat": 3, "say": "More."}]
    site.write("conversed", turns, requester="anyone")
    name, by = "conversed-1", "ann@example.com"
    async with site.serving(identity="worker"):
        for text, message_id in (("Hi.", "m1"), ("Pay.", "m2"), ("Pay.", "m2")):
            await site.agents.say(name, "conversed", text, by=by, message_id=message_id, idle="2s")
        handle = site.agents.handle(name)
        await handle.signal("say", {"text": "And more.", "by": "bob@example.com", "id": "m3"})
        await handle.result()
    return handle


async def resumed(site: Site) -> Started:
    """A run that goes on with a session that was terminated while a call waited for people."""
    turns = [{"say": "One."}, {"call": [{"pay": {"order": 1}}]}, {"repeat": 3, "say": "More."}]
    site.write("resumed", turns, policy=ASK_ALL, requester="anyone")
    name, by = "resumed-1", "eve@example.com"
    async with site.serving(identity="worker"):
        await site.agents.say(name, "resumed", "Hi.", by=by, message_id="m1", idle="1s")
        await site.agents.say(name, "resumed", "Pay.", by=by, message_id="m2")
        await site.agents.handle(name).terminate()
        await site.agents.say(name, "resumed", "Pay.", by=by, message_id="m2", idle="1s")
        handle = site.agents.handle(name)
        await handle.result()
    return handle


async def forked(site: Site) -> Started:
    """A run that goes on from a step of another one, and asks for a call that this one made later."""
    pays = [{"call": [{"pay": {"order": number}}]} for number in (1, 2, 3)]
    site.write("forked", [*pays, {"say": "done"}])
    async with site.serving(identity="worker"):
        origin = await site.start("forked")
        await origin.result()
        handle = await site.start("forked", "Once more.", continues={"run": origin.id, "step": 1})
        await handle.result()
    return handle


def write_tree(site: Site) -> None:
    """A run with three children in a turn, which allow themselves all but what it denies."""
    deny = {"id": "no-13", "match": {"tools": ["pay"]}, "when": "args.order == 13", "verdict": "deny"}
    tasks = [{"helper": {"task": f"part {number}"}} for number in (1, 2, 3)]
    allow = {"id": "all", "match": {}, "verdict": "allow"}
    site.write("led", [{"call": tasks}, {"say": "done"}], tools=[{"agent": "helper"}], policy=[deny, allow])
    work = [
        {"call": [{"pay": {"order": 13}}, {"pay": {"order": 1}}]},
        {"call": [{"look": {"what": "a", "held": True}}]},
        {"say": "It is a."},
    ]
    site.write("helper", work)


async def led(site: Site) -> Started:
    """A run whose children report by events of it, and one is terminated."""
    write_tree(site)
    async with site.serving(identity="worker"):
        handle = await site.start("led")
        ids = [f"{handle.id}/c{number}" for number in (1, 2, 3)]
        await all_reached(ids)
        await send_update(handle, "pause", {"by": "ann@example.com", "tree": True})
        await send_update(handle, "resume", {"by": "ann@example.com", "tree": True})
        await site.client.get_workflow_handle(ids[2]).terminate(reason="by hand")
        LET_GO.update(ids)
        await handle.result()
    return handle


async def told(site: Site) -> Started:
    """The part of a run that asks its children to report, since it has continued as new."""
    write_tree(site)
    async with site.serving(identity="worker"):
        handle = await site.start("led")
        ids = [f"{handle.id}/c{number}" for number in (1, 2, 3)]
        await all_reached(ids)
        await went_on(handle)
        LET_GO.update(ids[:2])
        await send_update(handle, "stop", {"by": "ann@example.com"})
        LET_GO.update(ids)
        await handle.result()
    return site.client.get_workflow_handle(handle.id)


async def below(site: Site) -> Started:
    """A child that its parent tells to report, and to stop."""
    write_tree(site)
    async with site.serving(identity="worker"):
        handle = await site.start("led")
        ids = [f"{handle.id}/c{number}" for number in (1, 2, 3)]
        await all_reached(ids)
        await went_on(handle)
        await send_update(handle, "stop", {"by": "ann@example.com"})
        LET_GO.update(ids)
        await handle.result()
    return site.client.get_workflow_handle(ids[0])


async def given_up(site: Site) -> Started:
    """A run whose model gives no answer, and whose time is used up before anybody has said how it goes on."""
    quota = {"fault": "quota"}
    site.write("given_up", [{"fail": [quota] * 6, "say": "late"}], budget={"wall_time": "3s"})
    return await ended(site, "given_up")


async def planned(site: Site) -> Started:
    """A plan with steps of tools and of an agent, and one that has failed and of which a person supplies the output."""
    site.write("writer", [{"say": "a poem"}])
    steps = [
        {"id": "each", "tool": "look", "for_each": "['a', 'b']", "input": {"what": "item"}},
        {"id": "bad", "tool": "look_bad", "on_failure": "ask"},
        {"id": "write", "agent": "writer", "input": "string(steps.bad.output) + steps.each.output[0]"},
    ]
    plan = {
        "name": "planned",
        "steps": steps,
        "tools": [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad")],
        "policy": ALLOW_ALL,
        "people": {"approvers": {"groups": ["finance"]}, "expires": "60s"},
    }
    (site.folder / "plans").mkdir()
    (site.folder / "plans" / "planned.yaml").write_text(json.dumps(plan))
    async with site.serving(identity="worker"):
        handle = await site.client.start_workflow(
            "PlanWorkflow", {"plan": "planned", "requester": REQUESTER}, id="planned", task_queue=site.queue
        )
        (request,) = await asked(handle)
        await decide(handle, request, "supply", value="from ann")
        await handle.result()
    return handle


async def all_reached(ids: list[str]) -> None:
    """Wait until each of these runs has made its held call."""
    while not all(calls_of(one, "look") for one in ids):
        await asyncio.sleep(0.05)


RUNS: tuple[Callable[[Site], Awaitable[Started]], ...] = (
    completed, structured, declined, exhausted, rerouted, remote, cancelled, refused, continued,
    decided, carried, parked, stopped, controlled,
    escalated, probed, doubted, checked, undone,
    together, kept,
    inquired,
    local,
    spent, cut, halted, timed,
    conversed, resumed, forked,
    led, told, below,
    given_up, planned,
)  # fmt: skip


async def record(version: str, names: list[str]) -> None:
    HISTORIES.mkdir(exist_ok=True)
    for play in RUNS:
        if names and play.__name__ not in names:
            continue
        config = {"limit.historyCount.suggestContinueAsNew": "40"} if play in {continued, carried} else {}
        with tempfile.TemporaryDirectory() as folder:
            async with run_private_server(extra_dynamic_config=config) as server:
                client = await connect(address=server.address, identity="client")
                site = new_site(Path(folder), client, MANDATE_PEOPLE=str(write_people(Path(folder))))
                handle = await play(site)
                history = json.loads((await handle.fetch_history()).to_json())
        path = HISTORIES / f"{version}-{play.__name__}.json"
        path.write_text(json.dumps(history, indent=1) + "\n")
        print(f"{path.name}: {len(history['events'])} events")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], sys.argv[2:]))
