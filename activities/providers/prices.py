"""Prices of models: as a run pins them, and what one call cost by what its answer says."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mandate.activities.providers.rawjson import NOTHING, Raw
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.route import Price, PriceSpec, PriceTier, Rates
from mandate.workflows.rules.price import compute_cost

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

LISTED = frozenset(("openai", "anthropic"))
"""Providers that have list prices by their own names; others have those that the file of providers names."""

BY_NAME = ""
"""Stands for the prices of the provider that a model's name begins with."""

FILE = "agent file"

_VARIANT_FIELDS = ("service_tier", "speed")
_USUAL = frozenset(("", "auto", "default", "standard", "standard_only"))
_SAME_TIERS = {"fast": "priority"}
"""Tiers with two names; OpenAI answers with the second whichever is asked for."""
_OF_OTHER_MODELS = ("fallback_message", "advisor_message")
"""Parts of an Anthropic answer that another model gave than the one that was asked."""


def pin_price(
    model_name: str,
    spec: PriceSpec | None,
    *,
    params: Mapping[str, JsonValue] | None = None,
    prices_as: str | None = BY_NAME,
) -> Price | None:
    """Return the price of `provider:model` as a run keeps it, or `None` where nobody knows it.

    Args:
        model_name: Its provider says whether it has a list price.
        spec: The price in the agent file, which comes first.
        params: The vendor's request fields. The price is that of the service tier and of the speed that they ask
            for, and of writes to the cache for as long as they ask for.
        prices_as: The provider whose list holds, if it is not the model's own; `None` where none does.
    """
    provider, model = _find_list(model_name, prices_as)
    variant = _find_variant(params or {})
    price = _read_spec(spec, variant) if spec is not None else _find_listed(provider, model, variant)
    return _with_long_writes(price) if price is not None and _writes_for_an_hour(params or {}) else price


def find_window(model_name: str, *, prices_as: str | None = BY_NAME) -> int | None:
    """Return the tokens that `provider:model` takes at most, or `None` where the list does not say it."""
    provider, model = _find_list(model_name, prices_as)
    info = _find_model(provider, model)
    return info.context_window if info is not None else None


def _find_list(model_name: str, prices_as: str | None) -> tuple[str | None, str]:
    provider, _, model = model_name.partition(":")
    if prices_as != BY_NAME:
        return prices_as, model
    return provider if provider in LISTED else None, model


def compute_price(
    prices_as: str | None,
    model: str,
    usage: Usage,
    body: Raw = NOTHING,
    *,
    price: Price | None = None,
    counts: Raw | None = None,
) -> Decimal | None:
    """Return the US dollars for one call, or `None` when the price is unknown.

    Batch discounts, taxes and negotiated prices that are in no agent file are not known here.

    Args:
        prices_as: The provider whose list prices hold; `None` where none do.
        model: The name that was asked for.
        usage: Tokens of the call, or of the part of it that `counts` is about.
        body: The answer, for what the tokens do not say: the service tier, the speed, and the model that answered,
            which counts where the requested name has no price.
        price: The pinned price. It is left only where the answer says that it was billed at another tier or speed,
            or by another model, whose price the list knows.
        counts: The object that `usage` was read from, for cache writes that are kept for an hour; left out: `usage`
            of the answer.
    """
    if not (usage.input_tokens or usage.output_tokens):
        return None
    counts = body.get("usage") if counts is None else counts
    hour = counts.get("cache_creation").get("ephemeral_1h_input_tokens").count
    if usage.cached_input_tokens + usage.cache_write_tokens > usage.input_tokens or hour > usage.cache_write_tokens:
        return None
    applied = _find_applied(prices_as, model, body, price=price, counts=counts)
    if applied is None:
        return None
    return compute_cost(
        applied,
        input_tokens=usage.input_tokens,
        cached_input=usage.cached_input_tokens,
        cache_write=usage.cache_write_tokens,
        output=usage.output_tokens,
        cache_write_hour=hour,
    )


def _find_applied(provider: str | None, model: str, body: Raw, *, price: Price | None, counts: Raw) -> Price | None:
    """Return the price that the call is billed at, by what the answer says."""
    usage = body.get("usage")
    told = {
        "service_tier": body.get("service_tier").string or usage.get("service_tier").string,
        "speed": usage.get("speed").string,
    }
    told = {name: value for name, value in told.items() if value}
    if counts.get("type").string in _OF_OTHER_MODELS and (other := counts.get("model").string):
        return _find_closest(provider, other, _find_variant(told)) or price
    if price is None:
        names = dict.fromkeys((model, body.get("model").string))
        found = (_find_closest(provider, name, _find_variant(told)) for name in names if name)
        return next((listed for listed in found if listed is not None), None)
    # What the answer does not tell is as it was asked for.
    billed = _find_variant(price.variant | told)
    return price if billed == price.variant else _find_listed(provider, model, billed) or price


def _find_closest(provider: str | None, model: str, variant: Mapping[str, str]) -> Price | None:
    """Return the list price, that of the usual tier and speed where the list does not know these."""
    return _find_listed(provider, model, variant) or _find_listed(provider, model, {})


def _find_variant(fields: Mapping[str, object]) -> dict[str, str]:
    """Return the service tier and the speed, each if it is not the usual one."""
    found = {name: value for name in _VARIANT_FIELDS if isinstance(value := fields.get(name), str)}
    named = {name: _SAME_TIERS.get(value, value) if name == "service_tier" else value for name, value in found.items()}
    return {name: value for name, value in named.items() if value not in _USUAL}


def _writes_for_an_hour(params: Mapping[str, JsonValue]) -> bool:
    cache = params.get("cache_control")
    return isinstance(cache, dict) and cache.get("ttl") == "1h"


def _with_long_writes(price: Price) -> Price:
    """Return the price with the rate of writes that are kept for an hour in place of the usual ones."""
    return price.model_copy(update={"tiers": tuple(map(_keep_for_an_hour, price.tiers))})


def _keep_for_an_hour(rates: Rates) -> Rates:
    hour = rates.cache_write if rates.cache_write_hour is None else rates.cache_write_hour
    return rates.model_copy(update={"cache_write": hour})


def _read_spec(spec: PriceSpec, variant: dict[str, str]) -> Price:
    tiers = (_read_rates(spec), *(_read_rates(tier, tier.above) for tier in spec.tiers))
    return Price(tiers=tiers, source=FILE, variant=variant)


def _read_rates(spec: PriceSpec | PriceTier, above: int = 0) -> Rates:
    return Rates(
        above=above,
        input=spec.input,
        output=spec.output,
        cached_input=spec.input if spec.cached_input is None else spec.cached_input,
        cache_write=spec.input if spec.cache_write is None else spec.cache_write,
        # Twice the input, as of Anthropic, where writes cost more than input at all.
        cache_write_hour=None if spec.cache_write is None else max(spec.cache_write, 2 * spec.input),
    )


def _find_listed(provider: str | None, model: str, variant: Mapping[str, str]) -> Price | None:
    """Return today's list price for exactly this service tier and speed."""
    return _read_list(provider, model, tuple(sorted(variant.items())), datetime.now(UTC).date())


@lru_cache(maxsize=256)
def _read_list(provider: str | None, model: str, variant: tuple[tuple[str, str], ...], today: date) -> Price | None:
    info = _find_model(provider, model)
    if info is None:
        return None
    now = datetime.combine(today, time(12), UTC)
    known = [each for each in info.price_variants or () if each.constraint is None or each.constraint.active(now)]
    if not all(any(each.when == {name: value} for each in known) for name, value in variant):
        return None
    tiers = _read_tiers(info.get_prices(now, dict(variant)))
    from genai_prices import __version__  # noqa: PLC0415 - a tenth of a second, only for list prices

    return Price(tiers=tiers, source=f"genai-prices {__version__}", variant=dict(variant)) if tiers else None


@lru_cache(maxsize=256)
def _find_model(provider: str | None, model: str) -> "ModelInfo | None":
    if provider is None:
        return None
    # The import takes a tenth of a second, and is not for processes without such models.
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - a tenth of a second, only for list prices

    try:
        return get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        return None


def _read_tiers(prices: "ModelPrice") -> tuple[Rates, ...]:
    """Return the rates of all tiers, none for a model whose input or output has no price by tokens."""
    plain, output = prices.input_mtok, prices.output_mtok
    if plain is None or output is None:
        return ()
    cached, write = (plain if rate is None else rate for rate in (prices.cache_read_mtok, prices.cache_write_mtok))
    hour = prices.cache_write_1h_mtok
    edges = {edge for rate in (plain, output, cached, write, hour) for edge in _list_edges(rate)}
    return tuple(
        Rates(
            above=edge,
            input=_read_rate(plain, edge),
            output=_read_rate(output, edge),
            cached_input=_read_rate(cached, edge),
            cache_write=_read_rate(write, edge),
            cache_write_hour=None if hour is None else _read_rate(hour, edge),
        )
        for edge in sorted({0, *edges})
    )


def _list_edges(rate: "Decimal | TieredPrices | None") -> list[int]:
    return [] if rate is None or isinstance(rate, Decimal) else [tier.start for tier in rate.tiers]


def _read_rate(rate: "Decimal | TieredPrices", edge: int) -> Decimal:
    if isinstance(rate, Decimal):
        return rate
    return next((tier.price for tier in reversed(rate.tiers) if tier.start <= edge), rate.base)
