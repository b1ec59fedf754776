"""Results of MCP tools of every shape, over each transport and in old versions of the protocol and the last."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mandate.workflows.contracts.tool import Effect
from tests.support.mcp_bench import WAYS, McpBench, Way, listed, mcp_bench, text_result

NO_BOOLEAN = "its 'isError' is neither true nor false"
NOT_KNOWN = "which is not known or not whole: "
IMAGE = {"type": "image", "data": "QUJD" * 1000, "mimeType": "image/png"}
ENCODED = "iVBORw0KGgoAAAANSUhEUgAA" * 200
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
BLOCKS = {"type": "object", "properties": {"content": {"type": "array"}}, "required": ["content"]}


def structured(value: object, *content: object, **more: object) -> dict[str, Any]:
    return {"result": {"content": list(content), "structuredContent": value, **more}}


def part(*parts: object) -> dict[str, Any]:
    return {"result": {"content": list(parts)}}


def words(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    # Structured content of each kind, with text beside it or instead of it.
    "list_of_numbers": (structured([1, 2], words("[1, 2]")), "[1, 2]"),
    "list_alone": (structured(["paid"]), '["paid"]'),
    "number": (structured(3), "3"),
    "no": (structured(False), "false"),
    "text": (structured("paid"), '"paid"'),
    "null_and_text": (structured(None, words("paid")), "paid"),
    "null_alone": (structured(None), "(the tool returned nothing)"),
    "empty_and_text": (structured({}, words("paid")), "paid"),
    "only_text_for_a_schema": (text_result('{"n": 3}'), '{"n": 3}'),
    "other_spelling": ({"result": {"content": [], "structured_content": {"n": 3}}}, '{"n": 3}'),
    "first_version": ({"result": {"toolResult": {"n": 3}}}, '{"n": 3}'),
    # Errors, whose words are told.
    "error_with_text": (text_result("no such order", isError=True), "error: no such order"),
    "error_with_both": (structured({"code": 5}, words("no such order"), isError=True),
                        'error: {"code": 5}\nno such order'),
    "error_twice_the_same": (structured({"code": 5}, words('{"code": 5}'), isError=True), 'error: {"code": 5}'),
    "error_without_words": ({"result": {"content": [], "isError": True}},
                            "error: (the tool says that it failed, and gives no reason)"),
    "error_in_other_spelling": ({"result": {"content": [words("bad")], "is_error": True}}, "error: bad"),
    # Base64 wherever it is.
    "image_in_both": (structured({"content": [IMAGE]}, IMAGE), "[image image/png, 3000 bytes]"),
    "image_in_structured": (structured({"shot": IMAGE, "n": 1}), '{"shot": "[image image/png, 3000 bytes]", "n": 1}'),
    "blob": (structured({"file": {"uri": "file:///a", "blob": "QUJD" * 1000, "mimeType": "application/pdf"}}),
             '{"file": "[resource file:///a, application/pdf, 3000 bytes]"}'),
    "data_address": (structured({"icon": "data:image/png;base64," + ENCODED}),
                     '{"icon": "[data image/png, 3600 bytes]"}'),
    "media_beside": (structured({"media_type": "image/png", "data": ENCODED, "type": "base64"}),
                     '{"media_type": "image/png", "data": "[base64, 3600 bytes]", "type": "base64"}'),
    "bare": (structured({"shots": [ENCODED]}), '{"shots": ["[base64, 3600 bytes]"]}'),
    "in_the_text": (text_result(json.dumps({"shot": ENCODED, "n": 1})), '{"shot": "[base64, 3600 bytes]", "n": 1}'),
    "is_the_text": (text_result(ENCODED), "[base64, 3600 bytes]"),
    "code_in_the_text": (text_result("{" + "a" * 5000), "{" + "a" * 5000),
    "genes": (structured({"genes": "ACGT" * 2000}), json.dumps({"genes": "ACGT" * 2000})),
    # Parts that are not of the protocol's shape.
    "unknown_kind": (part(words("a"), {"type": "video", "seconds": 3}),
                     f"a\n[content of the type 'video', {NOT_KNOWN}{{\"type\": \"video\", \"seconds\": 3}}]"),
    "unknown_kind_with_text": (part({"type": "markdown", "text": "# paid"}), "# paid"),
    "unknown_beside_structured": (structured({"n": 3}, {"type": "video"}),
                                  f"{{\"n\": 3}}\n[content of the type 'video', {NOT_KNOWN}{{\"type\": \"video\"}}]"),
    "object_for_text": (part(words({"n": 3})), '{"n": 3}'),
    "no_text": (part({"type": "text"}), f"[content of the type 'text', {NOT_KNOWN}{{\"type\": \"text\"}}]"),
    "bare_words": (part("paid", 5), "paid\n5"),
    "content_is_text": ({"result": {"content": "paid"}}, "paid"),
    "content_is_one_part": ({"result": {"content": words("paid")}}, "paid"),
    "content_is_null": ({"result": {"content": None}}, "(the tool returned nothing)"),
    "one_part_without_a_type": (part(words("a"), {"n": 3}), 'a\n[content without a type: {"n": 3}]'),
    "no_content": (part(), "(the tool returned nothing)"),
    # Results that are nothing of the protocol.
    "own_fields": ({"result": {"status": "paid"}}, '{"status": "paid"}'),
    "own_fields_beside_nothing": ({"result": {"content": [], "status": "paid"}}, '{"status": "paid"}'),
    "empty": ({"result": {}}, "(the tool returned nothing)"),
    "null_error_beside": ({**text_result("paid"), "error": None}, "paid"),
}  # fmt: skip
SCHEMAS = {"only_text_for_a_schema": NUMBER, "image_in_both": BLOCKS, "error_with_both": NUMBER}


@pytest.fixture(scope="module", params=WAYS, ids=str)
async def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[McpBench]:
    way: Way = request.param
    tools = [listed(name, **({"outputSchema": SCHEMAS[name]} if name in SCHEMAS else {})) for name in SHAPES]
    plan: dict[str, object] = {"pages": [tools], "calls": {name: answer for name, (answer, _) in SHAPES.items()}}
    async with mcp_bench(tmp_path_factory.mktemp("mcp"), way, plan) as made:
        yield made


@pytest.mark.parametrize("name", SHAPES)
async def test_a_result_of_any_shape_is_told(bench: McpBench, name: str) -> None:
    assert await bench.say(name) == SHAPES[name][1]


DONE = [name for name, (_, said) in SHAPES.items() if not said.startswith("error: ")]


@pytest.mark.parametrize("name", DONE)
async def test_a_result_of_any_shape_means_done(bench: McpBench, name: str) -> None:
    assert await bench.say(name, Effect.ONCE) == SHAPES[name][1]


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "bare_text": ({"result": "paid"}, 'it is no object but "paid"'),
    "bare_list": ({"result": [1, 2]}, "it is no object but [1, 2]"),
    "bare_null": ({"result": None}, "it is no object but null"),
    "content_is_a_number": ({"result": {"content": 5}}, "its content is no list but 5"),
    "parts_of_no_kind": (part({}, {"n": 3}), 'nothing in its content is of the protocol\'s shape: [{}, {"n": 3}]'),
    "error_of_no_kind": ({"result": {"content": [words("bad")], "isError": "perhaps"}}, NO_BOOLEAN),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_result_that_cannot_be_read_means_done_and_says_what_it_is(tmp_path: Path, way: Way) -> None:
    plan: dict[str, object] = {"pages": [[listed(name) for name in UNREADABLE]]}
    plan["calls"] = {name: answer for name, (answer, _) in UNREADABLE.items()}
    async with mcp_bench(tmp_path, way, plan) as bench:
        effects = {name: await bench.say(name, Effect.ONCE) for name in UNREADABLE}
        reads = {name: await bench.say(name) for name in UNREADABLE}

    told = {name: f"its result cannot be used: {why}" for name, (_, why) in UNREADABLE.items()}
    assert effects == {name: f"lost: The call was answered; it was done, but {why}" for name, why in told.items()}
    assert reads == {name: f"error: The call was answered; but {why}" for name, why in told.items()}


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_structured_misfit_is_a_sentence(tmp_path: Path, way: Way) -> None:
    tools = [listed("misfit", outputSchema=NUMBER), listed("missing", outputSchema=NUMBER)]
    calls = {"misfit": structured({"n": "many"}, words("many")), "missing": part()}
    async with mcp_bench(tmp_path, way, {"pages": [tools], "calls": calls}) as bench:
        misfit, missing = await bench.say("misfit", Effect.ONCE), await bench.say("missing")

    told = "The call was answered; it was done, but its result cannot be used: it does not fit the tool's own schema"
    assert misfit == f'lost: {told}: n: "many" is not of type "integer"'
    assert missing == (
        "error: The call was answered; but its result cannot be used: "
        "the tool has an output schema but did not return structured content"
    )
