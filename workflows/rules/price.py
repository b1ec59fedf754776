"""Prices: what a model call costs, and what it can cost at most."""

from decimal import Decimal

from mandate.workflows.contracts.route import Price, Rates

MILLION = 1_000_000


def compute_worst(price: Price, *, input_tokens: int, output_tokens: int) -> Decimal:
    """Return the most that a call of this size can cost: all of its input is taken as a cache write."""
    rates = _find_rates(price, input_tokens)
    dearest = max(rates.input, rates.cache_write)
    return (dearest * input_tokens + rates.output * output_tokens) / MILLION


def _find_rates(price: Price, input_tokens: int) -> Rates:
    return [rates for rates in price.tiers if rates.above < input_tokens or rates.above == 0][-1]
