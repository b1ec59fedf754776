"""Functions as tools: schemas, descriptions, settings, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue
from typing_extensions import Doc, TypedDict

from mandate.activities.toolbox.decorator import (
    InvalidTool,
    ToolContext,
    define_tool,
    find_settings,
    load_function,
    read_tool,
    tool,
)
from mandate.activities.toolbox.signature import read_signature
from mandate.workflows.contracts.tool import Effect
from mandate.workflows.contracts.tool_entry import PythonTool


class Refund(BaseModel):
    """What to pay back."""

    order: int
    reason: Annotated[str, Field(description="Told to the customer.")] = "return"


@tool(
    effect="keyed",
    timeout="30s",
    retries=4,
    key_valid="24h",
    untrusted=True,
    tags=["money"],
    risk=0.5,
    sensitive=["note"],
)
async def issue_refund(  # noqa: D417
    order: int,
    amount: Annotated[float, Field(gt=0)],
    context: ToolContext,
    method: Literal["card", "bank"] = "card",
    note: str | None = None,
) -> str:
    """Pay money back.

    Only for settled orders.

    Args:
        order: Number of the order.
        amount: Euros.
        context: Not an argument of the model.
        method: Where the money goes.
    """
    return f"{order} {amount} {method} {note} {context.attempt}"


def test_hints_and_docstring_become_schema_and_descriptions() -> None:
    made = define_tool(issue_refund)

    assert made.description == "Pay money back.\n\nOnly for settled orders."
    assert made.input_schema == {
        "type": "object",
        "properties": {
            "order": {"type": "integer", "description": "Number of the order."},
            "amount": {"type": "number", "exclusiveMinimum": 0, "description": "Euros."},
            "method": {
                "type": "string",
                "enum": ["card", "bank"],
                "default": "card",
                "description": "Where the money goes.",
            },
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["order", "amount"],
        "additionalProperties": False,
    }


class Line(BaseModel):
    """A line of an order."""

    count: Annotated[int, "How many."]
    code: Annotated[str, Field(alias="sku"), "Of the shop."]
    note: Annotated[str, "Free text."] | None = None


@dataclass
class Parcel:
    weight: Annotated[float, "In kilograms."]


class Place(TypedDict):
    city: Annotated[str, Doc("Where to.")]


def properties_of(function: Callable[..., object], *path: str) -> dict[str, JsonValue]:
    """Return the description of each property of the arguments, or of a definition at `path`."""
    part: JsonValue = read_signature(function).schema()
    for name in path:
        assert isinstance(part, dict)
        part = part[name]
    assert isinstance(part, dict)
    shown = part["properties"]
    assert isinstance(shown, dict)
    return {name: one.get("description") for name, one in shown.items() if isinstance(one, dict)}


def test_annotated_texts_describe_arguments() -> None:
    def send(  # noqa: D417
        plain: Annotated[str, "A text."],
        field: Annotated[int, Field(gt=0, description="A field.")],
        both: Annotated[int, "A text.", Field(description="A field is first.")],
        doc: Annotated[str, Doc("A doc.")],
        maybe: Annotated[str, "Or none."] | None,
        constrained: Annotated[int, Field(gt=0), "With a limit."],
        bare: str,
        context: Annotated[ToolContext, "Not the model's."],
    ) -> None:
        """Send.

        Args:
            plain: The docstring is last.
            bare: From the docstring.
        """

    assert properties_of(send) == {
        "plain": "A text.",
        "field": "A field.",
        "both": "A field is first.",
        "doc": "A doc.",
        "maybe": "Or none.",
        "constrained": "With a limit.",
        "bare": "From the docstring.",
    }


def test_annotated_texts_describe_what_is_inside_an_argument() -> None:
    def send(names: list[Annotated[str, "A name."]], by: dict[str, tuple[Annotated[int, "Count."], ...]]) -> None: ...

    shown = read_signature(send).schema()["properties"]

    assert shown == {
        "names": {"type": "array", "items": {"type": "string", "description": "A name."}},
        "by": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "integer", "description": "Count."}},
        },
    }


def test_annotated_texts_describe_alternatives() -> None:
    def send(
        one: Annotated[int, "A number."] | None,
        both: Annotated[int, "A number."] | Annotated[str, "A name."],
        many: list[Annotated[int, "A number."] | None],
    ) -> None: ...

    number, name = {"type": "integer", "description": "A number."}, {"type": "string", "description": "A name."}
    either = {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "A number."}

    assert read_signature(send).schema()["properties"] == {
        "one": either,
        "both": {"anyOf": [number, name]},
        "many": {"type": "array", "items": either},
    }


def test_annotated_texts_describe_the_fields_of_an_argument() -> None:
    def send(line: Line, parcel: Parcel, place: Place) -> None: ...

    assert properties_of(send, "$defs", "Line") == {"count": "How many.", "sku": "Of the shop.", "note": "Free text."}
    assert properties_of(send, "$defs", "Parcel") == {"weight": "In kilograms."}
    assert properties_of(send, "$defs", "Place") == {"city": "Where to."}


def test_docstring_describes_the_fields_of_the_one_model() -> None:
    def refund(request: Annotated[Refund, "All of it."]) -> None:  # noqa: D417
        """Refund.

        Args:
            order: Its number.
            reason: The model says it already.
        """

    assert properties_of(refund) == {"order": "Its number.", "reason": "Told to the customer."}
    assert read_signature(refund).bind({"order": 7}, ToolContext.for_tests()) == {"request": Refund(order=7)}


class Bare(BaseModel):
    order: int


def test_docstring_describes_the_one_model_that_says_nothing_of_itself() -> None:
    def refund(request: Bare) -> None:
        """Refund.

        :param request: The order to refund.
        """

    assert read_signature(refund).schema()["description"] == "The order to refund."


def test_half_of_an_emoji_in_a_description_is_replaced() -> None:
    def send(text: Annotated[str, "Cut \ud83d"] = "\ud83d\ude00") -> None:
        """Send \ud83d."""

    made = define_tool(send)

    assert made.description == "Send \ufffd."
    assert made.input_schema["properties"] == {
        "text": {"type": "string", "default": "\U0001f600", "description": "Cut \ufffd"}
    }


def test_default_that_json_has_no_form_for_is_refused() -> None:
    def weigh(limit: float = float("nan")) -> None: ...

    with pytest.raises(InvalidTool) as refused:
        define_tool(weigh)

    assert str(refused.value) == (
        f"{__name__}:test_default_that_json_has_no_form_for_is_refused.<locals>.weigh: "
        "the schema of its arguments holds NaN or an infinity, which JSON has no form for"
    )


ORDERS = {
    "type": "object",
    "properties": {"order": {"type": "integer", "minimum": 1, "description": "Its number."}, "on": {"type": "string"}},
    "required": ["order"],
}


def test_schema_that_is_given_is_the_tools() -> None:
    @tool(effect="read", input_schema=ORDERS, sensitive=["on"])
    def find(order, context: ToolContext, on: date | None = None):
        return order

    made = define_tool(find)
    context = ToolContext.for_tests()

    assert made.input_schema == ORDERS
    assert read_tool(find).bind({"order": 7, "on": "2026-11-29"}, context) == {
        "order": 7,
        "on": date(2026, 11, 29),
        "context": context,
    }


def test_function_with_keywords_takes_what_its_schema_names() -> None:
    @tool(input_schema=ORDERS)
    def find(**given):
        return given

    assert define_tool(find).input_schema == ORDERS
    assert read_tool(find).bind({"order": 7, "a0": 1}, ToolContext.for_tests()) == {"order": 7, "a0": 1}


def order_only(order): ...
def order_and_more(order, more, on=None): ...
def order_on(order, on=None): ...


@pytest.mark.parametrize(
    ("schema", "function", "message"),
    [
        ([1], order_on, "input_schema [1] is not a mapping"),
        ({}, order_on, "input_schema must be the JSON Schema of an object, with 'type': 'object'"),
        ({"type": "array"}, order_on, "input_schema must be the JSON Schema of an object, with 'type': 'object'"),
        (
            {"type": "object", "default": {1}},
            order_on,
            "input_schema is no JSON: TypeError: Object of type set is not JSON serializable",
        ),
        (ORDERS, order_only, "order_only: input_schema has the property 'on', which is no parameter of it"),
        (
            ORDERS,
            order_and_more,
            "order_and_more: parameter 'more' has no default, so input_schema must name it under 'required'",
        ),
        (
            {**ORDERS, "additionalProperties": True},
            order_on,
            "order_on: input_schema takes more arguments by 'additionalProperties', and it has no '**kwargs'",
        ),
    ],
)
def test_schema_that_the_function_cannot_take_is_refused(
    schema: dict[str, object], function: Callable[..., object], message: str
) -> None:
    with pytest.raises(InvalidTool) as refused:
        define_tool(tool(input_schema=schema)(function))

    assert str(refused.value).removeprefix(f"{__name__}:") == message


def test_decorator_settings_reach_the_tool() -> None:
    made = define_tool(issue_refund).tool

    assert (made.name, made.source, made.effect) == ("issue_refund", "python", Effect.KEYED)
    assert (made.timeout, made.retries, made.key_valid) == (timedelta(seconds=30), 4, timedelta(days=1))
    assert (made.untrusted, made.tags, made.sensitive) == (True, ("money",), ("note",))
    assert made.risk == 0.5


def test_agent_file_overrides_the_decorator() -> None:
    entry = PythonTool.model_validate(
        {
            "python": "shop:issue_refund",
            "name": "refund",
            "description": "Refund.",
            "effect": "once",
            "timeout": "5s",
            "retries": 0,
            "patience": "90s",
            "untrusted": False,
            "tags": [],
            "risk": 0.25,
            "sensitive": [],
            "result_limit": 512,
        }
    )

    made = define_tool(issue_refund, entry)

    assert made.tool.model_dump(exclude={"remote", "child", "numeric", "variant_of"}) == {
        "name": "refund",
        "source": "python",
        "effect": Effect.ONCE,
        "timeout": timedelta(seconds=5),
        "retries": 0,
        "patience": timedelta(seconds=90),
        "key_valid": None,
        "tags": (),
        "risk": 0.25,
        "untrusted": False,
        "sensitive": (),
    }
    assert (made.description, made.result_limit_bytes) == ("Refund.", 512)


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        ({"key_valid": "1h"}, timedelta(hours=1)),
        ({}, timedelta(days=1)),
        ({"effect": "idempotent"}, None),
    ],
)
def test_key_is_valid_as_long_as_the_agent_file_says_or_the_decorator(
    settings: dict[str, object], valid: timedelta | None
) -> None:
    entry = PythonTool.model_validate({"python": "shop:issue_refund", **settings})

    assert define_tool(issue_refund, entry).tool.key_valid == valid


def test_validity_of_a_key_that_is_not_sent_is_refused() -> None:
    def rename(order: int) -> None:
        pass

    with pytest.raises(InvalidTool) as refused:
        define_tool(rename, PythonTool(python="shop:rename", key_valid=timedelta(hours=1)))

    assert str(refused.value) == "shop:rename: key_valid belongs to the effect 'keyed'; this tool is 'once'"


def test_undecorated_function_has_the_careful_defaults() -> None:
    def rename(order: int) -> None:
        pass

    made = define_tool(rename).tool

    assert (made.effect, made.timeout, made.retries) == (Effect.ONCE, timedelta(seconds=60), None)
    assert made.patience is None
    assert (made.untrusted, made.tags, made.sensitive) == (False, (), ())


def test_bare_decorator_marks_and_returns_the_function() -> None:
    def twice(number: int) -> int:
        return 2 * number

    decorated = tool(twice)

    assert decorated is twice
    assert decorated(4) == 8
    assert find_settings(twice) is not None


def test_single_model_parameter_takes_all_arguments() -> None:
    def refund(request: Refund, context: ToolContext) -> None:
        pass

    takes = read_signature(refund)
    context = ToolContext.for_tests()

    assert takes.schema()["required"] == ["order"]
    assert takes.bind({"order": 7}, context) == {"request": Refund(order=7), "context": context}


def test_model_among_others_is_one_argument() -> None:
    def refund(request: Refund, urgent: bool) -> None:
        pass

    assert read_signature(refund).schema()["required"] == ["request", "urgent"]


def test_argument_names_that_pydantic_uses_itself_are_possible() -> None:
    def odd(json: str, copy: bool, _id: int, model_dump: int, source: Annotated[str, Field(alias="from")]) -> None:
        pass

    bound = read_signature(odd).bind(
        {"json": "a", "copy": True, "_id": 1, "model_dump": 2, "from": "b"}, ToolContext.for_tests()
    )

    assert bound == {"json": "a", "copy": True, "_id": 1, "model_dump": 2, "source": "b"}


def test_argument_left_out_keeps_the_functions_default() -> None:
    marker = ["the very same list"]

    def find(term: str, seen: list[str] = marker) -> None:
        pass

    assert read_signature(find).bind({"term": "x"}, ToolContext.for_tests()) == {"term": "x"}


def test_misfit_is_told_without_its_value() -> None:
    takes = read_signature(issue_refund)

    with pytest.raises(ValueError, match="amount: Input should be greater than 0") as refused:
        takes.bind({"order": 1, "amount": -271828.0}, ToolContext.for_tests())

    assert "271828" not in str(refused.value)


def stars(*orders: int) -> None: ...
def keywords(**orders: int) -> None: ...
def positional(order: int, /) -> None: ...
def unhinted(order) -> None: ...
def field_default(order: int = Field(default=1)) -> None: ...
def generator(order: int):
    yield order


class Callme: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (stars, "'*orders' has no schema; name every argument"),
        (keywords, "'**orders' has no schema; name every argument"),
        (positional, "argument 'order' is positional-only; remove the '/'"),
        (unhinted, "argument 'order' has no type hint, for example 'order: str'"),
        (field_default, "argument 'order': write Annotated[type, Field(...)], not '= Field(...)'"),
        (generator, "is a generator; a tool returns one result"),
        (Callme, "is not a function"),
    ],
)
def test_function_without_a_schema_is_refused_where_it_is_decorated(
    function: Callable[..., object], message: str
) -> None:
    with pytest.raises(InvalidTool) as refused:
        tool(function)

    assert function.__name__ in str(refused.value)
    assert str(refused.value).endswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"effect": "onc"}, "effect 'onc' is not one of read, idempotent, keyed, once"),
        ({"timeout": "5"}, "timeout '5': a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'"),
        ({"timeout": 5}, "timeout 5: a duration needs a unit, for example '30s', '5m', '2h' or '1d'"),
        ({"timeout": "0s"}, "timeout '0s' is not a positive duration, for example '30s'"),
        ({"effect": "keyed", "key_valid": "0s"}, "key_valid '0s' is not a positive duration, for example '30s'"),
        ({"key_valid": "1h"}, "key_valid belongs to the effect 'keyed'; this tool is 'once'"),
        ({"retries": 21}, "retries 21 is not a number from 0 to 20"),
        ({"risk": -0.1}, "risk -0.1 is not a number from 0 on, for example 0.7"),
        ({"risk": float("nan")}, "risk nan is not a number from 0 on, for example 0.7"),
        ({"risk": float("inf")}, "risk inf is not a number from 0 on, for example 0.7"),
        ({"risk": "high"}, "risk 'high' is not a number from 0 on, for example 0.7"),
        ({"risk": True}, "risk True is not a number from 0 on, for example 0.7"),
        ({"tags": "money"}, "tags 'money' is not a list of texts, for example tags=['a']"),
    ],
)
def test_setting_out_of_range_is_refused_where_it_is_written(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidTool) as refused:
        tool(**settings)  # type: ignore[call-overload]

    assert str(refused.value) == message


def test_type_without_a_json_form_is_named() -> None:
    class Connection: ...

    def query(text: str, connection: Connection) -> None:
        pass

    query.__annotations__["connection"] = Connection

    with pytest.raises(InvalidTool, match="argument 'connection' has a type without a JSON form"):
        define_tool(query)


def test_unresolvable_hint_is_named() -> None:
    def query(text: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    with pytest.raises(InvalidTool, match="type hints cannot be resolved: NameError: name 'Missing' is not defined"):
        define_tool(query)


def test_sensitive_argument_must_exist() -> None:
    def pay(card: str) -> None:
        pass

    with pytest.raises(InvalidTool, match="sensitive argument 'cards' is not one of its arguments"):
        define_tool(pay, PythonTool(python="shop:pay", sensitive=("cards",)))


def test_name_that_providers_refuse_is_refused() -> None:
    def _hidden(order: int) -> None:
        pass

    with pytest.raises(InvalidTool, match="tool name '_hidden' is not a letter and up to 63"):
        define_tool(_hidden)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("reg_good:lookup", "module 'reg_good' has no function 'lookup'; did you mean 'look_up'?"),
        ("reg_good:zzz", "module 'reg_good' has no function 'zzz'; it has look_up"),
        ("reg_good:NUMBER", "'reg_good:NUMBER' is not a function but int"),
        ("reg_absent:f", "module 'reg_absent' is not found; looked in "),
        ("reg_needs:f", "module 'reg_needs' does not import: ModuleNotFoundError: No module named 'reg_stripe'"),
        ("reg_breaks:f", "module 'reg_breaks' does not import: ZeroDivisionError: division by zero"),
        ("reg_exits:f", "module 'reg_exits' does not import: SystemExit: 3"),
        ("reg_panics:f", "module 'reg_panics' does not import: Panic: the library is broken"),
        (
            "reg_syntax:f",
            "module 'reg_syntax' does not import: SyntaxError: '(' was never closed (reg_syntax.py, line 1)",
        ),
    ],
)
def test_function_that_cannot_be_loaded_is_said_why(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reg_good.py").write_text("NUMBER = 1\ndef look_up(order: int) -> str:\n    return 'x'\n")
    (tmp_path / "reg_needs.py").write_text("import reg_stripe\n")
    (tmp_path / "reg_breaks.py").write_text("1 / 0\n")
    (tmp_path / "reg_exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "reg_panics.py").write_text("class Panic(BaseException): ...\nraise Panic('the library is broken')\n")
    (tmp_path / "reg_syntax.py").write_text("f(\n")

    with pytest.raises(InvalidTool) as refused:
        load_function(path)

    assert str(refused.value).startswith(message)


CACHE_LIMIT = "a result answers other calls for at most 24h"
CACHE_READS = "belongs to the effect 'read'; this tool is {!r}, and each of its calls is made"
CACHE_SENSITIVE = "results of a tool with sensitive arguments may repeat them, so they are never kept for other calls"


@tool(effect="read", cache="10m")
def kept(order: int) -> str:
    """Look an order up."""
    return str(order)


@pytest.mark.parametrize(
    ("settings", "lifetime"),
    [
        ({}, timedelta(minutes=10)),
        ({"cache": "24h"}, timedelta(hours=24)),
        ({"cache": None}, None),
        ({"effect": "once"}, None),
    ],
)
def test_file_says_how_long_results_are_kept_or_the_function(
    settings: dict[str, object], lifetime: timedelta | None
) -> None:
    entry = PythonTool.model_validate({"python": f"{__name__}:kept", **settings})

    assert define_tool(kept, entry).cache == lifetime


def test_nothing_is_kept_that_does_not_ask_for_it() -> None:
    assert define_tool(issue_refund).cache is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cache": "1m"}, f"cache {CACHE_READS.format('once')}"),
        ({"cache": "1m", "effect": "keyed"}, f"cache {CACHE_READS.format('keyed')}"),
        ({"cache": "1m", "effect": "read", "sensitive": ["order"]}, f"cache: {CACHE_SENSITIVE}"),
        ({"cache": "25h", "effect": "read"}, f"cache '25h': {CACHE_LIMIT}"),
        ({"cache": "0s", "effect": "read"}, "cache '0s' is not a positive duration, for example '30s'"),
    ],
)
def test_cache_that_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidTool) as refused:
        tool(**settings)

    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("function", "settings", "says"),
    [
        (issue_refund, {"cache": "1m"}, f"cache {CACHE_READS.format('keyed')}"),
        (issue_refund, {"cache": "1m", "effect": "read"}, f"cache: {CACHE_SENSITIVE}"),
        (kept, {"sensitive": ["order"]}, f"cache: {CACHE_SENSITIVE}"),
    ],
)
def test_cache_of_the_file_that_the_function_cannot_have_is_refused(
    function: Callable[..., Any], settings: dict[str, Any], says: str
) -> None:
    path = f"{__name__}:{function.__name__}"

    with pytest.raises(InvalidTool) as refused:
        define_tool(function, PythonTool.model_validate({"python": path, **settings}))

    assert str(refused.value) == f"{path}: {says}"
