"""Calls that probes and checks make are calls like any other: rules judge them, and what they bring in taints."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client import queries
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import ALLOW_ALL, Site, new_site, texts_told
from tests.support.people import asked, decide, write_people
from tests.support.toolkit import BOOKED, calls_of

DONE = {"say": "done"}
PAY_13 = {"call": [{"pay": {"order": 13}}]}
PROBE = {"probe": {"tool": "find_letter", "with": {"to": "args.to"}, "patience": "1s"}}
CHECK = {"after": "pay", "tool": "look", "with": {"what": "string(args.order)"}, "expect": "result == 'looked at 13'"}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def tools(send: dict[str, Any] | None = None, **lookups: Any) -> list[dict[str, Any]]:
    """The tools of these tests; `lookups` are settings of those that only read."""
    reads = [{"python": f"tests.support.toolkit:{name}", **lookups} for name in ("look", "find_letter")]
    return [{"python": "tests.support.toolkit:pay"}, {"python": "tests.support.toolkit:send", **(send or {})}, *reads]


def lost(to: str) -> dict[str, Any]:
    return {"call": [{"send": {"to": to, "lose_reply": True}}]}


def rule(verdict: str, tool: str, condition: str) -> dict[str, Any]:
    return {"id": "lookups", "match": {"tools": [tool]}, "when": condition, "verdict": verdict}


async def activities(handle: WorkflowHandle[Any, Any], name: str) -> int:
    """How many activities of this type the run has scheduled."""
    events = [event async for event in handle.fetch_history_events()]
    return [event.activity_task_scheduled_event_attributes.activity_type.name for event in events].count(name)


async def recent(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return list((await queries.ask(handle, "progress", dict))["recent"])


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("deny", "rule 'lookups' denies 'find_letter'"), ("ask", "rule 'lookups' asks people about 'find_letter'")],
)
async def test_probe_that_may_not_be_called_is_not_and_a_person_is_asked(site: Site, verdict: str, said: str) -> None:
    policy = [rule(verdict, "find_letter", "args.to == 'Emil'"), *ALLOW_ALL]
    site.write("prober", [lost("Emil"), DONE], policy=policy, tools=tools(PROBE))

    async with site.serving():
        handle = await site.start("prober")
        (request,) = await asked(handle)
        shown = await recent(handle)
        await decide(handle, request, "happened")
        result = await handle.result()

    assert (request.kind, request.tool) == ("outcome", "send")
    assert request.evidence[-1] == f"the probe find_letter may not be called: {said}"
    assert f"step 1: the probe find_letter of send to=Emil lose_reply=true may not be called: {said}" in shown
    assert [call.tool for call in calls_of(handle.id)] == ["send"]
    assert await activities(handle, "probe_call") == 0
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def test_probe_is_called_where_the_rule_does_not_fit_its_arguments(site: Site) -> None:
    policy = [rule("deny", "find_letter", "args.to == 'Emil'"), *ALLOW_ALL]
    site.write("prober", [lost("Frida"), DONE], policy=policy, tools=tools(PROBE))

    BOOKED.add("Frida")
    result, run = await site.run("prober")

    assert [(call.tool, call.arguments["to"]) for call in calls_of(run)] == [
        ("send", "Frida"),
        ("find_letter", "Frida"),
    ]
    assert result.effects.last[0].reason == "as find_letter shows"


async def test_probe_of_a_changed_call_is_judged_by_what_it_was_changed_to(site: Site) -> None:
    ask = {"id": "asked", "match": {"tools": ["send"]}, "verdict": "ask"}
    policy = [rule("deny", "find_letter", "args.to == 'Emil'"), ask, *ALLOW_ALL]
    site.write("prober", [lost("Frida"), DONE], policy=policy, tools=tools(PROBE))

    async with site.serving():
        handle = await site.start("prober")
        (approval,) = await asked(handle)
        await decide(handle, approval, value={"to": "Emil", "lose_reply": True})
        (outcome,) = await asked(handle)
        await decide(handle, outcome, "happened")
        await handle.result()

    assert outcome.kind == "outcome"
    assert [(call.tool, call.arguments["to"]) for call in calls_of(handle.id)] == [("send", "Emil")]


@pytest.mark.parametrize(
    ("verdict", "keys", "said"),
    [
        ("deny", {}, "check 'pay_tool_1' could not be made: rule 'lookups' denies 'look'"),
        ("ask", {}, "check 'pay_tool_1' could not be made: rule 'lookups' asks people about 'look'"),
        ("deny", {"unable": "pass"}, None),
    ],
)
async def test_check_that_may_not_be_made_is_not_and_counts_as_it_says(
    site: Site, verdict: str, keys: dict[str, Any], said: str | None
) -> None:
    policy = [rule(verdict, "look", "args.what == '13'"), *ALLOW_ALL]
    site.write("checked", [PAY_13, DONE], policy=policy, tools=tools(), checks=[{**CHECK, **keys}])

    async with site.serving():
        handle = await site.start("checked")
        result = await handle.result()

    (told,) = await texts_told(site, result.head)
    assert [call.tool for call in calls_of(handle.id)] == ["pay"]
    assert await activities(handle, "verify_result") == 0
    assert result.effects.count == 1
    assert told == '{"paid":1.0,"order":13}' if said is None else said in told


async def test_check_is_made_where_the_rule_does_not_fit_its_arguments(site: Site) -> None:
    policy = [rule("deny", "look", "args.what == '12'"), *ALLOW_ALL]
    site.write("checked", [PAY_13, DONE], policy=policy, tools=tools(), checks=[CHECK])

    result, run = await site.run("checked")

    assert [call.tool for call in calls_of(run)] == ["pay", "look"]
    assert await texts_told(site, result.head) == ['{"paid":1.0,"order":13}']


async def test_check_of_the_answer_that_may_not_be_made_counts_as_failed(site: Site) -> None:
    check = {"after": "final", "tool": "look", "with": {"what": "'all'"}, "expect": "true"}
    policy = [rule("deny", "look", "args.what == 'all'"), *ALLOW_ALL]
    site.write("checked", [DONE, DONE], policy=policy, tools=tools(), checks=[check], attempts=1)

    async with site.serving():
        handle = await site.start("checked")
        (request,) = await asked(handle)
        await decide(handle, request, "stop")
        result = await handle.result()

    denied = "check 'final_tool_1' could not be made: rule 'lookups' denies 'look'"
    assert (request.kind, request.evidence[0]) == ("escalation", f"attempt 1: {denied}")
    assert result.status is RunStatus.STOPPED
    assert calls_of(handle.id) == []


DENY_TAINTED = {"id": "tainted", "match": {"tools": ["pay"]}, "when": "run.tainted", "verdict": "deny"}
DENIED = "refused: rule 'tainted' denies 'pay'"


@pytest.mark.parametrize(("untrusted", "paid"), [(False, 1), (True, 0)])
async def test_what_an_untrusted_probe_tells_the_model_taints(site: Site, untrusted: bool, paid: int) -> None:
    policy = [DENY_TAINTED, *ALLOW_ALL]
    site.write("prober", [lost("Greta"), PAY_13, DONE], policy=policy, tools=tools(PROBE, untrusted=untrusted))

    BOOKED.add("Greta")
    result, run = await site.run("prober")

    assert '{"done":true,"to":"Greta"}' in (await texts_told(site, result.head))[0]
    assert len(calls_of(run, "pay")) == paid


@pytest.mark.parametrize(("untrusted", "paid"), [(False, [12, 13]), (True, [12])])
async def test_what_an_untrusted_check_tells_the_model_taints(site: Site, untrusted: bool, paid: list[int]) -> None:
    turns = [{"call": [{"pay": {"order": 12}}]}, PAY_13, DONE]
    policy = [DENY_TAINTED, *ALLOW_ALL]
    site.write("checked", turns, policy=policy, tools=tools(untrusted=untrusted), checks=[CHECK])

    result, run = await site.run("checked")

    assert "the result is looked at 12" in (await texts_told(site, result.head))[0]
    assert [call.arguments["order"] for call in calls_of(run, "pay")] == paid


@pytest.mark.parametrize(("untrusted", "paid"), [(False, 1), (True, 0)])
async def test_what_an_untrusted_check_of_the_answer_tells_the_model_taints(
    site: Site, untrusted: bool, paid: int
) -> None:
    check = {"after": "final", "tool": "look", "with": {"what": "'all'"}, "expect": "result == 'looked at nothing'"}
    policy = [DENY_TAINTED, *ALLOW_ALL]
    site.write(
        "checked", [DONE, PAY_13, DONE], policy=policy, tools=tools(untrusted=untrusted), checks=[check], attempts=2
    )

    async with site.serving():
        handle = await site.start("checked")
        (request,) = await asked(handle)
        await decide(handle, request, "accept")
        await handle.result()

    assert len(calls_of(handle.id, "pay")) == paid
