"""Messages of MCP servers: what the SDK gets to read, and what stands for what it does not."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, TextContent
from pydantic import JsonValue

from mandate.activities.toolbox.mcp.message_filter import ANSWER_TOO_LARGE, ENDS_BYTES, MAX_PARTS, Ends, MessageFilter
from mandate.activities.toolbox.mcp.result import InputRequired, ResultUnusable, read_result

LONG = "x" * 3 * ENDS_BYTES
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def message(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def admitted(method: str, sent: bytes) -> dict[str, JsonValue] | None:
    """What becomes of an answer to request 7."""
    message_filter = MessageFilter()
    message_filter.expect(7, method)
    taken = message_filter.admit(sent)
    return None if taken is None else json.loads(taken)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ('{"jsonrpc":"2.0","id":7,"result":{"content":"@"}}', (7, "result")),
        ('{"result":{"content":"@"},"jsonrpc":"2.0","id":7}', (7, "result")),
        ('{ "id" : "a\\"b" , "result" : ["@"] }', ('a"b', "result")),
        ('{"id":7,"error":{"message":"@"}}', (7, "error")),
        ('{"error":{"message":"@"},"id":7}', (7, "error")),
        ('{"jsonrpc":"2.0","method":"log","params":{"x":"@"},"id":7}', (None, None)),
        ('{"jsonrpc":"2.0","params":{"x":"@"},"method":"log","id":7}', (None, None)),
        ('{"result":{"x":"@","id":7}}', (None, "result")),
        ('{"result":{"x":"@","y":{"id":7}}}', (None, "result")),
        ('{"result":"@,\\"id\\":7"}', (None, "result")),
        ('{"result":"@","id":7.5}', (None, "result")),
        ("@", (None, None)),
        ("[@]", (None, None)),
    ],
)
def test_whose_answer_a_long_message_is_stands_at_its_ends(sent: str, found: object) -> None:
    assert Ends.of(sent.replace("@", LONG).encode()).identify() == found


@given(VALUES, st.integers(0, 3), st.sampled_from(("result", "error")), st.randoms())
def test_the_ends_of_a_message_never_name_another_request(
    value: JsonValue, where: int, kind: str, random: object
) -> None:
    members: list[tuple[str, object]] = [("jsonrpc", "2.0"), (kind, {"a": value, "b": LONG, "id": 8, "c": value})]
    members.insert(where, ("id", 7))

    identity, found = Ends.of(json.dumps(dict(members), ensure_ascii=False).encode()).identify()

    assert identity == 7
    assert found == kind


@given(VALUES)
def test_a_result_of_a_call_comes_through_as_it_was(value: JsonValue) -> None:
    sent = {"content": [{"type": "text", "text": "a"}], "structuredContent": {"x": value}}

    taken = admitted("tools/call", json.dumps({"jsonrpc": "2.0", "id": 7, "result": sent}, ensure_ascii=False).encode())

    assert taken is not None
    answer = CallToolResult.model_validate(taken["result"])
    assert read_result(answer).structured_content == {"x": value}


@pytest.mark.parametrize(
    "result", ['"text"', "[]", "null", '{"content":5}', '{"content":[{}]}', '{"structuredContent":1,"content":7}']
)
def test_a_result_of_another_shape_cannot_be_used_and_is_one(result: str) -> None:
    taken = admitted("tools/call", f'{{"jsonrpc":"2.0","id":7,"result":{result}}}'.encode())

    assert taken is not None
    with pytest.raises(ResultUnusable):
        read_result(CallToolResult.model_validate(taken["result"]))


def test_a_request_for_input_is_no_result() -> None:
    taken = admitted("tools/call", message(id=7, result={"resultType": "input_required", "requestState": "s"}))

    assert taken is not None
    with pytest.raises(InputRequired):
        read_result(CallToolResult.model_validate(taken["result"]))


def test_a_result_that_the_sdk_has_read_stays() -> None:
    answer = CallToolResult(content=[TextContent(type="text", text='{"a": 1}')])

    assert read_result(answer) == answer


@pytest.mark.parametrize(
    ("method", "result", "said"),
    [
        ("tools/call", {"content": [], "structuredContent": {"x": [{}] * MAX_PARTS}}, "more than 50,000 objects"),
        ("tools/list", {"tools": [{}] * 1001}, "lists more than 1,000 tools"),
        ("initialize", {"instructions": "x" * 300_000}, "larger than 262,144 bytes"),
        ("initialize", {"capabilities": {"experimental": [{}] * 2001}}, "larger than 262,144 bytes"),
    ],
)
def test_a_result_that_is_too_much_is_refused_in_its_place(method: str, result: JsonValue, said: str) -> None:
    taken = admitted(method, message(id=7, result=result))

    assert taken is not None
    error = taken["error"]
    assert isinstance(error, dict)
    assert (taken["id"], error["code"]) == (7, ANSWER_TOO_LARGE)
    assert said in str(error["message"])


def test_a_long_refusal_keeps_its_code() -> None:
    taken = admitted("tools/call", message(id=7, error={"code": -32602, "message": "m" * 300_000, "data": [1]}))

    assert taken == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "m" * 2000}}


@pytest.mark.parametrize(
    "sent",
    [
        b"caf\xe9",
        b"5",
        b"[]",
        b"{",
        b"[" * 100_000,
        message(method="log", params={"x": "x" * 300_000}),
        message(method="log", params={"x": [{}] * 3000}),
        message(id=8, result={"x": "x" * 300_000}),
    ],
)
def test_what_nobody_can_use_is_passed_over(sent: bytes) -> None:
    assert admitted("tools/call", sent) is None


def test_brackets_in_texts_are_no_parts() -> None:
    code = {"content": [{"type": "text", "text": '{"[{' * 100_000}]}

    taken = admitted("tools/call", message(id=7, result=code))

    assert taken is not None
    assert "error" not in taken


def test_what_nobody_asked_for_comes_at_a_bounded_rate() -> None:
    message_filter = MessageFilter()
    for _ in range(400):
        message_filter.admit(message(method="log"))
    calm = message_filter.pause
    for _ in range(400):
        message_filter.admit(message(method="log"))

    assert (calm, message_filter.pause > 0.1) == (0.0, True)


@pytest.mark.parametrize(
    "content",
    [
        "[" + "{}," * 1_700_000 + "{}]",
        "[" + '"a",' * 1_000_000 + '""]',
        '"' + "{[" * 2_500_000 + '"',
        '"' + '{\\"' * 1_700_000,
        ',"a":1' * 800_000,
        ',"a' * 1_700_000,
    ],
)
def test_the_worst_message_takes_no_second(content: str) -> None:
    begun = time.process_time()

    admitted("tools/call", f'{{"jsonrpc":"2.0","id":7,"result":{{"content":{content}}}}}'.encode())

    assert time.process_time() - begun < 1.5
