"""Routes: a run stays with its model, goes on for a reason that it can say, and never goes back."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.route import Preference, Price, Rates, RoutePin
from mandate.workflows.rules import routing
from mandate.workflows.rules.routing import FAILED, FIRST, Choice, Standing


def rates(above: int, *, cost: str, output: str = "10") -> Rates:
    rate = Decimal(cost)
    return Rates(above=above, input=rate, output=Decimal(output), cached_input=rate, cache_write=rate)


def price(cost: str, output: str = "10") -> Price:
    return Price(tiers=(rates(0, cost=cost, output=output),), source="agent file")


TIERED = Price(tiers=(rates(0, cost="1"), rates(200_000, cost="5")), source="agent file")


def pin(model: str, group: int, *, when: str | None = None, cost: Price | None = None) -> RoutePin:
    return RoutePin(model=model, group=group, when=when, price=cost)


CHAIN = (pin("a:1", 0), pin("b:2", 1, when="run.failures > 0"), pin("c:3", 2, when="run.tainted"))
EQUALS = (pin("a:1", 0, cost=price("3")), pin("b:2", 0, cost=price("2")), pin("c:3", 0), pin("d:4", 1))


def holding(*models: str) -> Callable[[RoutePin], bool]:
    return lambda entry: entry.model in models


@pytest.mark.parametrize(
    ("model", "holds", "chosen"),
    [
        (None, (), Choice("a:1", FIRST)),
        (None, ("b:2",), Choice("b:2", "a condition of the route holds: run.failures > 0")),
        ("a:1", (), Choice("a:1", "as before")),
        ("a:1", ("b:2",), Choice("b:2", "a condition of the route holds: run.failures > 0")),
        ("a:1", ("c:3",), Choice("c:3", "a condition of the route holds: run.tainted")),
        ("a:1", ("b:2", "c:3"), Choice("b:2", "a condition of the route holds: run.failures > 0")),
        ("b:2", (), Choice("b:2", "as before")),
        ("b:2", ("b:2",), Choice("b:2", "as before")),
        ("c:3", ("b:2",), Choice("c:3", "as before")),
    ],
)
def test_a_run_stays_until_a_condition_further_on_holds(
    model: str | None, holds: tuple[str, ...], chosen: Choice
) -> None:
    standing = Standing(CHAIN, model, "as before")

    assert routing.choose(standing, holding(*holds)) == chosen


def test_the_only_model_is_called_so() -> None:
    assert routing.choose(Standing((pin("a:1", 0),)), holding()) == Choice("a:1", "it is the only model of the agent")


@pytest.mark.parametrize(
    ("model", "following"),
    [(None, Choice("b:2", FAILED)), ("a:1", Choice("b:2", FAILED)), ("b:2", Choice("c:3", FAILED)), ("c:3", None)],
)
def test_after_a_failure_the_next_one_is_asked(model: str | None, following: Choice | None) -> None:
    """Its condition is for going there by itself: a fallback needs none."""
    assert routing.follow_failure(Standing(CHAIN, model)) == following


def test_a_failure_leaves_equal_models_behind() -> None:
    assert routing.follow_failure(Standing(EQUALS, "a:1")) == Choice("d:4", FAILED)


@pytest.mark.parametrize(
    ("model", "tried", "silent", "following"),
    [
        ("a:1", ("a:1",), (), "b:2"),
        ("a:1", ("a:1",), ("b:2",), "c:3"),
        ("a:1", ("a:1",), ("b:2", "c:3"), "b:2"),
        ("b:2", ("a:1", "b:2"), ("a:1",), "c:3"),
        ("c:3", ("a:1", "b:2", "c:3"), (), "d:4"),
        ("d:4", ("d:4",), (), None),
    ],
)
def test_another_model_is_asked_in_place_of_a_silent_one(
    model: str, tried: tuple[str, ...], silent: tuple[str, ...], following: str | None
) -> None:
    choice = routing.follow_silence(Standing(EQUALS, model, silent=silent), "it was down", tried)

    assert (choice and choice.model) == following
    assert choice is None or choice.why.startswith(f"{model} gave no answer: it was down")


@pytest.mark.parametrize(
    ("prefer", "latencies", "chosen"),
    [
        ("order", {}, Choice("a:1", f"{FIRST}; of 3 equal ones the first")),
        # 2,000 $/M of input and 1,000 of output at 10: (1000 * 2 + 1000 * 10) / 1e6
        ("cost", {}, Choice("b:2", f"{FIRST}; of 3 equal ones the cheapest, $0.012 a call")),
        ("latency", {}, Choice("a:1", f"{FIRST}; of 3 equal ones one whose speed is not known yet")),
        ("latency", {"a:1": 1.0}, Choice("b:2", f"{FIRST}; of 3 equal ones one whose speed is not known yet")),
        (
            "latency",
            {"a:1": 1.0, "b:2": 0.45, "c:3": 2.0},
            Choice("b:2", f"{FIRST}; of 3 equal ones the fastest, 0.45 s an answer"),
        ),
    ],
)
def test_among_equal_models_one_is_preferred(prefer: Preference, latencies: dict[str, float], chosen: Choice) -> None:
    standing = Standing(EQUALS, prefer=prefer, latencies=latencies)

    assert routing.choose(standing, holding()) == chosen


def test_models_without_a_price_are_the_last_in_their_order() -> None:
    unknown = (pin("a:1", 0), pin("b:2", 0))

    alone = routing.choose(Standing(unknown, prefer="cost"), holding())
    with_known = routing.choose(Standing((*unknown, pin("c:3", 0, cost=price("99"))), prefer="cost"), holding())

    assert alone == Choice("a:1", f"{FIRST}; of 2 equal ones, no price of which is known, the first")
    assert with_known.model == "c:3"


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        (0, "0.011"),  # at least 1,000 of input at 1, and 1,000 of output at 10
        (1_000, "0.011"),
        (200_000, "0.21"),
        (200_001, "1.010005"),  # 5 for all of them
    ],
)
def test_a_call_costs_the_rates_of_its_whole_input(tokens: int, cost: str) -> None:
    assert routing.compute_call_cost(TIERED, tokens) == Decimal(cost)


def test_the_cheaper_model_is_the_one_at_the_present_size() -> None:
    """Beyond its tier the one that was cheap is dear: a run goes to the other when that costs half or less."""
    route = (pin("tiered:1", 0, cost=TIERED), pin("flat:2", 0, cost=price("2")))

    chosen = [
        routing.choose(Standing(route, model, "as before", prefer="cost", context_tokens=tokens), holding()).model
        for model, tokens in [(None, 0), ("tiered:1", 200_000), ("tiered:1", 200_001), (None, 200_001)]
    ]

    assert chosen == ["tiered:1", "tiered:1", "flat:2", "flat:2"]


def test_a_change_for_a_price_is_told_with_both() -> None:
    route = (pin("tiered:1", 0, cost=TIERED), pin("flat:2", 0, cost=price("2")))
    standing = Standing(route, "tiered:1", prefer="cost", context_tokens=300_000)

    assert routing.choose(standing, holding()).why == (
        "with a context of 300,000 tokens a call costs $0.61, one of tiered:1 $1.51"
    )


@pytest.mark.parametrize(
    ("latencies", "silent", "chosen"),
    [
        ({}, (), "a:1"),
        ({"a:1": 1.0}, (), "b:2"),
        ({"a:1": 1.0}, ("b:2",), "c:3"),
        ({"a:1": 1.0, "b:2": 0.9, "c:3": 0.81}, (), "a:1"),
        ({"a:1": 1.0, "b:2": 0.9, "c:3": 0.8}, (), "c:3"),
        ({"a:1": 1.0, "b:2": 0.9, "c:3": 0.1}, ("c:3",), "a:1"),
    ],
)
def test_each_equal_model_is_measured_once_and_the_fastest_stays(
    latencies: dict[str, float], silent: tuple[str, ...], chosen: str
) -> None:
    standing = Standing(EQUALS, "a:1", prefer="latency", latencies=latencies, silent=silent)

    assert routing.choose(standing, holding()).model == chosen


@pytest.mark.parametrize(
    ("before", "seconds", "after"), [(None, 1.2345, 1.23), (1.0, 2.0, 1.3), (1.3, 0.0, 0.91), (0.0, 0.004, 0.0)]
)
def test_the_average_moves_by_a_third_of_what_is_new(before: float | None, seconds: float, after: float) -> None:
    assert routing.average_latency(before, seconds) == after


ROUTES = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, price("1"), price("4"), TIERED])),
    min_size=1,
    max_size=6,
).map(
    lambda entries: tuple(
        pin(
            f"m:{index}",
            sum(is_new for is_new, _, _ in entries[1 : index + 1]),
            when="x" if has_when else None,
            cost=cost,
        )
        for index, (_, has_when, cost) in enumerate(entries)
    )
)
STEPS = st.lists(
    st.tuples(
        st.frozensets(st.integers(0, 5)),
        st.sampled_from(["answer", "failure", "silence"]),
        st.integers(0, 400_000),
        st.floats(0.01, 9.0),
    ),
    max_size=30,
)


@given(ROUTES, st.sampled_from(["order", "cost", "latency"]), STEPS)
def test_a_run_never_goes_back_and_each_step_ends(
    route: tuple[RoutePin, ...], prefer: Preference, steps: list[tuple[frozenset[int], str, int, float]]
) -> None:
    standing, group = Standing(route, prefer=prefer), 0
    for holds, event, tokens, seconds in steps:
        standing = replace(standing, context_tokens=tokens)
        choice = routing.choose(standing, holding(*(f"m:{index}" for index in holds)))
        tried: tuple[str, ...] = ()
        following: Choice | None = choice
        while following is not None:
            chosen = routing.find_pin(route, following.model)
            assert chosen is not None
            assert chosen.group >= group
            assert following.why
            assert following.model not in tried
            group = chosen.group
            standing = replace(standing, model=following.model, why=following.why)
            if event != "silence":
                break
            tried = (*tried, following.model)
            following = routing.follow_silence(standing, "down", tried)
        if event == "failure" and (after := routing.follow_failure(standing)) is not None:
            standing = replace(standing, model=after.model, why=after.why)
        if event == "answer" and standing.model is not None:
            standing = replace(standing, latencies={**standing.latencies, standing.model: seconds})


@given(ROUTES, st.integers(0, 400_000))
def test_without_a_reason_a_run_with_an_order_stays(route: tuple[RoutePin, ...], tokens: int) -> None:
    for entry in route:
        standing = Standing(route, entry.model, "as before", context_tokens=tokens)

        assert routing.choose(standing, holding()) == Choice(entry.model, "as before")


def agent(*models: str, allowed: tuple[str, ...] = (), route: tuple[RoutePin, ...] = ()) -> PinnedAgent:
    return PinnedAgent(
        name="a",
        instructions="Help.",
        models=models,
        route=route,
        models_allowed=allowed,
        prices={"openai:dear": price("9")},
        tools=(),
        policy=(),
        attempts=3,
        budget=Budget(),
        output_schema=None,
        max_output_tokens=1,
    )


@pytest.mark.parametrize(
    ("model", "is_allowed"),
    [
        ("openai:a", True),
        ("openai:b", True),
        ("openai:c", False),
        ("openai:dear", True),
        ("vllm:anything/at-all", True),
        ("vllm:*", False),
        ("vllm:any*thing", False),
        ("anthropic:claude-haiku-5-5", True),
        ("anthropic:claude-opus-5", False),
        ("openai:a*", False),
    ],
)
def test_a_start_may_name_the_route_and_what_is_allowed(model: str, is_allowed: bool) -> None:
    its = agent("openai:a", "openai:b", allowed=("openai:dear", "vllm:*", "anthropic:claude-haiku*"))

    assert bool(routing.name_route(its, model)) is is_allowed


def test_a_named_model_is_a_route_of_its_own_with_what_is_known_of_it() -> None:
    known = RoutePin(model="b:2", group=1, when="run.tainted", window=9000, price=price("2"))
    its = agent("a:1", "b:2", allowed=("openai:*",), route=(pin("a:1", 0), known))

    assert routing.name_route(its, "b:2") == (RoutePin(model="b:2", group=0, window=9000, price=price("2")),)
    assert routing.name_route(its, "openai:dear") == (RoutePin(model="openai:dear", group=0, price=price("9")),)
    assert routing.list_allowed(its) == ("a:1", "b:2", "openai:*")
