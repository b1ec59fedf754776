"""What happens when retries cannot mend it: unknown outcomes, failed checks, attempts that are used up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site, results_told
from tests.support.people import asked, decide, decision, refusal_of, write_people
from tests.support.toolkit import BOOKED, TOOLKIT_CHECKS, calls_of

LOST: list[dict[str, Any]] = [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "done"}]
TOOLS = [
    {"python": f"tests.support.toolkit:{tool}"}
    for tool in ("look", "look_bad", "pay", "send", "hang", "write_note", "find_letter")
]


def probing(**probe: Any) -> list[dict[str, Any]]:
    found = [tool for tool in TOOLS if not tool["python"].endswith(":send")]
    spec = {"tool": "find_letter", "with": {"to": "args.to"}, "patience": "2s", **probe}
    return [*found, {"python": "tests.support.toolkit:send", "probe": spec}]


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def told(site: Site, head: str | None) -> list[str]:
    return [part.text for part in await results_told(site, head or "")]


async def test_an_unknown_outcome_is_asked_of_a_person_and_holds_back_later_effects(site: Site) -> None:
    calls = [*LOST[0]["call"], {"write_note": {"text": "b"}}, {"look": {"what": "c"}}]
    site.write("lost", [{"call": calls}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        before = {call.tool for call in calls_of(handle.id)}
        await decide(handle, request, "happened", value="letter 7")
        result = await handle.result()

    assert (request.kind, request.choices) == ("outcome", ("happened", "not_happened", "stop"))
    assert request.title == "did this happen? send to=ann lose_reply=true"
    assert before == {"send", "look"}
    assert result.status is RunStatus.COMPLETED
    assert result.uncertain == ()
    assert [entry.tool for entry in result.effects.last] == ["send", "write_note"]
    assert result.effects.last[0].reason == "ann@example.com chose happened"
    assert (await told(site, result.head))[0].endswith("letter 7")
    assert len(calls_of(handle.id, "send")) == 1


async def test_what_did_not_happen_is_made_again(site: Site) -> None:
    site.write("lost", [{"call": [{"send": {"to": "bob", "lose_first": True}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        await decide(handle, request, "not_happened")
        result = await handle.result()

    sent = calls_of(handle.id, "send")
    assert result.effects.count == 1
    assert len(sent) == 2
    assert len({call.key for call in sent}) == 2


async def test_nobody_knows_in_time(site: Site) -> None:
    site.write("lost", LOST, people={"expires": "1s"})

    result, run = await site.run("lost")

    assert result.status is RunStatus.DECLINED
    assert [entry.call for entry in result.uncertain] == ["send to=ann lose_reply=true"]
    assert len(calls_of(run, "send")) == 1


async def test_a_person_may_stop_over_it(site: Site) -> None:
    site.write("lost", LOST)

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        await decide(handle, request, "stop", comment="I call them")
        result = await handle.result()

    assert result.status is RunStatus.STOPPED
    assert result.reason == "stopped by ann@example.com: I call them"
    assert len(result.uncertain) == 1


async def test_a_probe_says_that_it_happened(site: Site) -> None:
    site.write("probed", [{"call": [{"send": {"to": "cleo", "lose_reply": True}}]}, {"say": "done"}], tools=probing())

    BOOKED.add("cleo")
    result, run = await site.run("probed")

    assert result.status is RunStatus.COMPLETED
    assert result.effects.last[0].reason == "as find_letter shows"
    assert len(calls_of(run, "send")) == 1
    assert "find_letter shows that it was done" in (await told(site, result.head))[0]


async def test_a_probe_says_that_it_did_not_happen(site: Site) -> None:
    site.write("probed", [{"call": [{"send": {"to": "dora", "lose_first": True}}]}, {"say": "done"}], tools=probing())

    result, run = await site.run("probed")

    assert result.effects.count == 1
    assert len(calls_of(run, "send")) == 2


async def test_a_probe_that_cannot_tell_leaves_it_to_a_person(site: Site) -> None:
    tools = probing(done="result.nothing == 1", not_done="result.nothing == 2", patience="1s")
    site.write("probed", LOST, tools=tools)

    async with site.serving():
        handle = await site.start("probed")
        (request,) = await asked(handle)
        await decide(handle, request, "happened")
        result = await handle.result()

    assert request.kind == "outcome"
    assert result.effects.count == 1


async def test_the_third_failure_of_a_tool_goes_to_a_person(site: Site) -> None:
    calls = [{"call": [{"look_bad": {"shelf": n}}, {"look": {"what": "x"}}]} for n in range(3)]
    site.write("bad", [*calls, {"say": "done"}])

    async with site.serving():
        handle = await site.start("bad", "Find the kettle.")
        (request,) = await asked(handle)
        await decide(handle, request, "retry", value="Look at the other shelf.")
        result = await handle.result()
        messages = await conversation(site, result.head or "")

    assert request.kind == "escalation"
    assert request.choices == ("retry", "supply", "stop")
    assert request.title == "'look_bad' failed 3 times"
    assert request.goal == "Find the kettle."
    assert len([line for line in request.evidence if line.startswith("attempt ")]) == 3
    assert result.status is RunStatus.COMPLETED
    texts = [part.text for message in messages if message.role == "user" for part in message.parts]
    assert "[ann@example.com says] Try again. Look at the other shelf." in texts


async def test_a_result_can_be_supplied(site: Site) -> None:
    calls = [{"call": [{"look_bad": {"shelf": n}}, {"look": {"what": "x"}}]} for n in range(3)]
    site.write("bad", [*calls, {"say": "done"}])

    async with site.serving():
        handle = await site.start("bad")
        (request,) = await asked(handle)
        empty = await refusal_of(handle, "decide", decision(request, "supply"))
        await decide(handle, request, "supply", value="it is in the cellar")
        result = await handle.result()

    assert empty == "value: is empty; with 'supply' it is the result, as a text"
    assert "it is in the cellar" in (await told(site, result.head))[-2]


async def test_the_same_call_that_failed_for_good_is_not_made_again(site: Site) -> None:
    turns = [{"call": [{"send": {"to": "ann", "refuse": True}}, {"look": {"what": "x"}}]}] * 2
    site.write("again", [*turns, {"say": "done"}])

    result, run = await site.run("again")

    assert len(calls_of(run, "send")) == 1
    again = (await told(site, result.head))[2]
    assert again.startswith("[attempt 2 of 3 of 'send' failed]\nnot made again: the same call failed before (")
    assert result.status is RunStatus.COMPLETED


async def test_turns_without_a_success_count_whichever_their_tools(site: Site) -> None:
    turns = [{"call": [{"look_bad": {"shelf": 1}}]}, {"call": [{"no_tool": {}}]}, {"call": [{"send": {}}]}]
    site.write("lame", [*turns, {"say": "done"}], people={"expires": "1s"})

    result, _ = await site.run("lame")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith("3 turns in a row had no call that worked; nobody decided before ")


async def test_a_loop_is_told_to_the_model_once_and_then_to_a_person(site: Site) -> None:
    site.write("loop", [{"repeat": 6, "call": [{"look": {"what": "x"}}]}, {"say": "done"}], same_call=3)

    async with site.serving():
        handle = await site.start("loop")
        (request,) = await asked(handle)
        await decide(handle, request, "accept")
        result = await handle.result()

    texts = await told(site, result.head)
    assert [n for n, text in enumerate(texts, 1) if "with the same result; do something else" in text] == [3]
    assert request.title == "the agent makes the same call again and again, with the same result"
    said = [part.text for m in await conversation(site, result.head or "") if m.role == "user" for part in m.parts]
    assert "[ann@example.com says] I accept it as it is; go on." in said
    assert result.status is RunStatus.COMPLETED


async def test_a_model_that_gives_no_answer_is_for_a_person(site: Site) -> None:
    site.write("dead", [{"fail": [{"status": 401}], "say": "never"}])

    async with site.serving():
        handle = await site.start("dead")
        (request,) = await asked(handle)
        await decide(handle, request, "retry")
        async with asyncio.timeout(30):
            while (again := (await asked(handle))[0]).id == "r1":
                await asyncio.sleep(0.05)
        await decide(handle, again, "stop")
        result = await handle.result()

    assert request.choices == again.choices == ("retry", "supply", "stop")
    assert request.title.startswith("scripted:dead.script.yaml gave no answer: ")
    assert result.status is RunStatus.STOPPED


async def test_an_answer_can_be_supplied_when_no_model_gives_one(site: Site) -> None:
    site.write("dead", [{"fail": [{"status": 401}] * 9, "say": "never"}])

    async with site.serving():
        handle = await site.start("dead")
        (request,) = await asked(handle)
        await decide(handle, request, "supply", value="42")
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "42")
    assert result.reason == "its answer is a person's: ann@example.com chose supply"


async def test_a_failed_check_of_an_effect_is_no_reason_to_repeat_it(site: Site) -> None:
    checks = [{"after": "pay", "expect": "result.paid > 5.0"}]
    turns = [
        {"call": [{"pay": {"order": 1, "amount": 2}}]},
        {"call": [{"pay": {"order": 1, "amount": 2}}]},
        {"say": "x"},
    ]
    site.write("checked", turns, checks=checks)

    result, run = await site.run("checked")

    texts = await told(site, result.head)
    assert "it was done, but check 'pay_expect_1' failed" in texts[0]
    assert "do not make this call again" in texts[0]
    assert texts[1].startswith("[attempt 2 of 3 of 'pay' failed]\nnot made again: ")
    assert len(calls_of(run, "pay")) == 1
    assert result.effects.count == 1


async def test_checks_that_pass_or_do_not_apply_cost_nothing_but_time(site: Site) -> None:
    checks = [
        {"after": "pay", "python": "tests.support.toolkit:is_paid"},
        {"after": "pay", "expect": "false", "when": "args.amount > 100.0"},
        {"after": "pay", "tool": "look", "with": {"what": "string(args.order)"}, "expect": "result == 'looked at 1'"},
        {"after": "final", "schema": {"type": "object", "required": ["sum"]}},
    ]
    turns = [{"call": [{"pay": {"order": 1, "amount": 2}}]}, {"say": "no json"}, {"say": '{"sum": 1}'}]
    site.write("checked", turns, checks=checks)
    before = len(TOOLKIT_CHECKS)

    result, run = await site.run("checked")

    assert TOOLKIT_CHECKS[before:] == ["is_paid"]
    assert [call.tool for call in calls_of(run)] == ["pay", "look"]
    assert (result.status, result.output) == (RunStatus.COMPLETED, '{"sum": 1}')


async def test_an_answer_that_never_passes_goes_to_a_person(site: Site) -> None:
    checks = [{"after": "final", "schema": {"type": "object"}}]
    site.write("checked", [{"repeat": 3, "say": "no json"}], checks=checks)

    async with site.serving():
        handle = await site.start("checked")
        (request,) = await asked(handle)
        await decide(handle, request, "accept", comment="fine")
        result = await handle.result()

    assert request.title == "the final answer could not be taken 3 times"
    assert (result.status, result.output) == (RunStatus.COMPLETED, "no json")
    assert result.reason == "as it is: ann@example.com chose accept (fine)"


async def test_the_next_model_tries_after_a_failed_check(site: Site) -> None:
    site.write("second", [{"say": "{}"}, {"say": "{}"}])
    models = ["scripted:first.script.yaml", "scripted:second.script.yaml"]
    checks = [{"after": "final", "schema": {"type": "object"}}]
    site.write("first", [{"repeat": 5, "say": "no json"}], models=models, checks=checks, after_failure="next_model")

    result, _ = await site.run("first")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "{}")
