"""Prices: as a run pins them, by the list or by the agent file, and costs of answers by the price that was pinned."""

import warnings
from decimal import Decimal

import pytest
from genai_prices import Usage as Tokens
from genai_prices import __version__, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from mandate.activities.providers.prices import compute_price, find_window, pin_price
from mandate.activities.providers.rawjson import Raw
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.route import Price, PriceSpec, Rates
from mandate.workflows.rules.price import compute_cost, compute_worst
from tests.support.examples import examples

LIST = f"genai-prices {__version__}"
SPEC = PriceSpec.model_validate({"input": "1.5", "output": "6"})


def rates(above: int, *texts: str, hour: str | None = None) -> Rates:
    plain, output, cached, write = map(Decimal, texts)
    kept = None if hour is None else Decimal(hour)
    return Rates(above=above, input=plain, output=output, cached_input=cached, cache_write=write, cache_write_hour=kept)


PINS: list[tuple[str, JsonObject, tuple[Rates, ...], dict[str, str]]] = [
    ("openai:gpt-6-sol", {}, (rates(0, "2", "10", "0.2", "2.5"), rates(272_000, "4", "15", "0.4", "5")), {}),
    (
        "openai:gpt-6-sol",
        {"service_tier": "flex"},
        (rates(0, "1", "5", "0.1", "1.25"), rates(272_000, "2", "7.5", "0.2", "2.5")),
        {"service_tier": "flex"},
    ),
    (
        "openai:gpt-6-sol",
        {"service_tier": "fast"},
        (rates(0, "4", "20", "0.4", "5"), rates(272_000, "8", "30", "0.8", "10")),
        {"service_tier": "priority"},
    ),
    # Nothing is said of writes, so that they cost as input.
    (
        "openai:gpt-5.5",
        {"service_tier": "priority"},
        (rates(0, "12.5", "75", "1.25", "12.5"),),
        {"service_tier": "priority"},
    ),
    (
        "anthropic:claude-haiku-5-5",
        {"service_tier": "standard_only"},
        (
            rates(0, "0.1", "0.5", "0.01", "0.125", hour="0.2"),
            rates(100_000, "0.5", "2.5", "0.05", "0.625", hour="1"),
        ),
        {},
    ),
    (
        "anthropic:claude-opus-5-5",
        {"speed": "fast", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        (rates(0, "8", "40", "0.4", "16", hour="16"),),
        {"speed": "fast"},
    ),
]


@pytest.mark.parametrize(("model", "params", "tiers", "variant"), PINS)
def test_list_price_is_pinned_as_it_is_asked_for(
    model: str, params: JsonObject, tiers: tuple[Rates, ...], variant: dict[str, str]
) -> None:
    assert pin_price(model, None, params=params) == Price(tiers=tiers, source=LIST, variant=variant)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("openai:gpt-9-imaginary", {}),
        ("vllm:gpt-6-sol", {}),
        ("scripted:gpt-6-sol", {}),
        ("azure:gpt-6-sol", {}),
        ("openai:text-embedding-3-small", {}),  # has no output
        ("openai:gpt-5.6-sol", {"service_tier": "ultrafast"}),  # costs more than any tier that the list knows
    ],
)
def test_price_that_nobody_knows(model: str, params: JsonObject) -> None:
    assert pin_price(model, None, params=params) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"input": "1.5", "output": "6"}, rates(0, "1.5", "6", "1.5", "1.5")),
        ({"input": 2, "output": 0, "cached_input": "0.2"}, rates(0, "2", "0", "0.2", "2")),
        ({"input": "2", "output": "6", "cache_write": "2.5"}, rates(0, "2", "6", "2", "2.5", hour="4")),
        (
            {"input": "0", "output": "0", "cached_input": "0", "cache_write": "0"},
            rates(0, "0", "0", "0", "0", hour="0"),
        ),
    ],
)
@pytest.mark.parametrize("model", ["openai:gpt-6-sol", "vllm:qwen3-32b", "scripted:shop.yaml"])
def test_price_of_the_agent_file_comes_first(model: str, given: JsonObject, expected: Rates) -> None:
    price = pin_price(model, PriceSpec.model_validate(given))

    assert price == Price(tiers=(expected,), source="agent file")


def test_price_of_the_agent_file_may_have_tiers() -> None:
    tiers = [
        {"above": 2000, "input": "2", "output": "8", "cached_input": "1"},
        {"above": 9000, "input": 3, "output": 9},
    ]

    price = pin_price("vllm:own", PriceSpec.model_validate({"input": "1", "output": "4", "tiers": tiers}))

    expected = (
        rates(0, "1", "4", "1", "1"),
        rates(2000, "2", "8", "1", "2"),
        rates(9000, "3", "9", "3", "3"),
    )
    assert price == Price(tiers=expected, source="agent file")


@pytest.mark.parametrize(("first", "second"), [(2000, 2000), (3000, 2000)])
def test_tiers_that_do_not_rise_are_refused(first: int, second: int) -> None:
    tiers = [{"above": above, "input": "2", "output": "8"} for above in (first, second)]

    with pytest.raises(ValidationError, match="each tier must have a larger 'above' than the one before it"):
        PriceSpec.model_validate({"input": "1", "output": "4", "tiers": tiers})


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("openai:gpt-6-sol", 1_050_000),
        ("anthropic:claude-haiku-5-5", 1_000_000),
        ("openai:gpt-9-imaginary", None),
        ("vllm:gpt-6-sol", None),
    ],
)
def test_window(model: str, window: int | None) -> None:
    assert find_window(model) == window


def listed() -> list[tuple[str, ModelInfo]]:
    """All models of the two vendors that answer in text, by provider."""
    return [
        (provider.id, model)
        for provider in get_snapshot().providers
        if provider.id in {"openai", "anthropic"}
        for model in provider.models
        if pin_price(f"{provider.id}:{model.id}", None) is not None
    ]


LISTED = listed()
VARIANTS: tuple[dict[str, JsonValue], ...] = (
    {},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"service_tier": "default"},
    {"speed": "fast"},
)


def test_the_list_has_many_models() -> None:
    assert len(LISTED) > 100


@given(st.sampled_from(LISTED), st.sampled_from(VARIANTS), st.integers(0, 600_000), st.integers(0, 200_000), st.data())
@examples(500)
def test_costs_are_those_of_the_list(
    model: tuple[str, ModelInfo], params: dict[str, JsonValue], tokens: int, output: int, data: st.DataObject
) -> None:
    """What is read of the list once computes, for every call, what the list's own function computes."""
    provider, info = model
    price = pin_price(f"{provider}:{info.id}", None, params=params)
    if price is None:  # the list does not know this model in this tier
        assert params
        return
    cached = data.draw(st.integers(0, tokens))
    written = data.draw(st.integers(0, tokens - cached))
    hour = data.draw(st.integers(0, written))

    cost = compute_cost(
        price,
        input_tokens=tokens,
        cached_input=cached,
        cache_write=written,
        output=output,
        cache_write_hour=hour,
    )

    with warnings.catch_warnings(action="ignore"):
        expected = calc_price(
            Tokens(
                input_tokens=tokens,
                cache_read_tokens=cached,
                cache_write_tokens=written,
                cache_write_1h_tokens=hour,
                output_tokens=output,
            ),
            info.id,
            provider_id=provider,
            price_context={name: str(value) for name, value in params.items()},
        )
    assert cost == expected.total_price


SOL = pin_price("openai:gpt-6-sol", None)
SOL_FLEX = pin_price("openai:gpt-6-sol", None, params={"service_tier": "flex"})
OWN = pin_price("openai:gpt-6-sol", SPEC)
OWN_FAST = pin_price("openai:gpt-6-sol", SPEC, params={"service_tier": "fast"})
USED = Usage(model_calls=1, input_tokens=1000, cached_input_tokens=400, cache_write_tokens=100, output_tokens=50)
USUAL, FLEX, PRIORITY, AS_FILED = "0.00183", "0.000915", "0.00366", "0.0018"


@pytest.mark.parametrize(
    ("price", "tier", "cost"),
    [
        (SOL, None, USUAL),  # 500 * 2 + 400 * 0.2 + 100 * 2.5 + 50 * 10
        (SOL, "default", USUAL),
        (SOL, "standard", USUAL),
        (SOL, "flex", FLEX),
        (SOL, "priority", PRIORITY),
        (SOL, "ultrafast", USUAL),  # a tier that the list does not know
        (SOL_FLEX, None, FLEX),  # as it was asked for
        (SOL_FLEX, "flex", FLEX),
        (SOL_FLEX, "default", USUAL),
        (SOL_FLEX, "priority", PRIORITY),
        (SOL_FLEX, "ultrafast", FLEX),
        (OWN, None, AS_FILED),  # 1000 * 1.5 + 50 * 6
        (OWN, "default", AS_FILED),
        (OWN, "flex", FLEX),
        (OWN_FAST, "priority", AS_FILED),
        (OWN_FAST, "default", USUAL),
        (None, None, USUAL),
        (None, "flex", FLEX),
        (None, "ultrafast", USUAL),
    ],
)
def test_answer_is_billed_at_the_tier_that_it_tells(price: Price | None, tier: str | None, cost: str) -> None:
    body = Raw.read("{}" if tier is None else f'{{"service_tier": "{tier}"}}')

    assert compute_price("openai", "gpt-6-sol", USED, body, price=price) == Decimal(cost)


def test_speed_that_was_not_served_is_not_billed() -> None:
    price = pin_price("anthropic:claude-opus-5-5", None, params={"speed": "fast"})
    used = Usage(model_calls=1, input_tokens=1000, output_tokens=10)

    served, slower = (
        compute_price(
            "anthropic", "claude-opus-5-5", used, Raw.read(f'{{"usage": {{"speed": "{speed}"}}}}'), price=price
        )
        for speed in ("fast", "standard")
    )

    assert (served, slower) == (Decimal("0.0084"), Decimal("0.0042"))


@pytest.mark.parametrize("provider", ["vllm", "scripted", "our-gateway"])
def test_server_of_ones_own_costs_as_pinned(provider: str) -> None:
    body = Raw.read('{"model": "gpt-6-sol", "service_tier": "flex"}')

    assert compute_price(provider, "gpt-6-sol", USED, body) is None
    assert compute_price(provider, "gpt-6-sol", USED, body, price=OWN) == Decimal(AS_FILED)


@pytest.mark.parametrize(
    ("usage", "hour"),
    [
        (Usage(), 0),  # no usage was reported: not free
        (Usage(input_tokens=10, cached_input_tokens=20), 0),
        (Usage(input_tokens=10, cached_input_tokens=6, cache_write_tokens=6), 0),
        (Usage(input_tokens=10, cache_write_tokens=6), 7),
    ],
)
def test_counts_that_cannot_be_are_an_unknown_price(usage: Usage, hour: int) -> None:
    body = Raw.read(f'{{"usage": {{"cache_creation": {{"ephemeral_1h_input_tokens": {hour}}}}}}}')

    assert compute_price("openai", "gpt-6-sol", usage, body, price=SOL) is None


@given(st.sampled_from(LISTED), st.integers(0, 600_000), st.integers(0, 200_000), st.data())
def test_call_is_never_dearer_than_it_was_reserved(
    model: tuple[str, ModelInfo], tokens: int, output: int, data: st.DataObject
) -> None:
    """As long as the vendor serves what was asked for."""
    provider, info = model
    price = pin_price(f"{provider}:{info.id}", None)
    assert price is not None
    cached = data.draw(st.integers(0, tokens))
    written = data.draw(st.integers(0, tokens - cached))
    used = Usage(input_tokens=tokens, cached_input_tokens=cached, cache_write_tokens=written, output_tokens=output)

    cost = compute_price(provider, info.id, used, Raw.read('{"service_tier": "default"}'), price=price)

    assert (cost or 0) <= compute_worst(price, input_tokens=tokens, output_tokens=output)
