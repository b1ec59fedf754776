"""Limits of models: windows, shares, edges of prices, and inputs that never fit."""

from decimal import Decimal

import pytest

from mandate.activities.context.limits import Limits, find_excess, find_limits
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.route import Price, Rates, RoutePin
from mandate.workflows.contracts.transcript import TextPart, UserMessage


def rates(above: int) -> Rates:
    one = Decimal(1)
    return Rates(above=above, input=one, output=one, cached_input=one, cache_write=one)


TIERED = Price(tiers=(rates(0), rates(200_000)), source="agent file")


DEFAULT = ContextSpec()


def pinned(*route: RoutePin, context: ContextSpec = DEFAULT, answer: int = 8_000) -> PinnedAgent:
    return PinnedAgent(
        name="a",
        instructions="Do it.",
        models=tuple(entry.model for entry in route),
        route=route,
        tools=(),
        policy=(),
        context=context,
        max_output_tokens=answer,
        output_schema=None,
        budget={},
        attempts=3,
    )


@pytest.mark.parametrize(
    ("route", "context", "expected"),
    [
        (RoutePin(model="openai:m", group=0), ContextSpec(), Limits(128_000, 120_000, 96_000)),
        (RoutePin(model="openai:m", group=0, window=32_000), ContextSpec(), Limits(32_000, 24_000, 24_000)),
        (RoutePin(model="openai:m", group=0, window=10_000), ContextSpec(), Limits(10_000, 5_000, 5_000)),
        (RoutePin(model="openai:m", group=0, window=32_000), ContextSpec(limit=0.5), Limits(32_000, 24_000, 16_000)),
        (
            RoutePin(model="openai:m", group=0, window=400_000, price=TIERED),
            ContextSpec(),
            Limits(400_000, 392_000, 200_000),
        ),
        (
            RoutePin(model="openai:m", group=0, window=400_000, price=TIERED),
            ContextSpec(limit=0.75),
            Limits(400_000, 392_000, 300_000),
        ),
        (
            RoutePin(model="openai:m", group=0, window=32_000, max_output_tokens=1_000),
            ContextSpec(limit=0.95),
            Limits(32_000, 31_000, 30_400),
        ),
        (RoutePin(model="scripted:a.yaml", group=0), ContextSpec(), None),
        (RoutePin(model="scripted:a.yaml", group=0, window=20_000), ContextSpec(), Limits(20_000, 12_000, 12_000)),
    ],
)
def test_limits_of_a_model(route: RoutePin, context: ContextSpec, expected: Limits | None) -> None:
    assert find_limits(pinned(route, context=context), route.model) == expected


def test_what_the_model_turned_out_to_take_lowers_the_limit() -> None:
    agent = pinned(RoutePin(model="openai:m", group=0, window=32_000))

    assert find_limits(agent, "openai:m", 9_000) == Limits(32_000, 24_000, 9_000)
    assert find_limits(agent, "openai:m", 90_000) == Limits(32_000, 24_000, 24_000)


def test_tools_and_instructions_that_no_model_takes_are_told_apart() -> None:
    route = RoutePin(model="openai:m", group=0, window=2_000)
    agent = pinned(route, context=ContextSpec(pin=("word " * 2_000,)))

    assert find_excess(agent, UserMessage(role="user", parts=(TextPart(kind="text", text="Go."),))) == (
        "instructions, pinned texts and tools have about 1,212 tokens, and the input about 7; 'openai:m' takes 1,000 "
        "beside its answer, of a window of 2,000. Give the agent fewer tools or a shorter text"
    )


def test_an_input_that_no_model_takes_is_refused_with_the_way() -> None:
    small, large = (RoutePin(model=f"openai:{window}", group=0, window=window) for window in (20_000, 32_000))
    goal = UserMessage(role="user", parts=(TextPart(kind="text", text="word " * 40_000),))

    assert find_excess(pinned(small, large), goal) == (
        "the input has about 40,006 tokens, and instructions and tools about 8; 'openai:32000' takes 24,000 beside "
        "its answer, of a window of 32,000. Put the text into a file, give the agent a tool that reads parts of it, "
        "and name the file in the input"
    )
    assert find_excess(pinned(small, RoutePin(model="openai:m", group=0)), goal) is None
    assert find_excess(pinned(small, RoutePin(model="scripted:a.yaml", group=0)), goal) is None
