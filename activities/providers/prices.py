"""Costs of model calls, by the list prices that genai-prices ships with."""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from mandate.activities.providers.rawjson import NOTHING, Raw
from mandate.workflows.contracts.model import Usage

UNPRICED = frozenset(("vllm", "scripted"))
"""Providers that have no list prices."""


def compute_price(provider: str, model: str, usage: Usage, body: Raw = NOTHING) -> Decimal | None:
    """Return the US dollars for one call by the list prices of `provider`, or `None` when the price is unknown.

    `body` is the provider's answer, for what the tokens do not say: the service tier, the speed, cache writes that
    are kept for an hour, and the model that answered, which counts where the requested name has no price. Batch
    discounts, taxes and negotiated prices are not known here.
    """
    if provider in UNPRICED or not (usage.input_tokens or usage.output_tokens):
        return None
    reported = body.get("usage")
    context = {
        name: value
        for name, value in (
            ("service_tier", body.get("service_tier").string or reported.get("service_tier").string),
            ("speed", reported.get("speed").string),
        )
        if value
    }
    hour = reported.get("cache_creation").get("ephemeral_1h_input_tokens").count
    for name in dict.fromkeys((model, body.get("model").string)):
        if name and _is_listed(provider, name):
            return _calculate(provider, name, usage, context, hour=hour)
    return None


@lru_cache(maxsize=256)
def _is_listed(provider: str, model: str) -> bool:
    # Looking for a name that is not in the list takes as long as a price, at every call. The import takes 0.2 s and
    # is not for workers without priced models.
    from genai_prices import Usage as Tokens  # noqa: PLC0415 - half a second, only for prices
    from genai_prices import calc_price  # noqa: PLC0415 - half a second, only for prices

    try:
        calc_price(Tokens(), model, provider_id=provider)
    except LookupError:
        return False
    return True


def _calculate(provider: str, model: str, usage: Usage, context: Mapping[str, str], *, hour: int) -> Decimal | None:
    from genai_prices import Usage as Tokens  # noqa: PLC0415 - half a second, only for prices
    from genai_prices import calc_price  # noqa: PLC0415 - half a second, only for prices

    tokens = Tokens(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens or None,
        cache_write_tokens=usage.cache_write_tokens or None,
        cache_write_1h_tokens=hour or None,
        output_tokens=usage.output_tokens,
    )
    try:
        return calc_price(tokens, model, provider_id=provider, price_context=dict(context) or None).total_price
    except ValueError:  # counts that contradict each other
        return None
