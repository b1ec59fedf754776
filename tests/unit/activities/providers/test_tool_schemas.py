"""Tools as vendors take them: schemas that none refuses, and arguments under the tool's own names."""

import json

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from mandate.activities.providers.schema_root import UntellableSchema
from mandate.activities.providers.tool_schemas import OfferedTool, offer, restore_names
from mandate.activities.providers.vendor_rules import RULES, find_count_fault
from mandate.activities.toolbox import arguments
from mandate.activities.toolbox.closed_schemas import close_schema
from mandate.activities.toolbox.schema import check_schema, find_misfit
from mandate.workflows.contracts.base import JsonObject
from tests.support.examples import examples
from tests.support.fake_provider import rules
from tests.support.prompts import ADAPTERS, prompt, tool

OPENAI, ANTHROPIC = RULES["openai.responses"], RULES["anthropic.messages"]
ADAPTER = {protocol: make("http://127.0.0.1:1") for protocol, make in ADAPTERS.items()}
STRING: JsonObject = {"type": "string"}
TOLD = "What t does\n\nThe arguments must also fit this JSON Schema: "
WRITTEN = "at the top of its schema is written out"
IN_WORDS = "at the top of its schema is told in its description"


def anthropic(schema: JsonObject) -> OfferedTool:
    return offer(tool("t", schema), ANTHROPIC)


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_alternatives_of_required_names_are_told(key: str) -> None:
    """As schemas of many MCP servers have them: one of these two arguments."""
    properties: JsonObject = {"text": STRING, "url": STRING}
    alternatives: JsonObject = {key: [{"required": ["text"]}, {"required": ["url"]}]}

    offered = anthropic({"type": "object", "properties": properties, **alternatives})

    assert offered.schema == {"type": "object", "properties": properties}
    assert offered.description == TOLD + json.dumps(alternatives, separators=(",", ":"))
    assert offered.changes == (f"{key!r} {IN_WORDS}",)


ARGS: JsonObject = {"type": "object", "properties": {"a": STRING}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "sent", "lost"),
    [
        # One alternative is no choice: arguments are always an object.
        ({"anyOf": [ARGS, {"type": "null"}]}, ARGS, None),
        ({"anyOf": [ARGS]}, ARGS, None),
        ({"allOf": [ARGS, {"properties": {"b": {}}}]}, {**ARGS, "properties": {"a": STRING, "b": {}}}, None),
        ({"$ref": "#/$defs/A", "$defs": {"A": ARGS}}, {**ARGS, "$defs": {"A": ARGS}}, None),
        # What all alternatives demand is demanded; what they say of one argument differently may be either.
        (
            {
                "oneOf": [
                    {"properties": {"kind": {"const": 1}, "x": STRING}, "required": ["kind", "x"]},
                    {"properties": {"kind": {"const": 2}}, "required": ["kind"]},
                ]
            },
            {
                "type": "object",
                "properties": {"kind": {"anyOf": [{"const": 1}, {"const": 2}]}, "x": STRING},
                "required": ["kind"],
            },
            "oneOf",
        ),
        # Declared in both places: both hold.
        (
            {"properties": {"a": STRING}, "allOf": [{"properties": {"a": {"minLength": 2}}}]},
            {"type": "object", "properties": {"a": {"allOf": [STRING, {"minLength": 2}]}}},
            None,
        ),
        ({**ARGS, "not": {"required": ["b"]}}, ARGS, "not"),
        ({**ARGS, "enum": [{"a": "1"}]}, ARGS, "enum"),
        ({**ARGS, "const": {"a": "1"}}, ARGS, "const"),
        # What stands behind the reference is told too.
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {**ARGS, "not": {}}}},
            {**ARGS, "$defs": {"A": {**ARGS, "not": {}}}},
            "not",
        ),
    ],
)
def test_top_is_one_object(schema: JsonObject, sent: JsonObject, lost: str | None) -> None:
    offered = anthropic(schema)

    assert offered.schema == sent
    if lost is None:
        assert offered.description == "What t does"
    else:
        told = json.loads(offered.description.removeprefix(TOLD))
        assert list(told) == [lost]


def test_schema_that_is_too_long_to_be_told_is_said_to_be_one() -> None:
    schema: JsonObject = {"anyOf": [{"required": [f"name_{number}"]} for number in range(100)]}

    assert anthropic(schema).description == (
        "What t does\n\nThe arguments must fit more than this schema says; a call that does not fit is told why."
    )


def test_schema_that_branches_without_end_is_refused() -> None:
    many: JsonObject = {"anyOf": [{"properties": {f"a{number}": {}}} for number in range(900)]}
    assert len(anthropic(many).schema["properties"]) == 900  # type: ignore[arg-type]
    # Forty definitions that name the next one twice: 2 to the power of 40 alternatives.
    twice: JsonObject = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}

    with pytest.raises(UntellableSchema) as caught:
        anthropic({"$ref": "#/$defs/d0", "$defs": {**twice, "d40": {"type": "object"}}})

    assert str(caught.value) == "its schema has more than 1000 alternatives at the top"


def test_schema_as_deep_as_a_tool_may_have_is_told() -> None:
    deep: JsonObject = {"type": "object"}
    for _ in range(100):
        deep = {"type": "object", "properties": {"a b": deep}}

    sent = json.dumps(anthropic(deep).schema)

    assert (sent.count('"a_b"'), sent.count('"a b"')) == (100, 0)


def test_references_to_what_has_moved_are_kept() -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {"b": {"$ref": "#/anyOf/0/properties/a"}, "self": {"$ref": "#"}},
        "anyOf": [
            {"properties": {"a": {"properties": {"c": {"$ref": "#/anyOf/0/properties/a"}}}}},
            {"required": ["b"]},
        ],
    }

    sent = anthropic(schema).schema

    part: JsonObject = {"properties": {"c": {"$ref": "#/$defs/moved_1"}}}
    assert sent == {
        "type": "object",
        "properties": {"b": {"$ref": "#/$defs/moved_1"}, "self": {"$ref": "#"}, "a": part},
        "$defs": {"moved_1": part},
    }


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "'$ref' at the top of its schema leads nowhere: '#'"),
        ({"$ref": "#/$defs/no"}, "'$ref' at the top of its schema leads nowhere: '#/$defs/no'"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "'$ref' at the top of its schema leads nowhere: '#/$defs/a'",
        ),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "'anyOf' at the top of its schema takes no object"),
        ({"allOf": [{"type": "string"}]}, "'allOf' at the top of its schema takes no object"),
    ],
)
def test_schema_that_no_vendor_takes_is_refused(schema: JsonObject, why: str) -> None:
    with pytest.raises(UntellableSchema) as caught:
        anthropic(schema)

    assert str(caught.value) == why


def test_schemas_of_earlier_drafts_are_2020_12() -> None:
    schema: JsonObject = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "properties": {
            "pair": {"type": "array", "items": [STRING, {}], "additionalItems": False},
            "above": {"minimum": 1, "exclusiveMinimum": True},
            "from": {"maximum": 1, "exclusiveMaximum": False},
        },
    }

    offered = anthropic(schema)

    assert offered.schema["properties"] == {
        "pair": {"type": "array", "prefixItems": [STRING, {}], "items": False},
        "above": {"exclusiveMinimum": 1},
        "from": {"maximum": 1},
    }
    assert offered.changes == ("its draft of JSON Schema is written as 2020-12",)


def test_patterns_that_vendors_cannot_read_are_told() -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": r"^\p{L}+$", "description": "A name."}},
        "patternProperties": {r"^\p{L}$": {}, "^x": {}},
        "additionalProperties": False,
    }

    offered = offer(tool("t", schema), OPENAI)

    assert offered.schema == {
        "type": "object",
        "properties": {"name": {"type": "string", "description": r"A name. Pattern: ^\p{L}+$"}},
        "patternProperties": {"^x": {}},
    }
    assert offered.changes == (
        r"pattern '^\\p{L}+$' is told in a description",
        "names of arguments by a pattern that vendors cannot read are left out",
    )


def test_lists_say_what_is_in_them_where_that_is_demanded() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a": {"type": ["array", "null"]}, "items": STRING}}

    assert offer(tool("t", schema), OPENAI).schema["properties"] == {
        "a": {"type": ["array", "null"], "items": {}},
        "items": STRING,
    }
    assert anthropic(schema).schema == schema


FILTERS: JsonObject = {
    "type": "object",
    "properties": {
        "filter[id]": STRING,
        "$top": {"type": "integer"},
        "page.size": {"type": "integer"},
        "in": {"type": "array", "items": {"type": "object", "properties": {"@type": STRING}}},
        "free": {"type": "object", "additionalProperties": True},
    },
    "required": ["filter[id]"],
    "dependentRequired": {"$top": ["filter[id]"]},
    "additionalProperties": False,
}


def test_names_of_arguments_are_those_that_the_vendor_takes() -> None:
    offered = anthropic(FILTERS)

    assert offered.names == {"$top": "top", "@type": "type", "filter[id]": "filter_id"}
    assert list(offered.schema["properties"]) == ["filter_id", "top", "page.size", "in", "free"]  # type: ignore[arg-type]
    assert (offered.schema["required"], offered.schema["dependentRequired"]) == (["filter_id"], {"top": ["filter_id"]})
    assert offered.changes == (
        "argument '$top' is called 'top'",
        "argument '@type' is called 'type'",
        "argument 'filter[id]' is called 'filter_id'",
    )
    assert offer(tool("t", FILTERS), OPENAI) == OfferedTool("What t does", FILTERS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('{"filter_id": "7", "top": 1e2}', '{"filter[id]":"7","$top":1e2}'),
        ('{"filter[id]": "7"}', '{"filter[id]":"7"}'),
        ('{"in": [{"type": "x"}, 5]}', '{"in":[{"@type":"x"},5]}'),
        # In a map the names are the caller's own.
        ('{"free": {"top": 1, "filter_id": {"type": 2}}}', '{"free":{"top":1,"filter_id":{"type":2}}}'),
        # Both of them: the call is refused, since a name is given twice.
        ('{"filter_id": "7", "filter[id]": "8"}', '{"filter[id]":"7","filter[id]":"8"}'),
        ('{"filter_id": "7', '{"filter_id": "7'),
        ("[1]", "[1]"),
        ("", ""),
        ('{"filter_id": "\\ud83d"}', '{"filter[id]":"\\ud83d"}'),
    ],
)
def test_arguments_are_read_under_the_names_of_the_tool(written: str, read: str) -> None:
    assert restore_names(tool("t", FILTERS), anthropic(FILTERS), written) == read


def test_two_names_that_would_become_one_stay_two() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a b": {}, "a/b": {}, "a_b": {}, "x" * 70: {}, "": {}}}

    offered = anthropic(schema)

    sent = list(offered.schema["properties"])  # type: ignore[arg-type]
    assert len(set(sent)) == 5
    assert "a_b" in sent
    assert "a_b" not in offered.names.values()
    assert anthropic(schema).names == offered.names


def test_name_that_is_only_demanded_is_taken_too() -> None:
    schema: JsonObject = {"type": "object", "properties": {"a b": {}}, "required": ["a b", "a_b"]}

    assert anthropic(schema).schema["required"] == ["a_b_c8687a08aa", "a_b"]


def test_as_many_tools_as_a_vendor_takes() -> None:
    assert find_count_fault("openai", "openai.responses", 128) is None
    assert find_count_fault("openai", "openai.responses", 129) == (
        "openai takes at most 128 tools, and this agent has 129, built-in ones included"
    )
    assert find_count_fault("vllm", "openai.chat", 1000) is None
    assert find_count_fault("anthropic", "anthropic.messages", 1000) is None


names = st.sampled_from(["a", "b", "filter[id]", "filter_id", "$top", "x" * 70, "", "größe"])
leaves = st.sampled_from(
    [{"type": "string"}, {"type": "array"}, {"pattern": r"^\p{L}$"}, {}, True, {"$ref": "#/$defs/one"}, {"$ref": "#"},
     {"type": "array", "prefixItems": [{}]}, {"enum": ["a", 1]}, {"$ref": "#/properties/a"}, {"$ref": "#/anyOf/0"}]
)  # fmt: skip


def objects(inner: st.SearchStrategy[object]) -> st.SearchStrategy[JsonObject]:
    branches = st.lists(inner, min_size=1, max_size=2)
    keys: dict[str, st.SearchStrategy[object]] = {
        "type": st.just("object"),
        "properties": st.dictionaries(names, inner, max_size=3),
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": st.booleans(),
        "anyOf": branches,
        "oneOf": branches,
        "allOf": branches,
        "not": inner,
        "enum": st.just([{"a": "x"}, {}]),
        "if": inner,
        "$ref": st.just("#/$defs/one"),
    }
    return st.fixed_dictionaries({}, optional=keys)


schemas = st.builds(
    lambda own, definition: {**own, "type": "object", "$defs": {"one": definition}},
    objects(st.recursive(leaves, objects, max_leaves=6)),
    objects(leaves),
)


@pytest.mark.parametrize("protocol", list(RULES))
@given(schema=schemas, closed=st.booleans())
@examples(40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_no_schema_that_is_told_is_refused(protocol: str, schema: JsonObject, closed: bool) -> None:
    """Whatever schema passes the checks of files is either taken by the vendor or refused in a sentence of ours."""
    try:
        check_schema(schema)
        whole = close_schema(schema) if closed else schema
        offer(tool("t", whole), RULES[protocol])  # type: ignore[index]
    except ValueError as error:
        assume(not isinstance(error, UntellableSchema))
        return

    # The instructions tell one agent from another.
    request = ADAPTER[protocol].request(prompt(tools=(tool("t", whole),), instructions=json.dumps(whole)))
    body = json.loads(request)

    rules.check(protocol, body, {"anthropic-version": "2026-10-21"})


@given(schema=schemas, value=st.dictionaries(names, st.sampled_from(["x", 1, {"a": "x"}, ["x"], None]), max_size=3))
@examples(60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_arguments_that_fit_the_tool_fit_what_is_told(schema: JsonObject, value: JsonObject) -> None:
    """Where all of a schema is told, a call that the tool would take fits, and comes back as it was meant."""
    definition = tool("t", schema)
    try:
        check_schema(schema)
        offered = offer(definition, ANTHROPIC)
    except ValueError:
        assume(False)
    assume(find_misfit(schema, value) is None and not set(value) & set(offered.names.values()))
    declared = offered.schema["properties"]
    assert isinstance(declared, dict)
    sent = {name: offered.names.get(name, name) for name in value}
    renamed = {sent[name] if sent[name] in declared else name: item for name, item in value.items()}

    if offered.description == definition.description:
        assert find_misfit(offered.schema, renamed) is None
    assert json.loads(restore_names(definition, offered, json.dumps(renamed))) == value


def test_whole_schema_judges_the_call() -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {"text": STRING, "url": STRING},
        "anyOf": [{"required": ["text"]}, {"required": ["url"]}],
    }

    with pytest.raises(ValueError, match="fits no alternative"):
        arguments.read(tool("t", schema), "{}")
    assert arguments.read(tool("t", schema), '{"url": "x"}') == {"url": "x"}
