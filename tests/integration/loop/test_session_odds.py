"""Sessions and forks at odd moments: runs ended again and again, at each stage, in crowds, under other agent files."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.contracts.session import Reply
from tests.support import toolkit
from tests.support.agents import REQUESTER, Site, conversation, new_site, texts_told
from tests.support.fake_provider.behaviours import NAMED, Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.people import asked, send_update, write_people

LET_GO = set[str]()
"""Messages with `held` that the model may answer."""

_SAID = re.compile(r"\[\S+ says\] ([^\"\\\]]+)")
_ORDER = re.compile(r"pay (\d+)")


async def play(request: Request) -> Behaviour:
    """A model that pays each order that it was told of last, once; then it repeats all that it was told.

    `slow` makes it think before that, `held` until the test lets it go on; `fail` is what it cannot answer, and `quiet`
    is not repeated.
    """
    messages = request.json["messages"]
    told = [text for message in messages if message["role"] == "user" for text in _SAID.findall(json.dumps(message))]
    last = max((place for place, message in enumerate(messages) if _SAID.search(json.dumps(message))), default=0)
    orders = _ORDER.findall(told[-1]) if told else []
    paid = [
        str(json.loads(call["function"]["arguments"]).get("order"))
        for message in messages[last:]
        for call in message.get("tool_calls") or ()
    ]
    number = sum(message["role"] == "tool" for message in messages)
    for order in orders:
        if order not in paid:
            return Answer(calls=(Call("pay", json.dumps({"order": int(order)}), id=f"c{number}"),), reasoning=False)
    if told and "fail" in told[-1]:
        return NAMED["bad-request"]
    while told and "held" in told[-1] and told[-1] not in LET_GO:
        await asyncio.sleep(0.02)
    if told and told[-1].startswith("quiet"):
        return Answer(text="noted", reasoning=False)
    return Answer(text=" | ".join(told), reasoning=False, delay=1.5 if told and "slow" in told[-1] else 0.0)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=play) as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    made = new_site(tmp_path, client, VLLM_BASE_URL=f"{fake.url}/v1", VLLM_API_KEY="none")
    made.write("clerk", [], models=["vllm:clerk"], requester="anyone")
    return made


async def say(site: Site, session: str, text: str, message_id: str, **options: Any) -> Reply:
    return await site.agents.say(
        session, "clerk", text, by=REQUESTER, message_id=message_id, **{"idle": "1s", **options}
    )


async def end_of(site: Site, session: str) -> RunResult:
    result: RunResult = await site.agents.handle(session).result()
    return result


async def until_asked(fake: FakeProvider, count: int) -> None:
    """Wait until the model has been asked so often."""
    async with asyncio.timeout(20):
        while len(fake.requests) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("ending", ["terminate", "cancel"])
async def test_message_that_is_being_told_as_the_run_is_ended_is_told_again(
    site: Site, fake: FakeProvider, ending: str
) -> None:
    session = f"{site.queue}-a"
    async with site.serving():
        await say(site, session, "One.", "m1", idle="30s")
        lost = asyncio.create_task(say(site, session, "Two, slow.", "m2"))
        await until_asked(fake, 2)
        handle = site.agents.handle(session)
        await (handle.terminate() if ending == "terminate" else handle.cancel())
        reply = await lost

    assert (reply.status, reply.text) == ("completed", "One. | Two, slow.")


async def test_session_that_is_ended_again_before_its_next_step_knows_what_was_done(
    site: Site, fake: FakeProvider
) -> None:
    session = f"{site.queue}-b"
    async with site.serving():
        reply = asyncio.create_task(say(site, session, "Now pay 1, slow.", "m1"))
        for requests in (2, 3, 4):
            await until_asked(fake, requests)
            await site.agents.handle(session).terminate()
        answered = await reply
        told = await texts_told(site, (await end_of(site, session)).head or "")

    assert answered.status == "completed"
    assert [json.loads(text)["order"] for text in told] == [1]
    assert len(toolkit.calls_of(session, "pay")) == 1


async def test_call_that_may_have_been_made_is_kept_in_mind_over_the_idle_end(site: Site) -> None:
    session = f"{site.queue}-c"
    async with site.serving():
        with toolkit.held("pay"):
            lost = asyncio.create_task(say(site, session, "Now pay 1.", "m1"))
            async with asyncio.timeout(20):
                while not toolkit.calls_of(session, "pay"):
                    await asyncio.sleep(0.02)
            await site.agents.handle(session).terminate()
        await lost
        await end_of(site, session)
        await say(site, session, "Hello.", "m2")
        await end_of(site, session)
        await say(site, session, "Again: pay 1.", "m3")
        told = await texts_told(site, (await end_of(site, session)).head or "")

    assert [text[:9] for text in told] == ["not known", "not made:"]
    assert len(toolkit.calls_of(session, "pay")) == 1


async def test_results_of_a_turn_without_an_answer_are_told_with_the_next_message(site: Site) -> None:
    session = f"{site.queue}-d"
    async with site.serving():
        failed = await say(site, session, "Now pay 1, and fail.", "m1", idle="30s", until="answer")
        reply = await say(site, session, "Two.", "m2", idle="30s")
        await say(site, session, "Now pay 2, and fail.", "m3", until="answer")
        await site.agents.stop(session, by=REQUESTER)
        await end_of(site, session)
        after = await say(site, session, "Four.", "m4")
        told = await texts_told(site, (await end_of(site, session)).head or "")

    assert (failed.status, reply.status, reply.text) == ("declined", "completed", "Now pay 1, and fail. | Two.")
    assert after.status == "completed"
    assert [json.loads(text)["order"] for text in told] == [1, 2]


async def test_time_after_a_run_was_ended_is_no_work(site: Site, fake: FakeProvider) -> None:
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", budget={"work_time": "10s"})
    session = f"{site.queue}-e"
    async with site.serving():
        await say(site, session, "One.", "m1", idle="30s")
        handle = site.agents.handle(session)
        await handle.signal("say", {"text": "Two, slow.", "by": REQUESTER, "id": "m2"})
        await until_asked(fake, 2)
        await handle.terminate()
        await asyncio.sleep(10.5)
        reply = await say(site, session, "Three.", "m3")

    assert (reply.status, reply.text) == ("completed", "One. | Two, slow. | Three.")


async def test_run_that_kept_calls_in_mind_hands_them_on(site: Site) -> None:
    async with site.serving():
        first = await site.start("clerk", "[eve says] Now pay 1 pay 2.", workflow_id=f"{site.queue}-f1")
        await first.result()
        second = await site.start("clerk", "[eve says] Hello.", continues={"run": first.id, "step": 1})
        await second.result()
        third = await site.start("clerk", "[eve says] Now pay 2.", continues={"run": second.id})
        result = await third.result()
        told = await texts_told(site, result.head or "")

    assert result.effects.count == 0
    assert told[-1].startswith(f"not made again: the run {first.id} made this call at its step 2, and it is done")


async def test_fork_at_a_step_whose_results_were_told_as_the_session_went_on_has_them(
    site: Site, fake: FakeProvider
) -> None:
    session = f"{site.queue}-g"
    async with site.serving():
        reply = asyncio.create_task(say(site, session, "Now pay 1, slow.", "m1"))
        await until_asked(fake, 2)
        await site.agents.handle(session).terminate()
        await reply
        await end_of(site, session)
        fork = await site.start("clerk", "[eve says] Hello.", continues={"run": session, "step": 1})
        told = await texts_told(site, (await fork.result()).head or "")

    assert [json.loads(text)["order"] for text in told] == [1]


async def test_hundred_messages_wait_are_told_in_order_and_one_more_is_not(site: Site) -> None:
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", budget={"steps": 200, "model_calls": 200})
    session = f"{site.queue}-h"
    async with site.serving():
        first = asyncio.create_task(say(site, session, "Begin, held.", "m", idle="3s"))
        await asyncio.sleep(0.7)
        handle = site.agents.handle(session)
        for number in range(101):
            await handle.signal("say", {"text": f"n{number}.", "by": REQUESTER, "id": f"n{number}"})
        again = asyncio.create_task(say(site, session, "n50.", "n50"))
        LET_GO.add("Begin, held.")
        await first
        last = await say(site, session, "n99.", "n99")
        beyond = await say(site, session, "End.", "e")

    told = ["Begin, held.", *(f"n{number}." for number in range(100))]
    assert last.text == " | ".join(told)
    assert (await again).status == "completed"
    assert beyond.text == " | ".join([*told, "End."])


async def test_two_starts_at_once_are_one_session(site: Site) -> None:
    session = f"{site.queue}-i"
    async with site.serving():
        replies = await asyncio.gather(*(say(site, session, f"n{number}.", f"n{number}") for number in range(6)))

    texts = sorted((reply.text or "" for reply in replies), key=len)
    assert sorted(texts[-1].split(" | ")) == [f"n{number}." for number in range(6)]
    assert all(texts[-1].startswith(text) for text in texts)


async def test_session_goes_on_under_another_agent_file(site: Site) -> None:
    session = f"{site.queue}-j"
    async with site.serving():
        await say(site, session, "Now pay 1.", "m1")
        await end_of(site, session)
    tools = [{"python": "tests.support.toolkit:look"}]
    site.write("clerk", [], models=["vllm:other"], requester="anyone", tools=tools)
    async with site.serving():
        reply = await say(site, session, "Two.", "m2")
        again = await say(site, session, "Now pay 1.", "m1")

    assert (reply.status, reply.text, again.text) == ("completed", "Now pay 1. | Two.", "Now pay 1.")


async def test_crowds_while_the_session_continues_as_new(site: Site) -> None:
    session = f"{site.queue}-k"
    async with site.serving():
        await say(site, session, "Begin.", "b", idle="20s")
        handle = site.agents.handle(session)
        before = (await handle.describe()).run_id

        async def fill() -> None:
            while (await handle.describe()).run_id == before:
                await asyncio.gather(
                    *(handle.signal("decide", {"request": "r99", "choice": "approve"}) for _ in range(20))
                )

        filling = asyncio.create_task(fill())
        for number in range(12):
            replies = await asyncio.gather(*(say(site, session, f"n{number}.", f"n{number}") for _ in range(3)))
            assert len({reply.model_dump_json() for reply in replies}) == 1
        await filling
        last = await say(site, session, "End.", "e")

    assert last.text == " | ".join(["Begin.", *(f"n{number}." for number in range(12)), "End."])


async def test_cancel_at_the_very_beginning_loses_no_message(site: Site) -> None:
    session = f"{site.queue}-l"
    saying = asyncio.create_task(say(site, session, "One.", "m1"))
    await asyncio.sleep(0.5)
    with suppress(Exception):
        await site.agents.handle(session).cancel()
    async with site.serving():
        reply = await saying

    assert (reply.status, reply.text) == ("completed", "One.")


async def test_fork_of_a_run_that_waits_for_people_makes_nothing_and_leaves_it_alone(
    site: Site, tmp_path: Path
) -> None:
    site.environment["MANDATE_PEOPLE"] = str(write_people(tmp_path))
    rules = [{"id": "p", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}}]
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", policy=rules)
    async with site.serving():
        first = await site.start("clerk", "[eve says] Now pay 1.")
        (request,) = await asked(first)
        fork = await site.start("clerk", "[eve says] Hello.", continues={"run": first.id})
        forked = await fork.result()
        told = await texts_told(site, forked.head or "")
        still = await asked(first)
        await site.agents.stop(first.id, by="ann@example.com")
        with suppress(WorkflowFailureError):
            await first.result()

    assert told == ["not made: the run that this one goes on from ended before people had approved it"]
    assert (forked.status, [one.id for one in still]) == (RunStatus.COMPLETED, [request.id])


async def test_pause_and_steer_in_a_session(site: Site) -> None:
    session = f"{site.queue}-n"
    async with site.serving():
        await say(site, session, "One.", "m1", idle="20s")
        handle = site.agents.handle(session)
        await send_update(handle, "pause", {"by": REQUESTER})
        waiting = asyncio.create_task(say(site, session, "Two.", "m2"))
        await asyncio.sleep(0.7)
        was_held = not waiting.done()
        await send_update(handle, "resume", {"by": REQUESTER})
        reply = await waiting
        await send_update(handle, "steer", {"by": REQUESTER, "text": "Three."})
        await asyncio.sleep(1.0)
        last = await say(site, session, "Four.", "m4")

    assert was_held
    assert reply.text == "One. | Two."
    assert last.text == "One. | Two. | Three. | Four."


async def test_end_from_outside_is_told_once_however_often_it_came(site: Site, fake: FakeProvider) -> None:
    session = f"{site.queue}-o"
    async with site.serving():
        await say(site, session, "One, slow.", "m0")
        reply = asyncio.create_task(say(site, session, "Two, slow.", "m1"))
        for requests in (2, 3):
            await until_asked(fake, requests)
            await site.agents.handle(session).terminate()
        await reply
        messages = await conversation(site, (await end_of(site, session)).head or "")

    texts = [part.text for one in messages if one.role == "user" for part in one.parts if part.kind == "text"]
    assert sum("was ended from outside" in text for text in texts) == 1
    assert sum("says] Two" in text for text in texts) == 1


UNDOES: list[dict[str, Any]] = [
    {
        "python": "tests.support.toolkit:pay",
        "compensate": {"tool": "give_back", "with": {"order": "args.order", "paid": "result.paid", "key": "key"}},
    },
    {"python": "tests.support.toolkit:give_back"},
]


async def test_what_a_stopped_run_took_back_counts_as_not_made(site: Site, fake: FakeProvider) -> None:
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", tools=UNDOES)
    session = f"{site.queue}-p"
    async with site.serving():
        lost = asyncio.create_task(say(site, session, "Now pay 1 pay 2, slow.", "m1"))
        await until_asked(fake, 3)
        await site.agents.stop(session, by=REQUESTER)
        stopped = await lost
        await end_of(site, session)
        fork = await site.start("clerk", "[eve says] Now pay 2.", continues={"run": session, "step": 1})
        forked = await fork.result()
        more = await say(site, session, "Hello.", "m2")
        again = await say(site, session, "Now pay 2.", "m3")
        told = await texts_told(site, (await end_of(site, session)).head or "")

    assert stopped.status == "stopped"
    assert (forked.status, forked.effects.count) == (RunStatus.COMPLETED, 1)
    assert (more.status, again.status) == ("completed", "completed")
    assert [text.startswith("{") for text in told] == [True, True, False, False, True]
    assert len(toolkit.calls_of(session, "pay")) == 3


async def test_limit_of_time_is_that_of_the_session(site: Site) -> None:
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", budget={"wall_time": "4s"})
    session = f"{site.queue}-q"
    async with site.serving():
        first = await say(site, session, "One.", "m1")
        await end_of(site, session)
        await asyncio.sleep(3.0)
        beyond = await say(site, session, "Two.", "m2")
        again = await say(site, session, "One.", "m1")

    assert (first.status, beyond.status, again) == ("completed", "exhausted", first)
    assert beyond.reason == "the limit of 4s since the start is used up"


async def test_answers_are_objects_once_the_agent_file_says_so(site: Site, fake: FakeProvider) -> None:
    session = f"{site.queue}-r"
    async with site.serving():
        await say(site, session, "One.", "m1")
        await end_of(site, session)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", output_schema=schema)
    async with site.serving():
        fake.will(Answer(text='{"n": 2}', reasoning=False))
        reply = await say(site, session, "Two.", "m2")
        again = await say(site, session, "One.", "m1")

    assert (reply.status, reply.text, reply.output, again.text) == ("completed", None, {"n": 2}, "One.")


async def test_sensitive_arguments_stay_hidden_when_a_session_goes_on(site: Site, fake: FakeProvider) -> None:
    tools = [{"python": "tests.support.card_tools:charge"}]
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", tools=tools)
    session, card = f"{site.queue}-s", "4111222233334444"
    charge = Answer(calls=(Call("charge", json.dumps({"card": card, "amount": 5}), id="c0"),), reasoning=False)
    async with site.serving():
        fake.will(charge, Answer(text="late", delay=3.0, reasoning=False))
        lost = asyncio.create_task(say(site, session, "Charge it.", "m1"))
        await until_asked(fake, 2)
        await site.agents.handle(session).terminate()
        reply = await lost
        await end_of(site, session)
        fake.will(charge, Answer(text="done", reasoning=False))
        fork = await site.start("clerk", "[eve says] Hello.", continues={"run": session, "step": 1})
        forked = await fork.result()
        messages = await conversation(site, forked.head or "")
        record = await site.agents.handle(session).query("state")

    texts = [part.text for one in messages if one.role == "user" for part in one.parts if part.kind == "text"]
    assert (reply.status, forked.status) == ("completed", RunStatus.COMPLETED)
    assert not any(card in text for text in texts)
    assert card not in json.dumps(record)


@pytest.mark.parametrize(
    ("continues", "says"),
    [
        ({"run_id": "no uuid"}, "there is no run"),
        ({"run_id": "01a22b9b-a2ba-7777-bac8-c3790eca694c"}, "there is no run"),
        ({"step": 10**30}, "has taken 1 step so far"),
        ({"run": "x\ud800"}, "continues.run: "),
        ({"run": "\x00"}, "continues.run: "),
    ],
)
async def test_odd_place_to_go_on_from_is_refused(site: Site, continues: dict[str, Any], says: str) -> None:
    async with site.serving(), asyncio.timeout(30):
        first = await site.start("clerk", "[eve says] One.")
        await first.result()
        with pytest.raises((WorkflowFailureError, ValueError)) as refused:
            await (await site.start("clerk", "[eve says] Two.", continues={"run": first.id, **continues})).result()

    error = refused.value.cause if isinstance(refused.value, WorkflowFailureError) else refused.value
    assert says in str(error)


async def test_fork_of_a_fork_of_a_fork_counts_its_own_steps(site: Site) -> None:
    async with site.serving():
        run, effects = await site.start("clerk", "[eve says] Now pay 1."), list[int]()
        await run.result()
        for order in (2, 3, 4):
            run = await site.start("clerk", f"[eve says] Now pay {order}.", continues={"run": run.id, "step": 2})
            effects.append((await run.result()).effects.count)
        told = await texts_told(site, (await run.result()).head or "")

    assert effects == [1, 1, 1]
    assert [json.loads(text)["order"] for text in told] == [1, 2, 3, 4]


async def test_call_that_nobody_knows_of_is_told_so_after_its_run_ended(site: Site, fake: FakeProvider) -> None:
    session = f"{site.queue}-t"
    send = Answer(calls=(Call("send", '{"to": "ann", "lose_reply": true}', id="c0"),), reasoning=False)
    async with site.serving():
        fake.will(send)
        declined = await say(site, session, "Send.", "m1", until="answer")
        with suppress(WorkflowFailureError):
            await end_of(site, session)
        fake.will(replace_id(send, "c1"), Answer(text="asked again", reasoning=False))
        reply = await say(site, session, "Send it now.", "m2", until="answer")
        told = await texts_told(site, (await end_of(site, session)).head or "")

    assert (declined.status, reply.status) == ("declined", "completed")
    assert told[1].startswith("not made: the run")
    assert len(toolkit.calls_of(session, "send")) == 1


def replace_id(answer: Answer, call_id: str) -> Answer:
    (call,) = answer.calls
    return Answer(calls=(Call(call.name, call.arguments, id=call_id),), reasoning=False)


async def test_session_and_fork_of_a_conversation_that_was_cut(site: Site, fake: FakeProvider) -> None:
    site.write("clerk", [], models=[{"model": "vllm:clerk", "window": 8000}], requester="anyone")
    session, long = f"{site.queue}-u", "It goes on and on. " * 150
    async with site.serving():
        for number in range(12):
            text = f"Now pay {number}." if number in {0, 10} else f"quiet {number}. {long}"
            await say(site, session, text, f"m{number}", idle="20s")
        lost = asyncio.create_task(say(site, session, "Then pay 11, slow.", "m12"))
        await until_asked(fake, 16)
        await site.agents.handle(session).terminate()
        reply = await lost
        result = await end_of(site, session)
        early = await (
            await site.start("clerk", "[eve says] Now pay 10.", continues={"run": session, "step": 3})
        ).result()
        late = await (await site.start("clerk", "[eve says] Now pay 12.", continues={"run": session})).result()
        messages = await conversation(site, late.head or "")
        sizes = [len(request.body) for request in fake.requests]

    assert sizes != sorted(sizes), "nothing was cut"
    assert reply.status == "completed"
    assert (result.effects.count, early.effects.count, late.effects.count) == (3, 0, 1)
    assert sum(one.role == "assistant" for one in messages) == 12 + 1 + 4 + 1
    assert [len(toolkit.calls_of(session, "pay"))] == [3]


async def test_crowd_of_messages_at_once_is_answered(site: Site) -> None:
    site.write("clerk", [], models=["vllm:clerk"], requester="anyone", budget={"steps": 200, "model_calls": 200})
    session = f"{site.queue}-v"
    async with site.serving(), asyncio.timeout(60):
        replies = await asyncio.gather(
            *(say(site, session, f"n{number}.", f"n{number}", idle="20s") for number in range(40))
        )
        last = await say(site, session, "End.", "e")

    assert all(reply.status == "completed" for reply in replies)
    assert sorted((last.text or "").split(" | ")) == sorted([*(f"n{number}." for number in range(40)), "End."])


async def test_message_to_a_session_that_stops_while_its_agent_works(site: Site, fake: FakeProvider) -> None:
    session = f"{site.queue}-w"
    async with site.serving():
        first = asyncio.create_task(say(site, session, "One, slow.", "m1"))
        await until_asked(fake, 1)
        queued = asyncio.create_task(say(site, session, "Two.", "m2"))
        await asyncio.sleep(0.3)
        await site.agents.stop(session, by=REQUESTER)
        replies = [await first, await queued]
        await end_of(site, session)
        more = await say(site, session, "Three.", "m3")

    assert [reply.status for reply in replies] == ["stopped", "stopped"]
    assert (more.status, more.text) == ("completed", "One, slow. | Three.")


async def test_session_goes_on_once_the_server_has_forgotten_its_runs(site: Site, client: Client) -> None:
    session = f"{site.queue}-x"
    async with site.serving():
        with toolkit.held("pay"):
            lost = asyncio.create_task(say(site, session, "Now pay 1.", "m1"))
            async with asyncio.timeout(20):
                while not toolkit.calls_of(session, "pay"):
                    await asyncio.sleep(0.02)
            await site.agents.stop(session, by=REQUESTER)
        stopped = await lost
        await end_of(site, session)
        # The server knows no run of this id.
        forgotten, blobs = f"{session}-forgotten", Blobs(open_store(site.settings.store))
        record = await blobs.find_session(f"{client.namespace}/{session}")
        await blobs.keep_session(f"{client.namespace}/{forgotten}", 1, record or b"")
        await blobs.close()
        reply = await say(site, forgotten, "Again: pay 1.", "m2")
        told = await texts_told(site, (await end_of(site, forgotten)).head or "")

    assert (stopped.status, reply.status, reply.text) == ("stopped", "completed", "Now pay 1. | Again: pay 1.")
    assert [text[:9] for text in told] == ["not known", "not made:"]
    assert toolkit.calls_of(forgotten, "pay") == []
