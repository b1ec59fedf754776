"""Questions of MCP servers as the toolbox reads them: forms, pages, forgotten states, and what is not given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import AsksPeople
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import Dialogue
from mandate.workflows.contracts.tool import Effect
from tests.support.mcp_bench import WAYS, McpBench, Way, context, listed, mcp_bench, text_result

MODERN = [way for way in WAYS if way.protocol == "2026-07-28"]
OLD = [way for way in WAYS if way.protocol != "2026-07-28"]
FORM = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
YES = {"action": "accept", "content": {"ok": True}}
NO = {"action": "accept", "content": {"ok": False}}


def form(message: str = "Pay?", schema: object = FORM, **more: object) -> dict[str, Any]:
    params = {"mode": "form", "message": message, "requestedSchema": schema, **more}
    return {"method": "elicitation/create", "params": params}


def page(url: object, message: str = "Sign in.") -> dict[str, Any]:
    return {"method": "elicitation/create", "params": {"mode": "url", "message": message, "url": url}}


def asks(state: str | None = "s1", **requests: object) -> dict[str, Any]:
    known = {} if state is None else {"requestState": state}
    return {"result": {"resultType": "input_required", "inputRequests": requests, **known}}


EXPIRED = {"error": {"code": -32602, "message": "Invalid or expired requestState"}}
PAID = text_result("paid", resultType="complete")


def plan_of(*answers: object) -> dict[str, object]:
    return {"pages": [[listed("pay")]], "calls": {"pay": {"answers": list(answers)}}}


async def question(bench: McpBench, effect: Effect = Effect.ONCE, dialogue: Dialogue | None = None) -> AsksPeople:
    with pytest.raises(AsksPeople) as raised:
        await bench.toolbox.call(await bench.tool("pay", effect), {}, replace(context(), dialogue=dialogue))
    return raised.value


async def go_on(bench: McpBench, asked: AsksPeople, **responses: object) -> str:
    dialogue = asked.dialogue.model_copy(update={"responses": {**asked.dialogue.responses, **responses}})
    tool = await bench.tool("pay", Effect.ONCE)
    return (await bench.toolbox.call(tool, {}, replace(context(), dialogue=dialogue))).text


def sent(bench: McpBench) -> list[tuple[object, object]]:
    """Answers and state of each call, as the server got them."""
    params = [line["params"] for line in bench.seen("tools/call")]
    return [(one.get("inputResponses"), one.get("requestState")) for one in params]


@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_answers_go_with_the_servers_own_state(tmp_path: Path, way: Way) -> None:
    async with mcp_bench(tmp_path, way, plan_of(asks(q=form()), PAID)) as bench:
        asked = await question(bench)
        said = await go_on(bench, asked, q=YES)

        assert said == "paid"
        assert sent(bench) == [(None, None), ({"q": YES}, "s1")]
    assert [(one.key, one.form is not None) for one in asked.questions] == [("q", True)]
    assert (asked.server, asked.outcome, asked.dialogue.round) == ("peer", Outcome.UNKNOWN, 1)


@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_forgotten_state_costs_people_no_second_answer(tmp_path: Path, way: Way) -> None:
    first, second = asks("s1", q=form("Pay?")), asks("s2", q=form("Sure?"))
    again = (EXPIRED, asks("s3", q=form("Pay?")), asks("s4", q=form("Sure?")), PAID)
    async with mcp_bench(tmp_path, way, plan_of(first, second, *again)) as bench:
        asked = await question(bench)
        known = asked.dialogue.model_copy(update={"responses": {"q": YES}})
        asked = await question(bench, dialogue=known)
        said = await go_on(bench, asked, q=NO)

        assert said == "paid"
        assert sent(bench)[2:] == [({"q": NO}, "s2"), (None, None), ({"q": YES}, "s3"), ({"q": NO}, "s4")]


async def test_a_new_question_after_a_forgotten_state_is_asked(tmp_path: Path) -> None:
    answers = (asks("s1", q=form()), EXPIRED, asks("s2", q=form(), new=form("Which?")), PAID)
    async with mcp_bench(tmp_path, MODERN[0], plan_of(*answers)) as bench:
        asked = await question(bench)
        known = asked.dialogue.model_copy(update={"responses": {"q": YES}})
        more = await question(bench, dialogue=known)
        said = await go_on(bench, more, new=NO)

        assert said == "paid"
        assert sent(bench)[-1] == ({"q": YES, "new": NO}, "s2")
    assert [one.key for one in more.questions] == ["new"]


async def test_the_same_question_of_a_server_that_forgot_nothing_is_asked_again(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=form()), asks(q=form()), PAID)) as bench:
        asked = await question(bench)
        known = asked.dialogue.model_copy(update={"responses": {"q": YES}})
        again = await question(bench, dialogue=known)

    assert (again.questions, again.dialogue.round) == (asked.questions, 2)


async def test_bad_arguments_are_no_forgotten_state(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(EXPIRED, PAID)) as bench:
        assert (await bench.say("pay", Effect.ONCE)).startswith("not_sent: ")
        assert len(sent(bench)) == 1


async def test_a_server_that_only_wants_to_be_asked_again_is(tmp_path: Path) -> None:
    wait: dict[str, object] = {"result": {"resultType": "input_required", "requestState": "s1"}}
    async with mcp_bench(tmp_path, MODERN[0], plan_of(wait, wait, PAID)) as bench:
        assert await bench.say("pay", Effect.ONCE) == "paid"
        assert sent(bench) == [(None, None), (None, "s1"), (None, "s1")]


async def test_a_call_asks_at_most_ten_times(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=form()))) as bench:
        last = Dialogue(state="s", requests={"q": form()}, responses={"q": YES}, round=9)
        tenth = await question(bench, dialogue=last)
        over = last.model_copy(update={"round": 10})
        with pytest.raises(ToolError) as raised:
            await bench.toolbox.call(await bench.tool("pay"), {}, replace(context(), dialogue=over))

    assert tenth.dialogue.round == 10
    assert raised.value.reason == "MCP server 'peer' asks again and again, more than 10 times in one call"
    assert (raised.value.outcome, raised.value.lasting) == (Outcome.NOT_DONE, True)


@pytest.mark.parametrize(
    ("settings", "effect", "outcome"),
    [
        ({}, "once", Outcome.UNKNOWN),
        ({"asks_before_acting": True}, "once", Outcome.NOT_DONE),
        ({}, "keyed", Outcome.NOT_DONE),
        ({}, "idempotent", Outcome.NOT_DONE),
        ({}, "read", Outcome.NOT_DONE),
    ],
)
async def test_a_call_that_waits_for_people_is_not_done_where_that_is_known(
    tmp_path: Path, settings: dict[str, object], effect: str, outcome: Outcome
) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=form()))) as bench:
        tool = (await bench.tools(effect=effect, **settings))["pay"]
        with pytest.raises(AsksPeople) as raised:
            await bench.toolbox.call(tool, {}, context())

    assert raised.value.outcome is outcome
    assert raised.value.reason.startswith("MCP server 'peer' asks, and nobody is asked here: Pay?")


LACKING = "which Mandate does not give to servers"
NOT_ASKED: dict[str, tuple[object, str]] = {
    "sampling": ({"method": "sampling/createMessage", "params": {}}, f"asks for an answer of a model, {LACKING}"),
    "roots": ({"method": "roots/list"}, f"asks for the folders of its client, {LACKING}"),
    "something": ({"method": "x/y"}, f"asks for 'x/y', {LACKING}"),
    "nothing": ({}, f"asks for something without a name, {LACKING}"),
    "no_object": (5, "asks in a way that cannot be read"),
    "no_form": (form(schema=None), "asks 'Pay?', and cannot be answered: its form is no JSON Schema of an object"),
    "list_form": (form(schema={"type": "array"}), "asks 'Pay?', and cannot be answered: its form is no JSON Schema"),
    "nested_form": (
        form(schema={"type": "object", "properties": {"a": {"type": "object"}}}),
        "asks 'Pay?', and cannot be answered: its field 'a' is no text, number, choice or yes and no",
    ),
    "broken_form": (
        form(schema={"type": "object", "properties": {"a": {"type": "string", "minLength": "x"}}}),
        "asks 'Pay?', and cannot be answered: ",
    ),
    "large_form": (
        form(schema={"type": "object", "properties": {f"a{n}": {"type": "string"} for n in range(31)}}),
        "asks 'Pay?', and cannot be answered: its form has 31 fields; at most 30 are asked for",
    ),
    "no_address": (page(None), "asks for a visit to a page without an address that can be shown"),
    "script": (page("javascript:alert(1)"), "asks for a visit to 'javascript:alert(1)', which is no address of a page"),
    "file": (page("file:///etc/passwd"), "asks for a visit to 'file:///etc/passwd', which is no address of a page"),
    "hidden": (page("https://a.example/\u202egpj"), "which is no address of a page"),
}


@pytest.mark.parametrize("way", MODERN, ids=str)
@pytest.mark.parametrize("kind", NOT_ASKED)
async def test_what_cannot_be_asked_is_not_done_and_said(tmp_path: Path, way: Way, kind: str) -> None:
    request, reason = NOT_ASKED[kind]
    async with mcp_bench(tmp_path, way, plan_of(asks(q=request))) as bench:
        said = await bench.say("pay", Effect.KEYED)

    assert said.startswith("not_done: MCP server 'peer' ")
    assert reason in said


@pytest.mark.parametrize("kind", ["sampling", "roots"])
async def test_a_capability_that_is_lacking_leaves_a_once_call_not_done(tmp_path: Path, kind: str) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=NOT_ASKED[kind][0]))) as bench:
        assert (await bench.say("pay", Effect.ONCE)).startswith("not_done: MCP server 'peer' asks for ")


async def test_secrets_of_the_server_are_in_no_question(tmp_path: Path) -> None:
    again = (EXPIRED, asks("s2", q=form("Use s3cr3t?")), PAID)
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=form("Use s3cr3t?")), *again)) as bench:
        bench.toolbox = McpToolbox(lambda text: text.replace("${secret:T}", "s3cr3t"))
        env = bench.server["env"]
        assert isinstance(env, dict)
        bench.server = {**bench.server, "env": {**env, "TOKEN": "${secret:T}"}}
        asked = await question(bench)
        said = await go_on(bench, asked, q=YES)
        await bench.toolbox.close()

    assert asked.questions[0].text.startswith("Use ***?")
    assert "s3cr3t" not in asked.dialogue.model_dump_json()
    assert said == "paid"


async def test_too_many_questions_at_once_are_not_asked(tmp_path: Path) -> None:
    many = {f"q{number}": form() for number in range(11)}
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(**many))) as bench:
        said = await bench.say("pay", Effect.READ)

    assert said == "not_done: MCP server 'peer' asks 11 questions at once; at most 10 are asked"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://login.example.com/a?b=c", "the page is at login.example.com: https://login.example.com/a?b=c"),
        ("http://10.0.0.1/x", "the page is at 10.0.0.1, without encryption: http://10.0.0.1/x"),
        ("https://good.example@evil.example/", "the page is at evil.example: https://good.example@evil.example/"),
        ("https://ex\u00e4mple.com/", "the page is at xn--exmple-cua.com: https://ex\u00e4mple.com/"),
    ],
)
async def test_a_page_is_shown_with_its_host_named(tmp_path: Path, url: str, told: str) -> None:
    async with mcp_bench(tmp_path, MODERN[0], plan_of(asks(q=page(url)), PAID)) as bench:
        asked = await question(bench)
        said = await go_on(bench, asked, q={"action": "accept"})

        assert sent(bench)[1] == ({"q": {"action": "accept"}}, "s1")
    (one,) = asked.questions
    assert one.text == (
        f"Sign in.\n{told}\nvisit it only if you know this host; answer with any word when you have done what it asks"
    )
    assert (one.form, said) == (None, "paid")


@pytest.mark.parametrize("way", OLD, ids=str)
async def test_servers_of_old_versions_are_told_that_nothing_can_be_asked(tmp_path: Path, way: Way) -> None:
    async with mcp_bench(tmp_path, way, plan_of(PAID)) as bench:
        assert await bench.say("pay") == "paid"
        (first,) = bench.seen("initialize")

    assert "elicitation" not in first["params"]["capabilities"]


@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_servers_of_the_last_version_are_told_what_can_be_asked(tmp_path: Path, way: Way) -> None:
    async with mcp_bench(tmp_path, way, plan_of(PAID)) as bench:
        await bench.say("pay")
        (first,) = bench.seen("tools/call")

    able = first["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert able == {"elicitation": {"form": {}, "url": {}}}
