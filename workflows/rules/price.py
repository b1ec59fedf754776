"""Prices: the cost of a model call, the most that it can cost, and the answer that a sum pays for."""

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext

from mandate.workflows.contracts.route import Price, Rates

MOST_ROOM = 10**12
"""Most output tokens that are told, also where output costs nothing: as many as a limit can name."""

_EXACT = Context(prec=100)
"""Digits enough for every product and sum of rates and token counts."""
_MILLION = 6
_ONE = Decimal(1)


def compute_cost(
    price: Price, *, input_tokens: int, cached_input: int, cache_write: int, output: int, cache_write_hour: int = 0
) -> Decimal:
    """Return the US dollars for one call, exactly.

    Args:
        price: Its tier is that of the whole input.
        input_tokens: All input; what was read from the cache and written to it is part of it.
        cached_input: Input that was read from the cache.
        cache_write: All input that was written to the cache.
        output: Output, reasoning included.
        cache_write_hour: The part of `cache_write` that is kept for an hour.
    """
    rates = _find_rates(price, input_tokens)
    hour = rates.cache_write if rates.cache_write_hour is None else rates.cache_write_hour
    plain = input_tokens - cached_input - cache_write
    with localcontext(_EXACT):
        return _to_dollars(
            plain * rates.input
            + cached_input * rates.cached_input
            + (cache_write - cache_write_hour) * rates.cache_write
            + cache_write_hour * hour
            + output * rates.output
        )


def compute_worst(price: Price, *, input_tokens: int, output_tokens: int) -> Decimal:
    """Return the most that a call with at most these tokens can cost: all of its input at the dearest rate.

    Of the tiers that the input reaches the dearest counts, so that a shorter input never costs more. Writes to the
    cache are those that the requests ask for, see `Rates.cache_write`.
    """
    with localcontext(_EXACT):
        return _to_dollars(
            max(most * rate + output_tokens * rates.output for rates, rate, most in _list_tiers(price, input_tokens))
        )


def compute_dearest(price: Price, *, tokens: int, input_tokens: int) -> Decimal:
    """Return the most that this many tokens can cost in calls of which none has more than `input_tokens` of input."""
    with localcontext(_EXACT):
        return _to_dollars(tokens * max(max(rate, rates.output) for rates, rate, _ in _list_tiers(price, input_tokens)))


def find_output_room(price: Price, *, money: Decimal, input_tokens: int) -> int:
    """Return the most output tokens that `money` pays for beside this input; 0 if it does not pay for the input."""
    with localcontext(_EXACT):
        units = money.scaleb(_MILLION)
        return min(_divide(units - most * rate, rates.output) for rates, rate, most in _list_tiers(price, input_tokens))


def _find_rates(price: Price, input_tokens: int) -> Rates:
    reached = (rates for rates in reversed(price.tiers) if input_tokens > rates.above)
    return next(reached, price.tiers[0])


def _list_tiers(price: Price, input_tokens: int) -> Iterator[tuple[Rates, Decimal, int]]:
    """Yield the tiers that an input of this size reaches: rates, that of the dearest input, most input in the tier."""
    ends = [*(rates.above for rates in price.tiers[1:]), input_tokens]
    for index, (rates, end) in enumerate(zip(price.tiers, ends, strict=True)):
        if index == 0 or input_tokens > rates.above:
            yield rates, max(rates.input, rates.cached_input, rates.cache_write), min(input_tokens, end)


def _divide(units: Decimal, rate: Decimal) -> int:
    if units < 0:
        return 0
    return min(MOST_ROOM, int(units // rate)) if rate else MOST_ROOM


def _to_dollars(units: Decimal) -> Decimal:
    """Return millionths as dollars, without zeros at the end."""
    dollars = units.scaleb(-_MILLION).normalize()
    return dollars.quantize(_ONE) if dollars == dollars.to_integral_value() else dollars
