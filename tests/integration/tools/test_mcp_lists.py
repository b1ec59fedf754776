"""Lists of tools of MCP servers with entries that are broken: each costs its own tool, and is named."""

from pathlib import Path

import pytest

from mandate.workflows.contracts.tool import Effect
from tests.support.mcp_bench import WAYS, Way, listed, mcp_bench, text_result

OLD = [way for way in WAYS if way.protocol != "2026-07-28"]
SHAPE = "its answer breaks the protocol: "
BROKEN: dict[str, tuple[object, str]] = {
    "no_schema": ({"name": "broken"}, f"tool 'broken': {SHAPE}inputSchema: Field required"),
    "schema_of_a_list": (
        listed("broken", inputSchema={"type": "array"}),
        f"tool 'broken': {SHAPE}inputSchema.type: Input should be 'object'",
    ),
    "name_is_a_number": ({"name": 5, "inputSchema": {"type": "object"}}, f"tool '(number 1)': {SHAPE}name: Input"),
    "no_name": ({"inputSchema": {"type": "object"}}, f"tool '(number 1)': {SHAPE}name: Field required"),
    "no_object": ("broken", "tool '(number 1)': it is no object"),
    "foreign_schema": (
        listed("broken", inputSchema={"type": "object", "$ref": "http://x/"}),
        "tool 'broken': $ref: 'http://x/' leaves the schema",
    ),
    "long_name": (listed("b" * 200), "its name has 200 characters; at most 128 are allowed"),
}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_entry_costs_its_own_tool(tmp_path: Path, way: Way, kind: str) -> None:
    entry, reason = BROKEN[kind]
    async with mcp_bench(
        tmp_path, way, {"pages": [[entry, listed("good")]], "calls": {"good": text_result("fine")}}
    ) as bench:
        offered = await bench.offered(effect="read")
        said = await bench.say("good")

    assert [made.tool.name for made in offered] == ["good"]
    assert said == "fine"
    (named,) = offered.left_out
    assert named.startswith("MCP server 'peer', tool ")
    assert reason in named


@pytest.mark.parametrize("way", OLD, ids=str)
async def test_an_output_schema_that_the_version_does_not_have_costs_its_own_tool(tmp_path: Path, way: Way) -> None:
    broken = listed("broken", outputSchema={"type": "array", "items": {"type": "string"}})
    async with mcp_bench(tmp_path, way, {"pages": [[broken, listed("good")]], "calls": {}}) as bench:
        offered = await bench.offered(effect="read")

    assert offered.left_out == (
        f"MCP server 'peer', tool 'broken': {SHAPE}outputSchema.type: Input should be 'object'",
    )


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_only_looks_away_from_a_broken_entry(tmp_path: Path, way: Way) -> None:
    plan: dict[str, object] = {"pages": [[{"name": "broken"}, listed("good")]], "calls": {}}
    async with mcp_bench(tmp_path, way, plan) as bench:
        offered = await bench.offered(only=["good"], effect="read")
        with pytest.raises(ValueError, match=r"^MCP server 'peer', tool 'broken': its answer breaks the protocol: inp"):
            await bench.offered(only=["good", "broken"])

    assert ([made.tool.effect for made in offered], offered.left_out) == ([Effect.READ], ())


async def test_a_tool_that_is_listed_twice_costs_itself(tmp_path: Path) -> None:
    plan: dict[str, object] = {"pages": [[listed("twice"), listed("twice"), listed("good")]], "calls": {}}
    async with mcp_bench(tmp_path, WAYS[0], plan) as bench:
        offered = await bench.offered()

    assert [made.tool.name for made in offered] == ["good"]
    assert offered.left_out == ("MCP server 'peer', tool 'twice': the server lists it more than once",)


async def test_a_server_without_any_tool_that_can_be_used_is_refused_with_the_first_reasons(tmp_path: Path) -> None:
    plan: dict[str, object] = {"pages": [[{"name": f"b{number}"} for number in range(5)]], "calls": {}}
    async with mcp_bench(tmp_path, WAYS[0], plan) as bench:
        with pytest.raises(ValueError, match=r"b0.*b1.*b2.*and 2 more$"):
            await bench.offered()


async def test_a_page_without_the_fields_of_its_version_is_read(tmp_path: Path) -> None:
    plan: dict[str, object] = {"pages": [[listed("good")]], "calls": {}, "bare_pages": True}
    async with mcp_bench(tmp_path, WAYS[1], plan) as bench:
        assert list(await bench.tools()) == ["good"]
