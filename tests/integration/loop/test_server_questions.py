"""Questions of MCP servers in the middle of a call: asked of people, answered days and restarts later."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.loop import dialogues
from tests.integration.tools.test_mcp_servers import answering, free_port
from tests.support.agents import ALLOW_ALL, Site, continued, new_site, texts_told
from tests.support.mcp_peer import COMMAND
from tests.support.people import ASK_ALL, asked, decide, decision, open_requests, refusal_of, stop, write_people
from tests.support.processes import processes

ROOT = Path(__file__).parents[3]
DONE = {"say": "done"}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def over_stdio(journal: Path) -> dict[str, Any]:
    command = [*COMMAND, "asking", "stdio", str(journal)]
    return {"name": "shop", "command": command, "env": {"PYTHONPATH": str(ROOT)}}


@asynccontextmanager
async def over_http(port: int, journal: Path) -> AsyncIterator["asyncio.subprocess.Process"]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "asking", str(port), str(journal),
        cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await answering(port)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def write(site: Site, *turns: dict[str, Any], policy: Any = ALLOW_ALL, **entry: Any) -> Path:
    """An agent with the tools of the server that asks; the journal of what they did."""
    journal = site.folder / "journal"
    tools = [{"mcp": over_stdio(journal), "effect": "once", **entry}]
    site.write("asks", [*turns, DONE], tools=tools, policy=policy)
    return journal


def call(tool: str, order: int = 5) -> dict[str, Any]:
    return {"call": [{tool: {"order": order}}]}


def acts(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


async def history_text(handle: WorkflowHandle[Any, Any]) -> str:
    return json.dumps((await handle.fetch_history()).to_json_dict())


async def test_a_server_asks_and_goes_on_with_the_answer(site: Site) -> None:
    journal = write(site, call("refund"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        assert acts(journal) == []
        receipt = await decide(handle, request, "answer", value={"approve": True, "reason": "broken"})
        result = await handle.result()

    assert (request.kind, request.server, request.tool) == ("question", "shop", "refund")
    assert request.title == "shop asks: Refund order 5?"
    assert request.question == (
        "Refund order 5?\n"
        "- approve (yes or no): Approve\n"
        "- reason (text; may be left out): Reason\n"
        'answer with JSON, for example {"approve": true, "reason": "..."}'
    )
    assert request.reason == "the MCP server 'shop' asks, before it goes on with refund order=5"
    assert request.choices == ("answer", "cancel", "reject")
    assert request.tainted
    assert (receipt.status, receipt.message) == ("answered", "r1 is answered: ann@example.com answered")
    assert [(act["tool"], act["order"], act["approve"]) for act in acts(journal)] == [("refund", 5, True)]
    assert await texts_told(site, result.head) == ["refunded 5: True broken"]
    assert (result.status, result.effects.count, result.uncertain) == (RunStatus.COMPLETED, 1, ())


@pytest.mark.parametrize(
    ("choice", "value", "told"),
    [
        ("answer", '{"approve": true}', "accept 5"),
        ("reject", None, "decline 5"),
        ("cancel", None, "cancel 5"),
    ],
)
async def test_the_server_is_told_what_people_chose(site: Site, choice: str, value: str | None, told: str) -> None:
    write(site, call("wish"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, choice, value=value)
        result = await handle.result()

    assert await texts_told(site, result.head) == [told]


async def test_nobody_answers_in_time_and_the_server_is_told_so(site: Site) -> None:
    journal = site.folder / "journal"
    tools = [{"mcp": over_stdio(journal), "effect": "once"}]
    site.write("asks", [call("wish"), DONE], tools=tools, people={"expires": "1s"})

    result, _ = await site.run("asks")

    assert await texts_told(site, result.head) == ["cancel 5"]


async def test_a_refused_call_of_a_server_that_asks_before_it_acts_is_not_done(site: Site) -> None:
    journal = write(site, call("refund"), asks_before_acting=True)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, "reject")
        result = await handle.result()

    (told,) = await texts_told(site, result.head)
    assert "could not resolve: elicitation was decline" in told
    assert acts(journal) == []
    assert (result.status, result.effects.count, result.uncertain) == (RunStatus.COMPLETED, 0, ())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("maybe", 'value: the form has the fields approve, reason; answer with JSON, as {"approve": ...}'),
        ({"approve": "often"}, 'value: it does not fit the form: approve: "often" is not of type "boolean"'),
        ({"approve": True, "sum": 5}, "value: it does not fit the form: "),
        ('{"approve": tru', "value: it begins with '{' and is no JSON"),
        ({}, 'value: it does not fit the form: "approve" is a required property'),
        (None, "value: the form has the fields approve, reason"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays(site: Site, value: Any, said: str) -> None:
    journal = write(site, call("refund"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        refused = await refusal_of(handle, "decide", decision(request, "answer", value=value))
        assert [one.id for one in (await open_requests(handle)).requests] == ["r1"]
        await decide(handle, request, "answer", value={"approve": False})
        await handle.result()

    assert refused.startswith(said)
    assert [act["approve"] for act in acts(journal)] == [False]


async def test_a_server_may_ask_again_and_again(site: Site) -> None:
    journal = write(site, call("ship"))

    async with site.serving():
        handle = await site.start("asks")
        (first,) = await asked(handle)
        await decide(handle, first, "answer", value={"approve": True})
        while not (second := (await open_requests(handle)).requests):
            await asyncio.sleep(0.05)
        await decide(handle, second[0], "answer", by="bob@example.com", value="fast")
        result = await handle.result()

    assert second[0].question == (
        "Send the refund of order 5 how fast?\n- speed (one of slow, fast): Speed\n"
        'answer with JSON, for example {"speed": "slow"}, or with the value alone'
    )
    assert await texts_told(site, result.head) == ["shipped 5 fast"]
    assert [act["speed"] for act in acts(journal)] == ["fast"]


async def test_other_calls_go_on_while_a_server_waits(site: Site) -> None:
    turn = {"call": [{"refund": {"order": 1}}, {"look": {"order": 2}}]}
    journal = write(site, turn, effects={"look": "read"})

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        while not acts(journal):
            await asyncio.sleep(0.05)
        assert [act["tool"] for act in acts(journal)] == ["look"]
        await decide(handle, request, "answer", value={"approve": True})
        result = await handle.result()

    assert await texts_told(site, result.head) == ["refunded 1: True", "order 2"]


async def test_an_approved_call_asks_after_its_approval(site: Site) -> None:
    rule = [{**ASK_ALL[0], "match": {"tools": ["refund"]}}]
    journal = write(site, call("refund"), policy=rule)

    async with site.serving():
        handle = await site.start("asks")
        (approval,) = await asked(handle)
        await decide(handle, approval)
        while not (questions := (await open_requests(handle)).requests):
            await asyncio.sleep(0.05)
        await decide(handle, questions[0], "answer", by="dan@example.com", value={"approve": True})
        await handle.result()

    assert (approval.kind, questions[0].kind, questions[0].waits_for) == ("approval", "question", ("anyone",))
    assert len(acts(journal)) == 1


@pytest.mark.parametrize(("declared", "uncertain"), [(True, 0), (False, 1)])
async def test_a_run_that_is_stopped_between_rounds_says_what_is_known(
    site: Site,
    declared: bool,
    uncertain: int,
) -> None:
    write(site, call("refund"), asks_before_acting=declared)

    async with site.serving():
        handle = await site.start("asks")
        await asked(handle)
        await stop(handle, {"by": "ann@example.com"})
        result = await handle.result()

    assert (result.status, len(result.uncertain)) == (RunStatus.STOPPED, uncertain)
    if uncertain:
        assert result.uncertain[0].reason == (
            "MCP server 'shop' asked a question; it does not say whether it had acted before"
        )


async def test_a_question_waits_through_continue_as_new(site: Site) -> None:
    journal = write(site, call("refund"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await continued(handle)
        await decide(handle, request, "answer", value={"approve": True})
        result = await handle.result()

    assert await texts_told(site, result.head) == ["refunded 5: True"]
    assert len(acts(journal)) == 1


async def test_a_form_that_demands_something_sensitive_is_refused(site: Site) -> None:
    journal = write(site, call("charge"), sensitive=["card"], effects={"charge": "keyed"})

    result, _ = await site.run("asks")

    (told,) = await texts_told(site, result.head)
    assert "it asks for 'card', which is sensitive: what people send stays in the run's history" in told
    assert acts(journal) == []


async def test_sensitive_answers_are_refused_before_they_enter_the_history(site: Site) -> None:
    journal = write(site, call("refund"), sensitive=["reason"])

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        for value in ({"approve": True, "reason": "4000-1234"}, '{"approve": true, "reason": "4000-1234"}'):
            refused = await refusal_of(handle, "decide", decision(request, "answer", value=value))
            assert refused.startswith("value: 'reason' is sensitive")
        await decide(handle, request, "answer", value={"approve": True})
        await handle.result()
        text = await history_text(handle)

    assert "reason" not in (request.question or "")
    assert "4000-1234" not in text
    assert len(acts(journal)) == 1


async def test_a_question_that_repeats_something_sensitive_is_shown_without_it(site: Site) -> None:
    journal = write(site, {"call": [{"repeat": {"card": "4000-1234"}}]}, sensitive=["card"])

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, "answer", value="yes")
        await handle.result()
        text = await history_text(handle)

    assert (request.question or "").startswith("Charge card ***?")
    assert "4000-1234" not in text
    assert [act["sure"] for act in acts(journal)] == [True]


async def test_the_state_of_the_server_stays_out_of_history(site: Site) -> None:
    write(site, call("refund"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, "answer", value={"approve": True})
        await handle.result()
        raw = await handle.fetch_history()

    payloads = b"".join(event.SerializeToString() for event in raw.events)
    assert b"requestState" not in payloads
    assert b"request_state" not in payloads


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_server_and_worker_die_between_question_and_answer(site: Site, tmp_path: Path, transport: str) -> None:
    journal, port = tmp_path / "journal", free_port()
    server: dict[str, Any] = over_stdio(journal) if transport == "stdio" else {"name": "shop", "url": ""}
    if transport == "http":
        server["url"] = f"http://127.0.0.1:{port}/mcp"
    site.write("asks", [call("refund"), DONE], tools=[{"mcp": server, "effect": "once"}], people={"expires": "1h"})
    environment = {
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "MANDATE_PEOPLE": site.environment["MANDATE_PEOPLE"],
        "TEMPORAL_ADDRESS": site.client.service_client.config.target_host,
    }

    with processes(tmp_path / "out", **environment) as started:
        async with _served(transport, port, journal):
            worker = await started.worker()
            handle = await site.start("asks")
            (request,) = await asked(handle)
            worker.send(signal.SIGKILL)
            await worker.ended()
        async with _served(transport, port, journal):
            await started.worker()
            await decide(handle, request, "answer", value={"approve": True, "reason": "late"})
            result = await asyncio.wait_for(handle.result(), 60)

    assert await texts_told(site, result.head) == ["refunded 5: True late"]
    assert [act["order"] for act in acts(journal)] == [5]
    assert result.effects.count == 1


@asynccontextmanager
async def _served(transport: str, port: int, journal: Path) -> AsyncIterator[None]:
    if transport == "stdio":
        yield
        return
    async with over_http(port, journal):
        yield


async def test_more_open_questions_than_a_run_can_carry_are_not_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogues, "OPEN_BYTES", 10)
    journal = write(site, call("refund"), asks_before_acting=True)

    async with site.serving(sandboxed=False):
        handle = await site.start("asks")
        result = await handle.result()

    assert await texts_told(site, result.head) == [
        "not done: it asks people a question, and too many of them are open; make the call later"
    ]
    assert acts(journal) == []
