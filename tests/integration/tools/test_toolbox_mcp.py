"""MCP servers as tools, against a server of a few lines that says what a test wants to hear."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from mcp import MCPError
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.mcp.message_filter import NOT_CONNECTED
from mandate.activities.toolbox.mcp.result import format_result
from mandate.activities.toolbox.mcp.tool_list import McpUnavailable
from mandate.activities.toolbox.mcp.toolbox import McpToolbox, decide_outcome
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.http_peer import http_peer
from tests.support.mcp_peer import BARE_COMMAND


def text_result(text: str, **more: object) -> dict[str, object]:
    return {"result": {"content": [{"type": "text", "text": text}], **more}}


def listed(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


PLAN: dict[str, object] = {
    "pages": [
        [listed("echo", description="Say it again.", annotations={"readOnlyHint": True}), listed("fails")],
        [
            listed("files.write", title="Write"),
            listed("dies"),
            listed("long", execution={"taskSupport": "required"}),
            listed("silent"),
            listed("-32601"),
            listed("-32602"),
            listed("-32603"),
            listed("leaks"),
            listed("misfit", outputSchema={"type": "object", "properties": {"n": {"type": "integer"}}}),
        ],
    ],
    "calls": {
        "echo": text_result("hi"),
        "files.write": text_result("written"),
        "fails": text_result("no such order", isError=True),
        "leaks": text_result("I know s3cr3t-token"),
        "misfit": text_result("x", structuredContent={"n": "many"}),
        "dies": "die",
        "silent": "nothing",
        "-32602": {"error": {"code": -32602, "message": "bad params"}},
        "-32603": {"error": {"code": -32603, "message": "oops"}},
    },
}

CONTEXT = CallContext("w", "r", 1, "key-1", 1, timedelta(seconds=5))


def resolve(text: str) -> str:
    if text != "${secret:TOKEN}":
        raise LookupError(f"secret {text[9:-1]!r} is missing")
    return "s3cr3t-token"


class Bench:
    """A toolbox, and a peer that follows a plan and keeps a journal."""

    def __init__(self, folder: Path) -> None:
        self.toolbox = McpToolbox(resolve, start_seconds=20)
        self.journal = folder / "journal"

    def entry(self, plan: dict[str, object] = PLAN, token: str = "${secret:TOKEN}", **settings: object) -> McpTools:
        env = {"PLAN": json.dumps(plan), "JOURNAL": str(self.journal), "TOKEN": token}
        server = {"name": "peer", "command": [*BARE_COMMAND, "planned"], "env": env}
        return McpTools.model_validate({"mcp": server, **settings})

    async def tools(self, plan: dict[str, object] = PLAN, **settings: object) -> dict[str, ToolDefinition]:
        found = await self.toolbox.definitions(self.entry(plan, **settings))
        return {definition.tool.name: definition for definition in found}

    async def failure(self, definition: ToolDefinition, context: CallContext = CONTEXT) -> ToolError:
        with pytest.raises(ToolError) as raised:
            await self.toolbox.call(definition, {}, context)
        return raised.value

    def seen(self, method: str) -> list[JsonObject]:
        return [line["params"] for line in self._lines() if line.get("method") == method]

    def started(self) -> list[int]:
        return [line["start"] for line in self._lines() if "start" in line]

    def _lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.toolbox.close()


@pytest.mark.parametrize(
    ("answer", "once", "other"),
    [
        (CallToolResult(content=[]), Outcome.DONE, Outcome.DONE),
        (CallToolResult(content=[], is_error=True), Outcome.UNKNOWN, Outcome.NOT_DONE),
        (McpUnavailable(), Outcome.NOT_SENT, Outcome.NOT_SENT),
        (MCPError(-32601, ""), Outcome.NOT_SENT, Outcome.NOT_SENT),
        (MCPError(-32602, ""), Outcome.NOT_SENT, Outcome.NOT_SENT),
        (MCPError(NOT_CONNECTED, ""), Outcome.NOT_SENT, Outcome.NOT_SENT),
        (MCPError(-32603, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (MCPError(-32600, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (MCPError(-32700, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (MCPError(-32000, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (MCPError(-32001, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (MCPError(0, ""), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (TimeoutError(), Outcome.UNKNOWN, Outcome.UNKNOWN),
        (RuntimeError(), Outcome.UNKNOWN, Outcome.UNKNOWN),
    ],
)
def test_an_answer_says_what_became_of_the_call(
    answer: CallToolResult | Exception, once: Outcome, other: Outcome
) -> None:
    assert decide_outcome(answer, Effect.ONCE) is once
    failed = isinstance(answer, CallToolResult) and answer.is_error
    for said in (Outcome.NOT_DONE, Outcome.UNKNOWN):
        means = "not_done" if said is Outcome.NOT_DONE else "unknown"
        assert [decide_outcome(answer, effect, means) for effect in (Effect.ONCE, Effect.KEYED)] == (
            [said] * 2 if failed else [once] * 2
        )
    assert decide_outcome(answer, Effect.KEYED) is once
    assert [decide_outcome(answer, effect) for effect in (Effect.READ, Effect.IDEMPOTENT)] == [other] * 2


@pytest.mark.parametrize(
    ("content", "structured", "text"),
    [
        ([], None, ""),
        ([TextContent(text="a"), TextContent(text="b")], None, "a\nb"),
        ([TextContent(text='{"n": "é"}')], {"n": "é"}, '{"n": "é"}'),
        ([], [1, 2], "[1, 2]"),
        ([ImageContent(data="AAAAAAA=", mime_type="image/png")], None, "[image image/png, 5 bytes]"),
        (
            [TextContent(text="x"), ImageContent(data="AAAA", mime_type="image/png")],
            {"a": 1},
            '{"a": 1}\n[image image/png, 3 bytes]',
        ),
        (
            [ResourceLink(uri="file:///a", name="a", mime_type="text/plain", size=7)],
            None,
            "[resource file:///a, text/plain, 7 bytes]",
        ),
        (
            [EmbeddedResource(resource=BlobResourceContents(uri="file:///b", blob="AAAA"))],
            None,
            "[resource file:///b, unknown type, 3 bytes]",
        ),
        ([EmbeddedResource(resource=TextResourceContents(uri="file:///t", text="inside"))], None, "inside"),
    ],
)
def test_a_result_is_text_and_never_base64(content: list[ContentBlock], structured: object, text: str) -> None:
    assert format_result(CallToolResult(content=content, structured_content=structured)) == text


async def test_all_pages_become_tools_and_no_annotation_is_believed(bench: Bench) -> None:
    tools = await bench.tools(effects={"files.write": "idempotent"}, timeout="7s", tags=["x"], result_limit=999)

    assert list(tools)[:4] == ["echo", "fails", "files_write", "dies"]
    assert "long" not in tools
    assert tools["echo"].tool.effect is Effect.ONCE
    assert tools["files_write"].tool.effect is Effect.IDEMPOTENT
    assert tools["files_write"].binding.tool == "files.write"  # type: ignore[union-attr]
    assert (tools["echo"].description, tools["files_write"].description) == ("Say it again.", "Write")
    assert all(definition.tool.untrusted for definition in tools.values())
    assert tools["echo"].tool.timeout == timedelta(seconds=7)
    assert tools["echo"].result_limit_bytes == 999


async def test_an_entry_chooses_tools_and_their_effect(bench: Bench) -> None:
    tools = await bench.tools(
        only=["echo", "fails"], effect="read", effects={"fails": "keyed"}, untrusted=False, risk=0.5
    )

    assert {name: definition.tool.effect for name, definition in tools.items()} == {
        "echo": Effect.READ,
        "fails": Effect.KEYED,
    }
    assert not tools["echo"].tool.untrusted
    assert tools["echo"].tool.risk == 0.5


async def test_an_entry_says_what_errors_mean_and_how_long_keys_are_known(bench: Bench) -> None:
    tools = await bench.tools(effects={"echo": "keyed"}, key_valid="1h", error="unknown", errors={"fails": "not_done"})

    meanings = {name: definition.binding.error for name, definition in tools.items()}  # type: ignore[union-attr]
    assert (meanings["fails"], meanings["echo"]) == ("not_done", "unknown")
    assert (tools["echo"].tool.key_valid, tools["fails"].tool.key_valid) == (timedelta(hours=1), None)


@pytest.mark.parametrize(
    "settings", [{"only": ["ehco"]}, {"effects": {"ehco": "read"}}, {"errors": {"ehco": "unknown"}}]
)
async def test_a_tool_that_the_server_lacks_is_refused_with_those_it_has(
    bench: Bench, settings: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"MCP server 'peer' has no tool 'ehco'; it has: .*dies, echo, fails"):
        await bench.tools(**settings)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ([listed("a.b"), listed("a_b")], "tools 'a.b' and 'a_b' would both be called 'a_b'"),
        (
            [listed("bad", inputSchema={"type": "object", "$ref": "http://x/"})],
            r"tool 'bad': \$ref: 'http://x/' leaves the schema",
        ),
        (
            [listed("bad", inputSchema={"type": "array"})],
            r"tool 'bad': its answer breaks the protocol: inputSchema\.type: Input should be 'object'",
        ),
    ],
)
async def test_tools_that_cannot_be_used_are_refused(bench: Bench, tools: list[object], reason: str) -> None:
    with pytest.raises((ValueError, McpUnavailable), match=reason):
        await bench.tools({"pages": [tools]})


async def test_names_fit_every_model_provider(bench: Bench) -> None:
    tools = await bench.tools({"pages": [[listed("1.é/" + "x" * 90), listed("_a")]]})

    assert list(tools) == ["t_1___" + "x" * 58, "t__a"]


async def test_the_key_goes_with_calls_that_change_the_world(bench: Bench) -> None:
    tools = await bench.tools(effects={"echo": "read"})

    assert await bench.toolbox.call(tools["echo"], {"a": 1}, CONTEXT) == ToolText("hi")
    assert await bench.toolbox.call(tools["files_write"], {}, CONTEXT) == ToolText("written")

    read, write = bench.seen("tools/call")
    assert (read["name"], read["arguments"], "_meta" in read) == ("echo", {"a": 1}, False)
    assert (write["name"], write["_meta"]) == ("files.write", {"mandate/idempotency-key": "key-1"})


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("t_-32601", Outcome.NOT_SENT),
        ("t_-32602", Outcome.NOT_SENT),
        ("t_-32603", Outcome.UNKNOWN),
        ("fails", Outcome.UNKNOWN),
        ("dies", Outcome.UNKNOWN),
    ],
)
async def test_failures_of_a_once_tool_read_as_the_table_says(bench: Bench, tool: str, expected: Outcome) -> None:
    error = await bench.failure((await bench.tools())[tool])

    assert error.outcome is expected


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("t_-32601", Outcome.NOT_SENT),
        ("t_-32602", Outcome.NOT_SENT),
        ("t_-32603", Outcome.UNKNOWN),
        ("dies", Outcome.UNKNOWN),
    ],
)
async def test_failures_of_a_keyed_tool_read_as_the_table_says(bench: Bench, tool: str, expected: Outcome) -> None:
    error = await bench.failure((await bench.tools(effect="keyed"))[tool])

    assert error.outcome is expected


@pytest.mark.parametrize("effect", ["idempotent", "keyed", "once"])
async def test_an_error_is_what_the_agent_file_says_of_it(bench: Bench, effect: str) -> None:
    marked = (await bench.tools(effect=effect, errors={"fails": "not_done"}))["fails"]
    doubted = (await bench.tools(effect=effect, error="unknown"))["fails"]

    assert await bench.toolbox.call(marked, {}, CONTEXT) == ToolText("no such order", error=True)
    error = await bench.failure(doubted)
    assert (error.outcome, error.reason) == (
        Outcome.UNKNOWN,
        "the tool says that it failed, and may have acted: no such order",
    )


async def test_a_failed_read_is_a_result_in_the_tools_words(bench: Bench) -> None:
    tools = await bench.tools(effect="read")

    assert await bench.toolbox.call(tools["fails"], {}, CONTEXT) == ToolText("no such order", error=True)


async def test_no_answer_in_time_leaves_the_outcome_unknown_and_replaces_the_server(bench: Bench) -> None:
    tools = await bench.tools()
    short = CallContext("w", "r", 1, "k", 1, timedelta(seconds=0.2))

    error = await bench.failure(tools["silent"], short)

    assert (error.outcome, error.reason) == (Outcome.UNKNOWN, "MCP server 'peer' did not answer in time")
    assert (await bench.toolbox.call(tools["echo"], {}, CONTEXT)).text == "hi"
    assert len(bench.started()) == 2


async def test_a_cancelled_call_stops_at_once_and_tells_the_server(bench: Bench) -> None:
    tools = await bench.tools()
    call = asyncio.create_task(bench.toolbox.call(tools["silent"], {}, CONTEXT))
    while not bench.seen("tools/call"):
        await asyncio.sleep(0.01)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert (await bench.toolbox.call(tools["echo"], {}, CONTEXT)).text == "hi"
    async with asyncio.timeout(30):
        while not bench.seen("notifications/cancelled"):
            await asyncio.sleep(0.01)
    assert len(bench.seen("notifications/cancelled")) == 1


async def test_an_effect_with_a_misshapen_result_was_done(bench: Bench) -> None:
    effect = (await bench.tools())["misfit"]
    read = (await bench.tools(effect="read"))["misfit"]

    done = await bench.toolbox.call(effect, {}, CONTEXT)
    lost = await bench.toolbox.call(read, {}, CONTEXT)

    why = 'it does not fit the tool\'s own schema: n: "many" is not of type "integer"'
    assert done == ToolText(f"The call was answered; it was done, but its result cannot be used: {why}", is_lost=True)
    assert lost == ToolText(f"The call was answered; but its result cannot be used: {why}", error=True)


async def test_a_server_that_died_is_started_by_the_next_call(bench: Bench) -> None:
    tools = await bench.tools()

    error = await bench.failure(tools["dies"])
    again = await bench.toolbox.call(tools["echo"], {}, CONTEXT)

    assert error.outcome is Outcome.UNKNOWN
    assert again.text == "hi"
    assert len(set(bench.started())) == 2


async def gone(pid: int) -> None:
    """Returns when a child has ended and this process knows it."""
    async with asyncio.timeout(30):
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(0.01)


async def test_a_server_killed_between_calls_costs_the_next_call_nothing(bench: Bench) -> None:
    tools = await bench.tools()
    os.kill(bench.started()[0], 9)
    # Until its end is known a call is sent to it, and what became of that nobody can say.
    await gone(bench.started()[0])
    await asyncio.sleep(0.2)

    assert (await bench.toolbox.call(tools["echo"], {}, CONTEXT)).text == "hi"


async def test_calls_at_the_same_time_share_one_start(bench: Bench) -> None:
    tools = await bench.tools()
    other = McpToolbox(resolve)

    texts = await asyncio.gather(*(other.call(tools["echo"], {}, CONTEXT) for _ in range(8)))
    await other.close()

    assert {result.text for result in texts} == {"hi"}
    assert len(bench.started()) == 2


async def test_a_start_that_takes_too_long_sends_nothing(bench: Bench) -> None:
    tools = await bench.tools()
    server = tools["echo"].binding.server.model_copy(  # type: ignore[union-attr]
        update={"env": bench.entry({**PLAN, "start_seconds": 1}).mcp.env}
    )
    binding = tools["echo"].binding.model_copy(update={"server": server})
    short = CallContext("w", "r", 1, "k", 1, timedelta(seconds=0.3))

    error = await bench.failure(tools["echo"].model_copy(update={"binding": binding}), short)
    later = await bench.toolbox.call(tools["echo"].model_copy(update={"binding": binding}), {}, CONTEXT)

    assert (error.outcome, error.reason) == (Outcome.NOT_SENT, "MCP server 'peer' did not start in time")
    assert later.text == "hi"
    assert len(bench.started()) == 2


async def test_a_server_that_never_answers_is_given_up_and_ended(bench: Bench) -> None:
    impatient = McpToolbox(resolve, start_seconds=3)

    with pytest.raises(McpUnavailable, match="'peer' did not start: no answer within 3 s;"):
        await impatient.definitions(bench.entry({"start_seconds": 60}))
    await impatient.close()

    with pytest.raises(ProcessLookupError):
        os.kill(bench.started()[0], 0)


async def test_closing_during_a_start_ends_the_child(bench: Bench) -> None:
    start = asyncio.create_task(bench.toolbox.definitions(bench.entry({"start_seconds": 60})))
    while not bench.started():
        await asyncio.sleep(0.02)

    await bench.toolbox.close()

    with pytest.raises(McpUnavailable, match="the worker stops"):
        await start
    with pytest.raises(ProcessLookupError):
        os.kill(bench.started()[0], 0)


async def test_a_server_that_exits_at_once_is_explained_by_what_it_wrote(bench: Bench) -> None:
    with pytest.raises(McpUnavailable) as refused:
        await bench.tools({"exit": True})

    said = "MCP server 'peer' did not start: Connection closed; it wrote: token is *** / cannot open the database"
    assert str(refused.value) == said


async def test_a_missing_command_or_secret_is_named(bench: Bench) -> None:
    entry = bench.entry(token="${secret:GONE}")
    with pytest.raises(McpUnavailable, match=r"^MCP server 'peer' did not start: secret 'GONE' is missing$"):
        await bench.toolbox.definitions(entry)

    missing = McpTools.model_validate({"mcp": {"name": "m", "command": ["no-such-program"]}})
    with pytest.raises(McpUnavailable, match=r"^MCP server 'm' did not start: the command 'no-such-program' was not"):
        await bench.toolbox.definitions(missing)

    assert bench.started() == []


async def test_secrets_in_headers_are_resolved_and_struck_out_of_the_reason(bench: Bench) -> None:
    async with http_peer() as peer:
        server = {"name": "far", "url": f"{peer.url}/echo-token/403", "headers": {"Authorization": "${secret:TOKEN}"}}
        with pytest.raises(McpUnavailable) as refused:
            await bench.toolbox.definitions(McpTools.model_validate({"mcp": server}))

    assert {seen.headers["authorization"] for seen in peer.seen} == {"s3cr3t-token"}
    assert "s3cr3t" not in str(refused.value)


async def test_failed_starts_are_paced(bench: Bench) -> None:
    began = asyncio.get_running_loop().time()

    for _ in range(4):
        with pytest.raises(McpUnavailable):
            await bench.toolbox.definitions(McpTools.model_validate({"mcp": {"name": "m", "command": ["no-such"]}}))

    assert 0.6 < asyncio.get_running_loop().time() - began < 10


async def test_a_secret_is_in_no_result(bench: Bench) -> None:
    tools = await bench.tools()

    assert (await bench.toolbox.call(tools["leaks"], {}, CONTEXT)).text == "I know ***"


async def test_nothing_of_a_server_reaches_the_terminal(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    await bench.tools()
    await bench.toolbox.close()

    assert "token is" not in "".join(capfd.readouterr())


async def test_closing_ends_the_child_and_later_calls_are_not_sent(bench: Bench) -> None:
    tools = await bench.tools()
    await bench.toolbox.close()

    error = await bench.failure(tools["echo"])

    assert error.outcome is Outcome.NOT_SENT
    with pytest.raises(ProcessLookupError):
        os.kill(bench.started()[0], 0)
