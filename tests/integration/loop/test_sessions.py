"""Sessions: messages that are each answered once and in order, whatever ends meanwhile."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError

from mandate.workers.client.messages import NoAnswer, Refused
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.contracts.session import Reply
from tests.support.agents import REQUESTER, Site, continued, new_site, part_of
from tests.support.fake_provider.behaviours import Answer, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import asked, decide, refusal_of, write_people

_SAID = re.compile(r"\[(\S+) says\] ([^\"\\]+)")


async def play(request: Request) -> Answer:
    """A model that repeats all that it was told by people, in order; the one called `pays` pays first for each."""
    messages = request.json["messages"]
    told = _SAID.findall(request.body.decode())
    number = sum(message["role"] == "tool" for message in messages)
    if request.json["model"] == "pays" and number < len(told):
        return Answer(calls=(Call("pay", json.dumps({"order": number}), id=f"c{number}"),), reasoning=False)
    if request.json["model"] == "slow" and not number and len(messages) == 2:
        return Answer(calls=(Call("look", '{"what": "x"}', id="c0"),), delay=1.0, reasoning=False)
    return Answer(text=" | ".join(f"{by}: {text}" for by, text in told), reasoning=False)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=play) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    environment = {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
    made = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)), **environment)
    made.write("chatty", [], models=["vllm:echo"], requester="anyone")
    made.write("slow", [], models=["vllm:slow"], requester="anyone")
    made.write("payer", [], models=["vllm:pays"], policy=RULES, requester="anyone")
    return made


RULES: list[dict[str, Any]] = [
    {
        "id": "for-bob",
        "match": {"tools": ["pay"]},
        "when": 'run.speaker == "bob@example.com"',
        "verdict": "ask",
        "approvers": {"groups": ["finance"]},
    },
    {"id": "all", "match": {}, "verdict": "allow"},
]


async def say(
    site: Site, session: str, text: str, by: str = REQUESTER, *, agent: str = "chatty", **options: Any
) -> Reply:
    return await site.agents.say(session, agent, text, by=by, **options)


async def test_each_message_has_its_answer_and_the_session_ends_when_idle(site: Site) -> None:
    async with site.serving():
        first = await say(site, f"{site.queue}-a", "Hello.", idle="2s", message_id="m1")
        second = await say(site, f"{site.queue}-a", "And now?", by="bob", message_id="m2")
        result = await site.agents.handle(f"{site.queue}-a").result()

    assert first == Reply(id="m1", status="completed", text=f"{REQUESTER}: Hello.", step=1)
    assert (second.text, second.step) == (f"{REQUESTER}: Hello. | bob: And now?", 2)
    assert (result.status, result.output) == (RunStatus.COMPLETED, second.text)


async def test_message_after_the_idle_end_goes_on_with_the_conversation(site: Site) -> None:
    session = f"{site.queue}-b"
    async with site.serving():
        await say(site, session, "One.", idle="1s", message_id="m1")
        await site.agents.handle(session).result()
        again = await say(site, session, "One.", idle="1s", message_id="m1")
        await site.agents.handle(session).result()
        other = await say(site, session, "Two.", idle="1s", message_id="m2")

    assert again == Reply(id="m1", status="completed", text=f"{REQUESTER}: One.", step=1)
    assert (other.text, other.step) == (f"{REQUESTER}: One. | {REQUESTER}: Two.", 2)


async def test_messages_sent_many_times_around_the_idle_end_are_told_once_and_in_order(site: Site) -> None:
    session = f"{site.queue}-c"
    async with site.serving():
        for number in range(6):
            replies = await asyncio.gather(
                *(say(site, session, f"Number {number}.", idle="200ms", message_id=f"m{number}") for _ in range(5))
            )
            told = " | ".join(f"{REQUESTER}: Number {before}." for before in range(number + 1))
            assert {reply.text for reply in replies} == {told}
            await asyncio.sleep(0.1 + 0.04 * number)


async def test_message_while_the_agent_works_is_told_at_its_next_step_or_waits_for_its_turn(site: Site) -> None:
    session = f"{site.queue}-d"
    async with site.serving():
        first = asyncio.create_task(say(site, session, "One.", agent="slow", idle="1s", message_id="m1"))
        await asyncio.sleep(0.5)
        now = asyncio.create_task(say(site, session, "Two.", agent="slow", when="now", message_id="m2"))
        await asyncio.sleep(0.2)
        later = await say(site, session, "Three.", agent="slow", message_id="m3")

    both = f"{REQUESTER}: One. | {REQUESTER}: Two."
    assert [(await reply).text for reply in (first, now)] == [both, both]
    assert later.text == f"{both} | {REQUESTER}: Three."


async def test_words_of_strangers_taint_the_session_once_the_model_is_told_them(site: Site) -> None:
    session = f"{site.queue}-t"
    handle = site.client.get_workflow_handle(session)
    seen = []
    async with site.serving():
        for number, is_tainted in enumerate((False, True, False)):
            await say(site, session, "Hello.", tainted=is_tainted, message_id=f"m{number}")
            seen.append(bool((await handle.query("state")).get("tainted")))

    assert seen == [False, True, True]


async def test_rules_see_who_speaks_who_decides_on_nothing(site: Site) -> None:
    session = f"{site.queue}-e"
    async with site.serving():
        first = await say(site, session, "Pay.", agent="payer", message_id="m1")
        waiting = await say(site, session, "Pay again.", "bob@example.com", agent="payer", message_id="m2")
        handle = site.agents.handle(session)
        (request,) = await asked(handle)
        refused = await refusal_of(handle, "decide", {**_decision(request), "by": "bob@example.com"})
        await decide(handle, request, by="ann@example.com")
        paid = await say(site, session, "Pay again.", "bob@example.com", agent="payer", message_id="m2", until="answer")
        last = await say(site, session, "And once more.", agent="payer", message_id="m3")

    assert (first.status, first.waiting_for) == ("completed", ())
    assert (waiting.status, waiting.waiting_for, waiting.text) == ("waiting", ("finance",), None)
    assert refused == "by: 'bob@example.com' spoke last in this session and cannot decide on what it asks"
    assert (paid.status, paid.text) == ("completed", f"{REQUESTER}: Pay. | bob@example.com: Pay again.")
    assert last.status == "completed"


def _decision(request: Any) -> dict[str, Any]:
    return {"request": request.id, "digest": request.digest, "choice": "approve"}


async def test_budget_is_that_of_the_session_which_can_still_be_read(site: Site) -> None:
    site.write("poor", [], models=["vllm:echo"], requester="anyone", budget={"model_calls": 2})
    session = f"{site.queue}-f"
    async with site.serving():
        replies = [
            await say(site, session, f"Number {number}.", agent="poor", idle="1s", message_id=f"m{number}")
            for number in range(4)
        ]
        again = await say(site, session, "Number 0.", agent="poor", message_id="m0")
        result = await site.agents.handle(session).result()
        beyond = await say(site, session, "Number 9.", agent="poor", message_id="m9")

    assert [reply.status for reply in replies] == ["completed", "exhausted", "exhausted", "exhausted"]
    assert replies[1].text == f"{REQUESTER}: Number 0. | {REQUESTER}: Number 1."
    assert (replies[2].text, replies[2].reason) == (None, "the limit of 2 model calls is used up")
    assert again == replies[0]
    assert result.usage.model_calls == 2
    assert (beyond.status, beyond.reason) == ("exhausted", "the limit of 2 model calls is used up")


async def test_stopped_session_ends_and_the_next_message_goes_on_with_it(site: Site) -> None:
    session = f"{site.queue}-g"
    async with site.serving():
        await say(site, session, "One.")
        await site.agents.stop(session, by="ann@example.com", reason="enough")
        result = await site.agents.handle(session).result()
        more = await say(site, session, "Two.", idle="1s")

    assert (result.status, result.output) == (RunStatus.STOPPED, None)
    assert more.text == f"{REQUESTER}: One. | {REQUESTER}: Two."


@pytest.mark.parametrize("ending", ["terminate", "cancel", "stop"])
async def test_session_that_is_ended_amid_a_turn_goes_on_with_all_that_was_done(site: Site, ending: str) -> None:
    """The answers to its calls are known, what waited for people is not made, and its message is answered."""
    session, bob = f"{site.queue}-{ending}", "bob@example.com"
    async with site.serving():
        await say(site, session, "Pay.", agent="payer", message_id="m1")
        await say(site, session, "Pay again.", bob, agent="payer", message_id="m2")
        handle = site.agents.handle(session)
        match ending:
            case "terminate":
                await handle.terminate()
            case "cancel":
                await handle.cancel()
            case _:
                await site.agents.stop(session, by="ann@example.com")
        with suppress(WorkflowFailureError):
            await handle.result()
        again = await say(site, session, "Pay again.", bob, agent="payer", message_id="m2", idle="1s")
        more = await say(site, session, "Anything else?", agent="payer", message_id="m3", idle="1s")
        result = await handle.result()

    both = f"{REQUESTER}: Pay. | {bob}: Pay again."
    assert (again.status, again.text) == (("stopped", None) if ending == "stop" else ("completed", both))
    assert (more.status, more.text) == ("completed", f"{both} | {REQUESTER}: Anything else?")
    assert result.effects.count == 2


async def test_first_message_of_a_run_that_was_terminated_is_answered_by_the_next(site: Site) -> None:
    session = f"{site.queue}-m"
    async with site.serving():
        lost = asyncio.create_task(say(site, session, "One.", agent="slow", message_id="m1"))
        await asyncio.sleep(0.5)
        await site.agents.handle(session).terminate()
        reply = await lost

    assert (reply.status, reply.text) == ("completed", f"{REQUESTER}: One.")


async def test_session_continues_as_new_while_it_waits(site: Site) -> None:
    session = f"{site.queue}-h"
    async with site.serving():
        first = await say(site, session, "One.", message_id="m1")
        handle = site.agents.handle(session)
        before = await part_of(handle)
        await continued(handle)
        again = await say(site, session, "One.", message_id="m1")
        second = await say(site, session, "Two.", message_id="m2")
        after = await part_of(handle)
        await site.agents.stop(session, by="ann@example.com")

    assert before != after
    assert again == first
    assert (second.text, second.step) == (f"{REQUESTER}: One. | {REQUESTER}: Two.", 2)


async def test_whoever_speaks_where_no_worker_is_learns_that_in_time(site: Site) -> None:
    session = f"{site.queue}-m"
    with pytest.raises(NoAnswer) as silent:
        await say(site, session, "One.", patience_seconds=1)
    await site.agents.handle(session).terminate()

    assert str(silent.value) == (
        f"session {session!r} did not take the message within 1 s (no worker polls task queue {site.queue!r}); it may "
        "still be taken in, and sending it again with its id is safe"
    )


async def test_what_is_no_message_to_a_session_is_refused(site: Site) -> None:
    session = f"{site.queue}-i"
    async with site.serving():
        await say(site, session, "One.", idle="1s")
        await site.agents.handle(session).result()
        with pytest.raises(Refused) as other:
            await say(site, session, "Two.", agent="slow")
        with pytest.raises(Refused) as unknown:
            await say(site, f"{site.queue}-j", "One.", agent="nobody")
        run = await site.start("slow", "Begin.")
        over = await site.start("slow", "Begin.")
        await over.terminate()
        with pytest.raises(Refused) as ended:
            await say(site, over.id, "Two.", agent="slow")
        with pytest.raises(Refused) as none:
            await say(site, run.id, "Two.", agent="slow")
        for fault, value in {
            "text": " ",
            "by": " bob",
            "message_id": "with space",
            "idle": "0s",
            "when": "soon",
        }.items():
            given = {"text": "One.", "by": REQUESTER, fault: value}
            with pytest.raises(ValueError, match=r"^(text|by|id|when|requester|session\.idle): "):
                await site.agents.say(f"{site.queue}-k", "chatty", **given)

    assert str(other.value) == f"the session {session!r} is one of the agent 'chatty', not of 'slow'"
    assert str(unknown.value).startswith("agent: 'nobody' is not an agent of these workers; they have: ")
    assert str(ended.value).endswith(" is a run that has ended and was no session; give the session an id of its own")
    assert str(none.value) == "this run is no session; tell it something with steer"
