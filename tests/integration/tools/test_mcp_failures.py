"""Calls that MCP servers refuse, garble, forget or never answer: what is known of each, and what the next one finds."""

import asyncio
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.failures import make_tool_failure
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.mcp.causes import find_cause
from mandate.activities.toolbox.mcp.tool_list import McpUnavailable
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.tool import Effect
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.mcp_bench import OVER_HTTP, WAYS, McpBench, Way, context, listed, mcp_bench, text_result
from tests.support.mcp_peer import BARE_COMMAND

STDIO = WAYS[0]
SESSIONS = WAYS[2]
PAID = text_result("paid")


def plan_of(**calls: object) -> dict[str, object]:
    return {"pages": [[*(listed(name) for name in calls), listed("echo")]], "calls": {**calls, "echo": PAID}}


def error(code: object, message: object = "backend down", **more: object) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


WORDS = "MCP server 'peer' refused the call: backend down"
REFUSED = f"unknown: {WORDS} (-32603)"
ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "own_error": (error(-32000), f"unknown: {WORDS} (-32000)"),
    "own_like_ours": (error(-3_209_900_001), REFUSED),
    "no_method": (error(-32601), f"not_sent: {WORDS} (-32601)"),
    "bad_params": (error(-32602), f"not_sent: {WORDS} (-32602)"),
    "internal": (error(-32603), REFUSED),
    "code_in_words": (error("-32602"), f"not_sent: {WORDS} (-32602)"),
    "code_with_point": (error(-32602.0), f"not_sent: {WORDS} (-32602)"),
    "no_code": ({"error": {"message": "backend down"}}, REFUSED),
    "only_words": ({"error": "backend down"}, REFUSED),
    "object_for_words": (error(-32603, {"why": 1}), REFUSED.replace("backend down", '{"why": 1}')),
    "no_words": (error(-32603, None), REFUSED.replace("backend down", "no reason is given")),
    "capability": (error(-32021),
                   "not_sent: MCP server 'peer' needs what this client cannot do: backend down (-32021)"),
    "neither": ({}, REFUSED.replace("backend down", "its answer has neither a result nor an error")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_error_is_told_in_the_servers_words(tmp_path: Path, way: Way) -> None:
    plan = plan_of(**{name: answer for name, (answer, _) in ERRORS.items()})
    async with mcp_bench(tmp_path, way, plan) as bench:
        told = {name: await bench.say(name, Effect.ONCE) for name in ERRORS}
        after = await bench.say("echo", Effect.ONCE)

    assert told == {name: said for name, (_, said) in ERRORS.items()}
    assert after == "paid"


async def test_a_refusal_that_another_attempt_would_meet_is_not_tried_again(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, STDIO, plan_of(bad_params=error(-32602), internal=error(-32603))) as bench:
        failures = [await failure(bench, name, Effect.IDEMPOTENT) for name in ("bad_params", "internal")]

    tried = [make_tool_failure(raised, Effect.IDEMPOTENT, 1, sent_before=False) for raised in failures]
    assert [made.non_retryable for made in tried] == [True, False]


async def failure(bench: McpBench, name: str, effect: Effect) -> ToolError:
    with pytest.raises(ToolError) as raised:
        await bench.toolbox.call(await bench.tool(name, effect), {}, context())
    return raised.value


def raw(line: bytes) -> dict[str, str]:
    return {"raw": line.hex()}


def before(line: bytes, answer: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"before": line.hex(), **(answer or PAID)}


WHOLE = b'{"jsonrpc": "2.0", "id": @ID@, "result": {"content": [{"type": "text", "text": "%b"}]}}'
LINES: dict[str, tuple[dict[str, Any], str]] = {
    "mark": (before(b"\xef\xbb\xbf"), "paid"),
    "zeros_around": (raw(b"\0" + WHOLE % b"paid" + b"\0"), "paid"),
    "not_utf8": (raw(WHOLE % b"caf\xe9"), "caf\ufffd"),
    "half_character": (raw(WHOLE % rb"a\ud83db"), "a\ufffdb"),
    "other_half": (raw(WHOLE % rb"\ude00"), "\ufffd"),
    "whole_character": (raw(WHOLE % rb"\ud83d\ude00"), "\U0001f600"),
    "zero_in_text": (raw(WHOLE % b"a\0b"), "a\0b"),
    "tab_in_text": (raw(WHOLE % b"a\tb"), "a\tb"),
    "id_in_words": (raw((WHOLE % b"paid").replace(b"@ID@", b'"@ID@"')), "paid"),
    "id_with_point": (raw((WHOLE % b"paid").replace(b"@ID@", b"@ID@.0")), "paid"),
    "no_version": (raw((WHOLE % b"paid").replace(b'"jsonrpc": "2.0", ', b"")), "paid"),
    "in_a_list": (raw(b"[" + WHOLE % b"paid" + b"]"), "paid"),
}
ON_STDOUT: dict[str, tuple[dict[str, Any], str]] = {
    "latin_1_before": (before("caf\xe9\n".encode("latin-1")), "paid"),
    "zeros_before": (before(b"\0\0\0\n"), "paid"),
    "surrogates_before": (before(b"\xed\xa0\xbd\n"), "paid"),
    "list_before": (before(b"[1, 2]\n"), "paid"),
    "number_before": (before(b"5\n"), "paid"),
    "null_before": (before(b"null\n"), "paid"),
    "deep_before": (before(b"[", {**PAID, "times": 40_000, "lines": 1}), "paid"),
    "request_of_no_kind_before": (before(b'{"jsonrpc": "2.0", "id": 1, "method": 5}\n'), "paid"),
    "answer_to_nobody_before": (before(b'{"jsonrpc": "2.0", "id": 99, "result": 5}\n'), "paid"),
    "long_line_before": (before(b"x", {**PAID, "times": 200_000, "lines": 1}), "paid"),
    "on_one_line": (before(b"loading... caf\xe9 "), "paid"),
    "carriage_return": (before(b"10%\r20%\r"), "paid"),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_bytes_that_are_no_text_cost_no_result(tmp_path: Path, way: Way) -> None:
    lines = LINES | (ON_STDOUT if way.transport == "stdio" else {})
    plan = plan_of(**{name: answer for name, (answer, _) in lines.items()})
    async with mcp_bench(tmp_path, way, plan) as bench:
        told = {name: await bench.say(name, Effect.ONCE) for name in lines}
        started = len(bench.started())

    assert told == {name: said for name, (_, said) in lines.items()}
    assert started == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_handshake_with_marks_and_broken_bytes_is_read(tmp_path: Path, way: Way) -> None:
    tools = [listed("echo", description="caf\udce9"), listed("half", description="\ud83d")]
    async with mcp_bench(tmp_path, way, {"pages": [tools], "calls": {"echo": PAID}}) as bench:
        offered = await bench.offered(effect="read")
        said = await bench.say("echo")

    assert [made.description for made in offered] == ["caf\ufffd", "\ufffd"]
    assert said == "paid"


NO_ANSWER = b"Traceback (most recent call last):"


async def test_what_stood_on_stdout_in_place_of_an_answer_is_told(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, STDIO, plan_of(garbled=raw(NO_ANSWER))) as bench:
        said = await bench.say("garbled", seconds=1)

    assert said == (
        "unknown: MCP server 'peer' did not answer in time; its stdout must have messages of the protocol alone, "
        "and has: Traceback (most recent call last):"
    )


async def test_bodies_that_are_no_messages_are_an_unknown_outcome_over_http(tmp_path: Path) -> None:
    cut = WHOLE[:-5]
    async with mcp_bench(tmp_path, SESSIONS, plan_of(garbled=raw(NO_ANSWER), cut=raw(cut))) as bench:
        said = [await bench.say("garbled"), await bench.say("cut"), await bench.say("echo")]

    no_answer = "unknown: MCP server 'peer' refused the call: its answer is no answer of the protocol (-32603)"
    assert said[0] == no_answer
    assert said[1].startswith("error: The call was answered; but its result cannot be used: it is no JSON that can be")
    assert said[2] == "paid"


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("way", OVER_HTTP, ids=str)
async def test_an_answer_whose_compression_is_cut_costs_that_call(tmp_path: Path, way: Way, *, events: bool) -> None:
    packed = gzip.compress(WHOLE % b"paid")[:-12]
    cut = {"raw": packed.hex(), "headers": {"content-encoding": "gzip"}}
    async with mcp_bench(tmp_path, way, {**plan_of(cut=cut), "events": events}) as bench:
        said = [await bench.say("cut", Effect.ONCE), await bench.say("echo")]

    no_answer = "refused the call: its answer is no answer of the protocol (-32603)"
    cut_off = "ended or was cut off during the call"
    assert said == [f"unknown: MCP server 'peer' {cut_off if events else no_answer}", "paid"]


@pytest.mark.parametrize("media", ["", "text/plain"])
@pytest.mark.parametrize("way", OVER_HTTP, ids=str)
async def test_an_answer_of_another_type_is_read(tmp_path: Path, way: Way, media: str) -> None:
    async with mcp_bench(tmp_path, way, {**plan_of(), "media": media}) as bench:
        assert await bench.say("echo") == "paid"


@pytest.mark.parametrize("way", OVER_HTTP, ids=str)
async def test_marks_and_broken_bytes_in_events_cost_no_result(tmp_path: Path, way: Way) -> None:
    lines = {name: LINES[name] for name in ("not_utf8", "half_character", "id_with_point", "no_version")}
    plan = {**plan_of(**{name: answer for name, (answer, _) in lines.items()}), "events": True}
    async with mcp_bench(tmp_path, way, plan) as bench:
        told = {name: await bench.say(name) for name in lines}

    assert told == {name: said for name, (_, said) in lines.items()}


def status(number: int, body: str = "no", **headers: str) -> dict[str, Any]:
    return {"status": number, "body": body, "headers": {"content-type": "text/plain", **headers}}


OWN = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "who are you"}})
STATUSES: dict[str, tuple[dict[str, Any], str, float | None]] = {
    "401": (status(401), "not_sent: MCP server 'peer' answered HTTP 401 Unauthorized: no", None),
    "401_with_error": (status(401, OWN, **{"content-type": "application/json"}),
                       "not_sent: MCP server 'peer' answered HTTP 401 Unauthorized: who are you", None),
    "403": (status(403), "not_sent: MCP server 'peer' answered HTTP 403 Forbidden: no", None),
    "413": (status(413, ""), "not_sent: MCP server 'peer' answered HTTP 413 Request Entity Too Large", None),
    "429": (status(429), "not_sent: MCP server 'peer' answered HTTP 429 Too Many Requests: no", 1.0),
    "429_later": (status(429, **{"retry-after": "7"}),
                  "not_sent: MCP server 'peer' answered HTTP 429 Too Many Requests: no", 7.0),
    "408": (status(408), "unknown: MCP server 'peer' answered HTTP 408 Request Timeout: no", None),
    "500": (status(500), "unknown: MCP server 'peer' answered HTTP 500 Internal Server Error: no", None),
    "503": (status(503, "<html>", **{"retry-after": "3", "content-type": "text/html"}),
            "unknown: MCP server 'peer' answered HTTP 503 Service Unavailable", 3.0),
    "400_with_params": (status(400, OWN.replace("-32001", "-32602"), **{"content-type": "application/json"}),
                        "not_sent: MCP server 'peer' refused the call: who are you (-32602)", None),
    "500_with_error": (status(500, OWN.replace("-32001", "-32000"), **{"content-type": "application/json"}),
                       "unknown: MCP server 'peer' refused the call: who are you (-32000)", None),
}  # fmt: skip


@pytest.mark.parametrize("way", OVER_HTTP, ids=str)
async def test_a_status_says_what_became_of_the_call_and_when_to_ask_again(tmp_path: Path, way: Way) -> None:
    plan = plan_of(**{f"s{name}": answer for name, (answer, *_) in STATUSES.items()})
    told = {}
    async with mcp_bench(tmp_path, way, plan) as bench:
        for name in STATUSES:
            raised = await failure(bench, f"s{name}", Effect.ONCE)
            told[name] = (f"{raised.outcome}: {raised.reason}", raised.retry_after)
        after = await bench.say("echo")

    assert told == {name: tuple(expected) for name, (_, *expected) in STATUSES.items()}
    assert after == "paid"


@pytest.mark.parametrize(
    ("refused", "reason", "wait"),
    [
        (status(401), "HTTP 401 Unauthorized: no", None),
        (status(429, **{"retry-after": "7"}), "HTTP 429 Too Many Requests: no", 7.0),
        (status(503, "", **{"retry-after": "3"}), "HTTP 503 Service Unavailable", 3.0),
        (status(404), "HTTP 404 Not Found: no", None),
    ],
)
@pytest.mark.parametrize("way", OVER_HTTP, ids=str)
async def test_a_status_at_the_start_says_why_and_when_to_ask_again(
    tmp_path: Path, way: Way, refused: dict[str, Any], reason: str, wait: float | None
) -> None:
    async with mcp_bench(tmp_path, way, {**plan_of(), "refuses": refused}) as bench:
        with pytest.raises(McpUnavailable) as unavailable:
            await bench.offered()

    assert str(unavailable.value) == f"MCP server 'peer' did not start: {reason}"
    assert unavailable.value.retry_after == wait


GONE = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "Session not found"}})
NO_SESSION = GONE.replace("-32001", "-32000").replace("Session not found", "Bad Request: No valid session ID provided")


@pytest.mark.parametrize(
    "forgets",
    [
        {"calls": 2},
        {"calls": 2, "body": GONE},
        {"calls": 2, "body": "gone"},
        {"calls": 2, "body": NO_SESSION, "status": 400},
    ],
)
async def test_a_forgotten_session_is_made_anew_for_the_same_call(tmp_path: Path, forgets: dict[str, object]) -> None:
    plan = {**plan_of(), "sessions": True, "forgets": forgets}
    async with mcp_bench(tmp_path, SESSIONS, plan) as bench:
        said = [await bench.say("echo", Effect.ONCE) for _ in range(3)]
        sessions = [line["session"] for line in bench.seen("tools/call")]

    assert said == ["paid"] * 3
    # The second call was sent twice, and taken once.
    assert [sessions.index(session) for session in sessions] == [0, 0, 2, 2]


async def test_a_server_that_forgets_every_session_has_been_sent_nothing(tmp_path: Path) -> None:
    plan = {**plan_of(), "sessions": True, "forgets": {"calls": 1, "body": "gone", "always": True}}
    async with mcp_bench(tmp_path, Way("http", "2025-06-18"), plan) as bench:
        said = await bench.say("echo", Effect.ONCE)
        sent = len(bench.seen("tools/call"))

    assert said == ("not_sent: MCP server 'peer' does not know the session any more: HTTP 404 Not Found: gone")
    assert sent == 2


async def test_a_path_that_is_not_there_has_been_sent_nothing(tmp_path: Path) -> None:
    plan = {**plan_of(), "forgets": {"calls": 1, "body": "gone"}}
    async with mcp_bench(tmp_path, SESSIONS, plan) as bench:
        said = await bench.say("echo", Effect.ONCE)

    assert said == "not_sent: MCP server 'peer' answered HTTP 404 Not Found: gone"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_call_that_hangs_gets_its_server_replaced(tmp_path: Path, way: Way) -> None:
    plan = {**plan_of(stuck="hang" if way.transport == "stdio" else "nothing"), "sessions": True}
    async with mcp_bench(tmp_path, way, plan) as bench:
        stuck = await bench.say("stuck", Effect.ONCE, seconds=1)
        after = await bench.say("echo", Effect.ONCE)
        pids, begun = bench.started(), len(bench.seen("initialize")) + len(bench.seen("server/discover"))

    assert stuck == "unknown: MCP server 'peer' did not answer in time"
    assert after == "paid"
    if way.transport == "stdio":
        assert len(set(pids)) == 2
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)
    else:
        assert begun == (4 if way == SESSIONS else 2)


async def test_a_call_that_is_given_up_at_its_end_gets_its_server_replaced(tmp_path: Path) -> None:
    async with mcp_bench(tmp_path, STDIO, plan_of(stuck="hang")) as bench:
        tool = await bench.tool("stuck", Effect.ONCE)
        given_up = asyncio.create_task(bench.toolbox.call(tool, {}, context(seconds=1.5)))
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.wait({given_up})
        after = await bench.say("echo")

    assert given_up.cancelled()
    assert (after, len(bench.started())) == ("paid", 2)


async def test_a_call_of_others_goes_on_when_the_server_is_replaced(tmp_path: Path) -> None:
    plan = plan_of(stuck="nothing")
    async with mcp_bench(tmp_path, STDIO, plan) as bench:
        tool = await bench.tool("stuck", Effect.ONCE)
        long = asyncio.create_task(bench.toolbox.call(tool, {}, context(seconds=6)))
        await bench.say("stuck", Effect.ONCE, seconds=0.5)
        after = await bench.say("echo")
        assert not long.done()
        with pytest.raises(ToolError, match="did not answer in time"):
            await long

    assert after == "paid"


async def test_a_start_that_takes_long_can_be_given_time(tmp_path: Path) -> None:
    plan = {**plan_of(), "start_seconds": 3}
    async with mcp_bench(tmp_path, STDIO, plan) as bench:
        hasty, patient = {"mcp": {**bench.server, "start": "1s"}}, {"mcp": {**bench.server, "start": "20s"}}
        with pytest.raises(McpUnavailable) as refused:
            await bench.toolbox.definitions(McpTools.model_validate(hasty))
        offered = await bench.toolbox.definitions(McpTools.model_validate(patient))
        await bench.toolbox.close()
        beside = McpToolbox(lambda text: text, start_seconds=1)
        offered += await beside.definitions(McpTools.model_validate({"mcp": bench.server, "start": "20s"}))
        await beside.close()

    assert str(refused.value).startswith(
        "MCP server 'peer' did not start: no answer within 1 s; set 'start' for a server that needs longer, "
        "for example 'start: 60s'"
    )
    assert [made.tool.name for made in offered] == ["echo", "echo"]


async def test_results_of_sixty_megabytes_take_time_in_proportion(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "NAMES = 'm1', 'm6', 'm60'\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    if 'id' not in m: continue\n"
        "    a = {'error': {'code': -32601, 'message': 'no'}}\n"
        "    if m['method'] == 'initialize':\n"
        "        a = {'result': {'protocolVersion': m['params']['protocolVersion'], 'capabilities': {'tools': {}},\n"
        "                        'serverInfo': {'name': 'p', 'version': '1'}}}\n"
        "    elif m['method'] == 'tools/list':\n"
        "        a = {'result': {'tools': [{'name': n, 'inputSchema': {'type': 'object'}} for n in NAMES]}}\n"
        "    elif m['method'] == 'tools/call':\n"
        "        n = 1_000_000 * int(m['params']['name'][1:])\n"
        "        a = {'result': {'content': [{'type': 'text', 'text': 'x' * n}]}}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], **a}), flush=True)\n"
    )
    server = {"name": "p", "command": [BARE_COMMAND[0], "-S", "-c", program]}
    toolbox = McpToolbox(lambda text: text)
    spent = {}
    try:
        offered = await toolbox.definitions(McpTools.model_validate({"mcp": server, "effect": "once"}))
        tools = {made.tool.name: made for made in offered}
        for name in ("m6", "m60"):
            begun = time.process_time()
            answer = await toolbox.call(tools[name], {}, context(seconds=60))
            spent[name] = time.process_time() - begun
            assert answer.is_lost
        after = await toolbox.call(tools["m1"], {}, context(seconds=60))
    finally:
        await toolbox.close()

    assert len(after.text) == 1_000_000
    assert spent["m60"] < 25 * max(spent["m6"], 0.02)


def test_the_cause_is_found_inside_groups() -> None:
    cause = ConnectionResetError("reset")
    group = BaseExceptionGroup("a", [asyncio.CancelledError(), ExceptionGroup("b", [cause])])

    assert find_cause(group) is cause
    assert isinstance(find_cause(BaseExceptionGroup("a", [asyncio.CancelledError()])), asyncio.CancelledError)
