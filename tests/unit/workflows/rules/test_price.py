"""Costs of calls: exact, never above the worst case, and the longest answer that a sum pays for."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mandate.workflows.contracts.route import Price, Rates
from mandate.workflows.rules.price import (
    MOST_ROOM,
    compute_cost,
    compute_dearest,
    compute_worst,
    find_output_room,
)


def rates(above: int, *texts: str, hour: str | None = None) -> Rates:
    plain, output, cached, write = map(Decimal, texts)
    return Rates(
        above=above,
        input=plain,
        output=output,
        cached_input=cached,
        cache_write=write,
        cache_write_hour=None if hour is None else Decimal(hour),
    )


SOL = Price(
    tiers=(rates(0, "2", "10", "0.2", "2.5"), rates(272_000, "4", "15", "0.4", "5")), source="genai-prices 0.2.3"
)
HAIKU = Price(
    tiers=(
        rates(0, "0.1", "0.5", "0.01", "0.125", hour="0.2"),
        rates(100_000, "0.5", "2.5", "0.05", "0.625", hour="1"),
    ),
    source="genai-prices 0.2.3",
)
OWN = Price(tiers=(rates(0, "0.1", "0.4", "0.1", "0.1"),), source="agent file")
FREE = Price(tiers=(rates(0, "0", "0", "0", "0"),), source="agent file")


@pytest.mark.parametrize(
    ("price", "counts", "cost"),
    [
        (SOL, (272_000, 0, 0, 1000), "0.554"),  # 272,000 * 2 + 1000 * 10
        (SOL, (272_001, 0, 0, 1000), "1.103004"),  # 272,001 * 4 + 1000 * 15: the tier is that of the whole call
        (SOL, (272_001, 272_000, 0, 0), "0.108804"),  # 1 * 4 + 272,000 * 0.4: what was cached counts for the tier
        (SOL, (1000, 400, 100, 50), "0.00183"),  # 500 * 2 + 400 * 0.2 + 100 * 2.5 + 50 * 10
        (HAIKU, (100_000, 0, 0, 1000), "0.0105"),
        (HAIKU, (250_000, 0, 0, 1000), "0.1275"),
        (OWN, (1, 0, 0, 0), "0.0000001"),
        (OWN, (10**9, 0, 0, 10**9), "500"),
        (FREE, (10**9, 5, 5, 10**9), "0"),
        (SOL, (0, 0, 0, 0), "0"),
    ],
)
def test_cost(price: Price, counts: tuple[int, int, int, int], cost: str) -> None:
    tokens, cached, written, output = counts

    computed = compute_cost(price, input_tokens=tokens, cached_input=cached, cache_write=written, output=output)

    assert computed == Decimal(cost)


def test_writes_for_an_hour_have_a_rate_of_their_own() -> None:
    kept = compute_cost(HAIKU, input_tokens=1000, cached_input=0, cache_write=500, output=0, cache_write_hour=200)
    as_usual = compute_cost(OWN, input_tokens=1000, cached_input=0, cache_write=500, output=0, cache_write_hour=200)

    assert kept == Decimal("0.0001275")  # 500 * 0.1 + 300 * 0.125 + 200 * 0.2
    assert as_usual == Decimal("0.0001")


@pytest.mark.parametrize(
    ("price", "tokens", "worst"),
    [
        (SOL, (272_000, 1000), "0.69"),  # 272,000 * 2.5 + 1000 * 10: all of it written to the cache
        (SOL, (272_001, 1000), "1.375005"),  # 272,001 * 5 + 1000 * 15
        (OWN, (1000, 1000), "0.0005"),
        (FREE, (1000, 1000), "0"),
    ],
)
def test_worst_case(price: Price, tokens: tuple[int, int], worst: str) -> None:
    assert compute_worst(price, input_tokens=tokens[0], output_tokens=tokens[1]) == Decimal(worst)


@pytest.mark.parametrize(
    ("price", "money", "tokens", "room"),
    [
        (SOL, "0.69", 272_000, 1000),
        (SOL, "0.689999999", 272_000, 999),
        (SOL, "0.68", 272_000, 0),
        (SOL, "0.679999999", 272_000, 0),
        (SOL, "0.69", 272_001, 0),  # the tier above is not paid for
        (FREE, "0", 1000, MOST_ROOM),
        (OWN, "-1", 0, 0),
    ],
)
def test_room_for_output(price: Price, money: str, tokens: int, room: int) -> None:
    assert find_output_room(price, money=Decimal(money), input_tokens=tokens) == room


@pytest.mark.parametrize(
    ("price", "tokens", "largest", "most"),
    [
        (SOL, 400_000, 272_000, "4"),  # all of it output below the edge of the tier
        (SOL, 400_000, 272_001, "6"),
        (FREE, 400_000, 272_001, "0"),
    ],
)
def test_dearest_tokens(price: Price, tokens: int, largest: int, most: str) -> None:
    assert compute_dearest(price, tokens=tokens, input_tokens=largest) == Decimal(most)


RATE = st.decimals(min_value=0, max_value=999_999, places=9)
TOKENS = st.one_of(st.integers(0, 600_000), st.integers(0, 10**9))


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Prices with up to four tiers, also such as get cheaper, or whose cache costs more than plain input."""
    edges = sorted(draw(st.sets(st.integers(1, 500_000), max_size=3)))
    return Price(
        tiers=tuple(
            Rates(above=above, input=draw(RATE), output=draw(RATE), cached_input=draw(RATE), cache_write=draw(RATE))
            for above in (0, *edges)
        ),
        source="agent file",
    )


@given(prices(), TOKENS, TOKENS, st.data())
def test_no_call_costs_more_than_the_worst_case(price: Price, tokens: int, output: int, data: st.DataObject) -> None:
    """Whatever of the input was cached, and however much less there was than was reserved for."""
    used = data.draw(st.integers(0, tokens))
    cached = data.draw(st.integers(0, used))
    written = data.draw(st.integers(0, used - cached))
    hour = data.draw(st.integers(0, written))

    cost = compute_cost(
        price,
        input_tokens=used,
        cached_input=cached,
        cache_write=written,
        output=data.draw(st.integers(0, output)),
        cache_write_hour=hour,
    )

    assert cost <= compute_worst(price, input_tokens=tokens, output_tokens=output)


@given(prices(), TOKENS, TOKENS, TOKENS)
def test_no_call_costs_more_than_its_tokens_at_the_dearest_rate(
    price: Price, tokens: int, output: int, more: int
) -> None:
    worst = compute_worst(price, input_tokens=tokens, output_tokens=output)

    assert worst <= compute_dearest(price, tokens=tokens + output, input_tokens=tokens + more)


@given(prices(), TOKENS, TOKENS, TOKENS, TOKENS)
def test_more_tokens_never_cost_less_at_worst(price: Price, tokens: int, more: int, output: int, longer: int) -> None:
    less = compute_worst(price, input_tokens=tokens, output_tokens=output)

    assert less <= compute_worst(price, input_tokens=tokens + more, output_tokens=output + longer)


@given(prices(), TOKENS, st.decimals(min_value=0, max_value=10**6, places=9))
def test_room_is_the_most_that_is_paid_for(price: Price, tokens: int, money: Decimal) -> None:
    room = find_output_room(price, money=money, input_tokens=tokens)

    if room:
        assert compute_worst(price, input_tokens=tokens, output_tokens=room) <= money
    if room < MOST_ROOM:
        assert compute_worst(price, input_tokens=tokens, output_tokens=room + 1) > money


@given(RATE, TOKENS, TOKENS)
def test_costs_add_up_exactly(rate: Decimal, tokens: int, output: int) -> None:
    """Two halves of a call cost what the whole costs, to the last digit, where there is one tier."""
    assume(tokens and output)
    price = Price(
        tiers=(Rates(input=rate, output=rate, cached_input=rate, cache_write=rate),),
        source="agent file",
    )

    whole = compute_cost(price, input_tokens=tokens, cached_input=0, cache_write=0, output=output)
    halves = [
        compute_cost(price, input_tokens=tokens, cached_input=0, cache_write=0, output=0),
        compute_cost(price, input_tokens=0, cached_input=0, cache_write=0, output=output),
    ]

    assert sum(halves) == whole
    assert whole * 10**6 == rate * (tokens + output)
