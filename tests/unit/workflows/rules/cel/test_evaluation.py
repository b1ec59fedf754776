"""Conditions: what they come to, why some cannot be evaluated, and what they may cost."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.toolbox import arguments
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.rules.cel import cost, evaluation, tree
from mandate.workflows.rules.cel.evaluation import Facts, Unevaluable

NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
LONG = {"digest": digest_of(b"x"), "size": 5000, "preview": "Dear Sir"}
SHORT = {"digest": digest_of(b"x"), "size": 300, "preview": "Dear Sir"}
BIG = 2**63


def outcome(text: str, args: object = None, run: object = None) -> evaluation.Outcome:
    return Facts({"args": args or {}, "run": run or {}}).evaluate(text)


def reason(text: str, args: object = None, run: object = None) -> str:
    found = outcome(text, args, run)
    assert isinstance(found, Unevaluable), found
    return found.reason


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("args.amount >= 100.0", {"amount": 100.0}, True),
        ("args.amount >= 100.0", {"amount": 99.99}, False),
        ("args.amount >= 100.0", {"amount": 100}, True),
        ("args.amount >= 100.0", {"amount": Decimal("99.9")}, False),
        ("args.n == 9223372036854775807", {"n": 2**63 - 1}, True),
        ("args.n == -9223372036854775808", {"n": -(2**63)}, True),
        ("args.a == null && args.b == true", {"a": None, "b": True}, True),
        ("args.items.exists(i, i.sku == 'b' && i.qty > 3)", {"items": [{"sku": "b", "qty": 5}]}, True),
        ("args.to.all(t, t.endsWith('@example.com'))", {"to": ("a@example.com", "b@else.com")}, False),
        ("has(args.note) && args.note == 'x'", {}, False),
        ("args['order-id'] == 'ä'", {"order-id": "ä"}, True),
        ("args.missing == 1 || true", {}, True),
        ("args.missing == 1 && false", {}, False),
        ("args.text.matches('^[a-z]+$')", {"text": "abc"}, True),
    ],
)
def test_condition_comes_to(text: str, args: object, expected: bool) -> None:
    assert outcome(text, args) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run.now.getHours() == 9", True),
        ("run.now.getHours('+02:00') == 11", True),
        ("run.now.getDayOfWeek() == 1", True),
        ("run.now > timestamp('2026-11-02T09:29:59Z')", True),
        ("run.now - duration('1h') > timestamp('2026-11-02T09:00:00Z')", False),
        ("has(run.now) && run['now'] == timestamp('2026-11-02T10:30:00+01:00')", True),
    ],
)
def test_time_of_the_run(text: str, expected: bool) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))

    assert outcome(text, run={"now": NOW}) is expected
    assert outcome(text, run={"now": NOW.astimezone(zone)}) is expected


@pytest.mark.parametrize(
    ("text", "args", "why"),
    [
        ("args.amount > 1.0", {}, "the key 'amount' is missing"),
        ("args.order.amount > 1.0", {"order": {}}, "the key 'amount' is missing"),
        ("{'a': 1}[args.key] > 0", {"key": "secret"}, "a key that it computes is missing"),
        ("args.amount > 1.0", {"amount": "5"}, "'>' does not go with a text and a decimal number"),
        ("args.amount > 1.0", {"amount": None}, "'>' does not go with null and a decimal number"),
        (
            "args.a + args.b > 1.0",
            {"a": 1.5, "b": 1},
            "'+' does not go with a decimal number and a whole number (write 100.0 for 100)",
        ),
        ("args.a.contains('x')", {"a": 3}, "'contains' does not go with a whole number and a text"),
        ("size(args.a) > 3", {"a": 3}, "'size' does not go with a whole number"),
        ("args.a && true", {"a": 3}, "a part of '&&' is not true or false"),
        ("!args.a", {"a": "x"}, "a part of '!' is not true or false"),
        ("args.a ? true : false", {"a": 1}, "what stands before '?' is not true or false"),
        ("args.a.exists(x, x > 1)", {"a": "x"}, "it goes through something that is neither a list nor an object"),
        ("args.a.b == 1", {"a": "x"}, "it looks for a key in something that is not an object"),
        ("args.a[3] == 1", {"a": [1]}, "a list of 1 has no item 3"),
        ("args.a['b'] == 1", {"a": [1]}, "an item of a list is looked for by a text"),
        ("args.a[0] == 'x'", {"a": "x"}, "it looks for an item in a text"),
        ("'x' in args.a", {"a": 1}, "'in' needs a list or an object"),
        ("args.a / 0 > 1", {"a": 1}, "it divides by zero"),
        ("args.a + 1 > 1", {"a": 2**63 - 1}, "a whole number gets too large"),
        ("int(args.a) > 1", {"a": "x"}, "a text cannot be made a whole number"),
        ("timestamp(args.a) > run.now", {"a": "soon"}, "a text is not a time"),
        ("args.a.matches(args.b)", {"a": "x", "b": "("}, "a pattern is no regular expression"),
        ("args.amount", {"amount": 5.0}, "it comes to a decimal number, not to true or false"),
        ("args", {}, "it comes to an object, not to true or false"),
        ("args.a", {"a": "true"}, "it comes to a text, not to true or false"),
        ("args.a >", {}, "it is no expression of CEL (line 1, column 9)"),
        ("foo.bar == 1", {}, "'foo.bar' is not known"),
        ("args.a.size() > 1.5", {}, "'>' does not go with a whole number and a decimal number (write 100.0 for 100)"),
        ("args.n == 1", {"n": BIG}, "args.n is an integer beyond 64 bits"),
        ("args.n == 1", {"n": -BIG - 1}, "args.n is an integer beyond 64 bits"),
        ("args.a == 1", {"a": 1, "n": {"m": [0, 2**70]}}, "args.n.m[1] is an integer beyond 64 bits"),
        ("args.a == 'x'", {"a": "\ud800"}, "args.a is not Unicode"),
        ("args.a == 'x'", {"a": object()}, "args.a is no plain value"),
    ],
)
def test_why_a_condition_cannot_be_evaluated(text: str, args: object, why: str) -> None:
    assert reason(text, args, {"now": NOW}) == why


@pytest.mark.parametrize("args", [{"to": "evil\0.example"}, {"to": "evil", "x\0y": 1}, {"to": ["evil\0"]}])
def test_text_is_never_cut_at_a_nul(args: dict[str, object]) -> None:
    """The library takes a text up to its first NUL: a rule would allow another value than the one that is used."""
    assert "holds a NUL character" in reason("args.to == 'evil'", args)


def test_unreadable_names_cannot_spoil_the_reason() -> None:
    assert reason("args.a == 1", {"\ud800\n": 1}) == "args.?? is not Unicode"


def test_only_conditions_that_read_an_unreadable_variable_fail() -> None:
    assert outcome("run.step == 1", {"n": BIG}, {"step": 1}) is True


@pytest.mark.parametrize(
    "text",
    [
        "args.note > 'x'",
        "args.note.contains('evil')",
        "args.note.startsWith('Dear')",
        "args.note.matches('evil')",
        "size(args.note) > 2000",
        "args.note.size() > 2000",
        "args.note + '' == 'x'",
        "string(args.note) == 'x'",
        "args.note.exists(n, n == 'x')",
        "'evil' in args.note",
        "args.note[0] == 'evil'",
        "args.note['size'] > 1",
        "has(args.note.amount)",
        "args.note.amount > 1.0",
    ],
)
def test_long_text_cannot_be_mistaken_for_something_else(text: str) -> None:
    assert isinstance(outcome(text, {"note": LONG}), Unevaluable)


def test_long_text_has_a_size_and_equals_no_short_text() -> None:
    assert outcome("args.note.size > 4999 && has(args.note)", {"note": LONG}) is True
    assert outcome("args.note == 'Dear Sir' || args.note in ['Dear Sir']", {"note": LONG}) is False
    assert outcome("args.a == args.b", {"a": LONG, "b": LONG}) is True
    assert (
        reason("args.note.length > 1", {"note": LONG}) == "a long text has 'size', 'digest' and 'preview', not 'length'"
    )


def test_what_was_left_out_although_it_is_short_cannot_be_compared() -> None:
    """Among many arguments a short one is left out too, and a comparison with it could be wrongly false."""
    assert reason("args.to == 'evil'", {"to": SHORT}) == "args.to is not shown, since the arguments are long"


def test_padding_does_not_hide_a_value_from_a_rule() -> None:
    padding = {f"p{number:03}": "x" * 100 for number in range(200)}

    shown = arguments.shorten_texts({"to": "evil", **padding})

    assert outcome("args.to == 'evil'", shown) is True


def test_object_that_only_looks_like_a_reference() -> None:
    odd = {"digest": 1, "size": "x", "preview": None}

    assert outcome("args.o.digest == 1", {"o": odd}) is True


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("args.l.filter(x, x in args.l).size() > 1", {"l": list(range(9000))}),
        ("args.l.map(x, args.s + args.s).size() > 1", {"l": list(range(5000)), "s": "a" * 65536}),
        ("args.l.all(x, args.l.all(y, y in args.l))", {"l": list(range(2000))}),
        (
            "args.l.all(x, args.s.matches(args.r))",
            {"l": list(range(9000)), "s": "a", "r": "(((a{1,10}){1,10}){1,10})*b"},
        ),
    ],
)
def test_too_costly_conditions_are_not_begun(text: str, args: object) -> None:
    facts = Facts({"args": args})
    began = time.process_time()

    found = facts.evaluate(text)

    assert found == Unevaluable("it is too costly for arguments of this size")
    assert time.process_time() - began < 0.2


def test_condition_that_the_library_stops() -> None:
    assert reason("args.l.all(x, args.l.all(y, y >= 0))", {"l": list(range(300))}) == "it is too costly"


def test_what_a_call_usually_holds_is_not_too_costly() -> None:
    """About 4 KB of arguments, which is what rules see of tools that are no remote activity."""
    run = {"calls": {f"tool{number}": number for number in range(500)}}
    items = [{"sku": f"s{number}", "quantity": number} for number in range(120)]

    assert (
        outcome("args.items.exists(i, i.quantity > 100) && args.items.exists(i, i.sku == 's1')", {"items": items})
        is True
    )
    assert outcome("args.ids.all(i, i >= 0)", {"ids": list(range(1500))}) is True
    assert outcome("args.ids.all(i, args.ids.exists(j, i == j))", {"ids": list(range(50))}, run) is True


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("args.a > 1", None),
        ("args.a == '.all('", None),
        ("size(args.all) > (1)", None),
        ("args.l.all(x, x > 1)", (1, 1)),
        ("args.l.all(x, x > 1) && args.m.exists (y, (y))", (2, 1)),
        ("args.l.map(x, args.m.filter(y, y > x)).size() > 1", (2, 2)),
        ("args.l.all(x, x == ')' && args.m.exists_one(y, y == x))", (2, 2)),
        ("args.l.filter(x, x > 1).map(y, y)", (2, 1)),
        ("args.l. // .all(\n all(x, x > 1)", (1, 1)),
        ("args.l.map(x, args.m.all(y, y > x)).exists(z, z)", (3, 2)),
    ],
)
def test_loops_of_a_condition(text: str, loops: tuple[int, int] | None) -> None:
    names = ("args", "y", "x")
    found = cost.count_loops(tree.read(evaluation._environment(names).compile(text).serialize()))

    assert (found and (found.count, found.depth)) == loops


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "l"]), PLAIN),
    st.sampled_from(["args.a > 1.0", "args.l.all(x, x == args.a)", "size(args.b) > 1"]),
)
def test_no_value_makes_evaluation_raise(args: dict[str, object], text: str) -> None:
    assert isinstance(outcome(text, args), bool | Unevaluable)


def test_threads_share_conditions() -> None:
    def judged(number: int) -> bool:
        facts = Facts({"args": {"n": float(number)}})
        return all(facts.evaluate(f"args.n >= {least}.0") is (number >= least) for least in range(50))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(judged, range(100)))
