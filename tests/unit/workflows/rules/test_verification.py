"""Checks and probes before they act: which apply, what their tools are given, and what a result is to a condition."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from mandate.activities.checks.findings import Unable, check_condition, parse_value, read_json
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.policy import RunFacts, ToolTotals
from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.contracts.verification import FINAL, CheckPin
from mandate.workflows.rules import verification
from mandate.workflows.rules.cel import evaluation

LONG = {"size": 5000, "digest": "d" * 43, "preview": "Dear"}
ARGS: JsonObject = {"order": 81, "amount": 2.5, "lines": [{"sku": "a"}, None], "cost-center": "7", "letter": LONG}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("args.order", 81),
        ("args.order + 1", 82),
        ("args.amount * 2.0", 5.0),
        ("args.lines", [{"sku": "a"}, None]),
        ("args['cost-center']", "7"),
        ("{'b': args.order, 'a': [key, true, null]}", {"a": ["k1", True, None], "b": 81}),
        ("args.letter.size", 5000),
        ("has(args.nothing) ? args.nothing : 'none'", "none"),
        ("'''it's'''", "it's"),
    ],
)
def test_expression_comes_to_a_value_of_json(text: str, value: JsonValue) -> None:
    found = evaluation.Facts({"args": ARGS, "key": "k1"}).value(text)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("args.nothing", "the key 'nothing' is missing"),
        ("args.order +", "it is no expression of CEL (line 1, column 13)"),
        ("args.order + 'x'", "'+' does not go with a whole number and a text"),
        ("args.letter", "it comes to a text of which only the beginning is known, which is no value of JSON"),
        ("[args.letter]", "it comes to a text of which only the beginning is known, which is no value of JSON"),
        ("timestamp('2026-01-01T00:00:00Z')", "it comes to a time, which is no value of JSON"),
        ("[duration('1s')]", "it comes to a duration, which is no value of JSON"),
        ("b'x'", "it comes to bytes, which is no value of JSON"),
        ("0.0 / 0.0", "it comes to NaN or an infinity, which is no value of JSON"),
        ("18446744073709551615u", "it comes to an integer beyond 64 bits, which is no value of JSON"),
        ("{1: 2}", "it comes to an object with a key that is no text"),
        ("type(1)", "it comes to something, which is no value of JSON"),
    ],
)
def test_expression_without_a_value_says_why(text: str, reason: str) -> None:
    assert evaluation.Facts({"args": ARGS}).value(text) == evaluation.Unevaluable(reason)


def test_variable_that_cannot_be_read_spoils_only_what_reads_it() -> None:
    facts = evaluation.Facts({"args": {"order": 2**70}, "key": "k1"})

    assert facts.value("key") == "k1"
    assert facts.value("args") == evaluation.Unevaluable("args.order is an integer beyond 64 bits")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_every_argument_comes_back_as_it_is(value: JsonValue) -> None:
    found = evaluation.Facts({"args": {"x": value}}).value("args.x")

    assert found == value or found == evaluation.Unevaluable("args.x is not shown, since the arguments are long")


def test_arguments_are_computed_over_the_call_and_its_key() -> None:
    made = verification.compute_arguments({"order": "args.order", "reference": "'r-' + key"}, {"order": 81}, "k1")

    assert made == {"order": 81, "reference": "r-k1"}


def test_call_without_a_key_has_an_empty_one() -> None:
    assert verification.compute_arguments({"reference": "key"}, {}, None) == {"reference": ""}


@pytest.mark.parametrize("text", ["args.currency", " args . currency ", 'args["currency"]', "args['currency']"])
def test_argument_that_the_call_left_out_is_left_out(text: str) -> None:
    expressions = {"order": "args.order", "currency": text}

    assert verification.compute_arguments(expressions, {"order": 81}, "k1") == {"order": 81}
    assert verification.compute_arguments(expressions, {"order": 81, "currency": None}, "k1") == {
        "order": 81,
        "currency": None,
    }


@pytest.mark.parametrize("text", ["args.currency.code", "'x' + args.currency", "[args.currency]"])
def test_what_is_computed_of_a_missing_argument_makes_all_unusable(text: str) -> None:
    made = verification.compute_arguments({"order": "args.order", "currency": text}, {"order": 81}, "k1")

    assert made == evaluation.Unevaluable("the argument 'currency' cannot be computed: the key 'currency' is missing")


@pytest.mark.parametrize(
    ("name", "text"), [("order", "args.order"), ("cost-center", 'args["cost-center"]'), ("in", 'args["in"]')]
)
def test_text_of_an_argument_is_that_argument(name: str, text: str) -> None:
    assert verification.format_argument(name) == text
    assert verification.find_argument(text) == name
    assert verification.compute_arguments({"x": text}, {name: 1}, None) == {"x": 1}


def pin(name: str, after: str, when: str | None = None) -> CheckPin:
    return CheckPin(name=name, after=after, kind="expect", when=when)


def test_checks_are_those_of_the_tool_or_of_the_answer_in_order() -> None:
    checks = (pin("a", "pay"), pin("b", FINAL), pin("c", "pay"), pin("d", "send"))

    assert [check.name for check in verification.select_checks(checks, {"pay"})] == ["a", "c"]
    assert [check.name for check in verification.select_checks(checks, {FINAL})] == ["b"]
    assert verification.select_checks(checks, {"look", "pay--x"}) == ()


PAY = Tool(name="pay", source="python", effect=Effect.ONCE, risk=0.7, tags=("money",), numeric=("amount",))
LOOK = Tool(name="look", source="python", effect=Effect.READ)
RUN = RunFacts(
    id="r1",
    agent="shop",
    version="v1",
    labels={"team": "support"},
    step=3,
    cost_usd=Decimal("0.25"),
    now=datetime(2026, 11, 2, tzinfo=UTC),
    totals={"pay": ToolTotals(calls=1, sums={"amount": Decimal(40)})},
)


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        (None, True),
        ("tool.risk >= 0.5", True),
        ("tool.risk >= 0.8", False),
        ("args.amount > 100.0", True),
        ("run.totals.pay.amount + args.amount > 160.0", True),
        ("run.calls.look == 0", True),
        ("agent.name == 'other'", False),
        ("args.nothing == 1", evaluation.Unevaluable("the key 'nothing' is missing")),
    ],
)
def test_check_of_a_call_applies_by_the_facts_that_policy_sees(
    when: str | None, outcome: bool | evaluation.Unevaluable
) -> None:
    assert verification.applies(pin("a", "pay", when), PAY, {"amount": 120.5}, RUN, tools=(PAY, LOOK)) == outcome


@pytest.mark.parametrize(
    ("when", "outcome"),
    [("run.calls.pay > 0", True), ("run.calls.look > 0", False), ("run.cost_usd > 0.2", True), ("run.tainted", False)],
)
def test_check_of_the_answer_applies_by_the_facts_of_the_run(when: str, outcome: bool) -> None:
    assert verification.applies(pin("a", FINAL, when), None, {}, RUN, tools=(PAY, LOOK)) is outcome


def test_check_of_the_answer_sees_no_call() -> None:
    outcome = verification.applies(pin("a", FINAL, "args.amount > 1.0"), None, {}, RUN)

    assert isinstance(outcome, evaluation.Unevaluable)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("81", 81),
        ('"x"', "x"),
        ("looked at n1", "looked at n1"),
        ("", ""),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ("NaN", "NaN"),
        ('{"a": NaN, "b": [-Infinity]}', {"a": "NaN", "b": ["-Infinity"]}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "\\ud83d\\ude00 \\ud83d"}', {"a": "\U0001f600 \ufffd"}),
        ('{"a": "x\\u0000y"}', {"a": "x\0y"}),
        ('{"a": ' + "1" * 5000 + "}", {"a": "1" * 5000}),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_result_is_the_value_that_it_is_as_json_else_its_text(text: str, value: JsonValue) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("paid", "Expecting value at line 1 column 1"),
        ('{"a": 1, "a": 2}', "a key is given twice"),
        ("[Infinity]", "Infinity is no number of JSON"),
    ],
)
def test_text_that_is_no_json_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        read_json(text)


@pytest.mark.parametrize("levels", [50, 150, 300, 450, 900, 100_000])
def test_result_that_is_nested_deep_is_never_a_crash(levels: int) -> None:
    text = '{"a": ' * levels + "1" + "}" * levels

    with pytest.raises(Unable, match=r"'result\.b == 1' cannot be evaluated: "):
        check_condition("result.b == 1", text, {}, shown=True)


@pytest.mark.parametrize(
    "odd", ["NaN", "-Infinity", '"\\ud83d"', '"a\\u0000b"', "1" * 30, "1" * 5000, '{"\\u0000": 1, "\\ufffd": 2}']
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_one_odd_part_of_a_result_keeps_conditions_from_nothing_else(odd: str, mark: str) -> None:
    text = f'{mark}{{"odd": {odd}, "state": "booked"}}'

    assert check_condition('result.state == "booked"', text, {}, shown=True).finding == "pass"
    assert check_condition('result.odd == "a"', text, {}, shown=True).finding == "fail"


@pytest.mark.parametrize(
    ("condition", "text", "finding", "reason"),
    [
        ("result.status == 'settled'", '{"status":"settled"}', "pass", "\"result.status == 'settled'\" holds"),
        (
            "result.status == 'settled'",
            '{"status":"pending"}',
            "fail",
            '"result.status == \'settled\'" does not hold; the result is {"status":"pending"}',
        ),
        ("result == args.order", "81", "pass", "'result == args.order' holds"),
        ("result.startsWith('looked')", "looked at n1", "pass", "\"result.startsWith('looked')\" holds"),
    ],
)
def test_condition_over_a_result_passes_or_fails(condition: str, text: str, finding: str, reason: str) -> None:
    found = check_condition(condition, text, {"order": 81}, shown=True)

    assert (found.finding, found.reason) == (finding, reason)


def test_condition_that_cannot_be_evaluated_finds_nothing() -> None:
    with pytest.raises(Unable) as unable:
        check_condition("result.status == 'settled'", '{"secret": 1}', {}, shown=False, lasting=True)

    assert unable.value.reason == "\"result.status == 'settled'\" cannot be evaluated: the key 'status' is missing"
    assert unable.value.lasting
