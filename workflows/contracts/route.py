"""Routes: the models that a run may ask, in which order, and at what price."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from mandate.workflows.contracts.base import Duration, JsonObject, Money, Record, Spec, Usd

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}:\S+$")]
"""`provider:model`, for example `openai:gpt-6-sol`; `scripted:` is followed by the path of a script.

The provider is one of `PROVIDERS`, or an endpoint of the file of providers.
"""

PROVIDERS = ("openai", "anthropic", "vllm", "scripted")
"""Providers that need no entry in the file of providers."""

NAME_FORM = f"'provider:model' with one of the providers {', '.join(PROVIDERS)}"
ENDPOINT_FORM = "'endpoint:model' with an endpoint of the file of providers"
"""Forms of a `ModelName`, for people."""

Preference = Literal["order", "cost", "latency"]


class PriceTier(Spec):
    """Price of a call whose whole input is larger than a size: US dollars for a million tokens."""

    above: int = Field(ge=1, le=10**12, description="The call costs this where its input has more tokens than these.")
    input: Money = Field(description='Input, for example `"2.50"`.')
    output: Money = Field(description="Output, reasoning included.")
    cached_input: Money | None = Field(default=None, description="Input read from the cache; left out: as `input`.")
    cache_write: Money | None = Field(default=None, description="Input written to the cache; left out: as `input`.")


class PriceSpec(Spec):
    """List price of a model: US dollars for a million tokens."""

    input: Money = Field(description='Input, for example `"1.25"`.')
    output: Money = Field(description="Output, reasoning included.")
    cached_input: Money | None = Field(default=None, description="Input read from the cache; left out: as `input`.")
    cache_write: Money | None = Field(default=None, description="Input written to the cache; left out: as `input`.")
    tiers: tuple[PriceTier, ...] = Field(
        default=(), max_length=10, description="Prices of calls with a larger input, by rising `above`."
    )

    @field_validator("tiers")
    @classmethod
    def _tiers_rise(cls, tiers: tuple[PriceTier, ...]) -> tuple[PriceTier, ...]:
        if any(low.above >= high.above for low, high in pairwise(tiers)):
            raise ValueError("each tier must have a larger 'above' than the one before it")
        return tiers


class RouteEntry(Spec):
    """One model of a route."""

    model: ModelName = Field(description="`provider:model`.")
    when: str | None = Field(
        default=None,
        min_length=1,
        max_length=4000,
        description="A condition in CEL over `run`: the run goes on with this model once it holds, and stays there.",
    )
    params: JsonObject = Field(default={}, description="Request fields of the vendor, for example a reasoning effort.")
    window: int | None = Field(default=None, ge=1024, description="Tokens of its context, where they are not known.")
    max_output_tokens: int | None = Field(default=None, ge=1, description="Longest answer; left out: the agent's.")
    price: PriceSpec | None = Field(default=None, description="Price, where it is not known or is another one.")
    timeout: Duration | None = Field(default=None, description="Longest time of one call, for example `2m`.")

    @field_validator("timeout")
    @classmethod
    def _is_short(cls, timeout: timedelta | None) -> timedelta | None:
        if timeout is not None and timeout > timedelta(hours=1):
            raise ValueError("must be at most 1h")
        return timeout


RouteItem = ModelName | RouteEntry
Route = tuple[RouteItem | tuple[RouteItem, ...], ...]
"""A list in the list are models that are equal: `prefer` says which of them is asked first."""


def list_entries(route: Route) -> tuple[tuple[RouteEntry, int], ...]:
    """Return the entries of `route` in order, each with the position of its item: equal models share it."""
    return tuple(
        (each if isinstance(each, RouteEntry) else RouteEntry(model=each), position)
        for position, item in enumerate(route)
        for each in (item if isinstance(item, tuple) else (item,))
    )


def list_places(route: Route) -> tuple[tuple[int, ...], ...]:
    """Return the place of each entry of `route` in its list, in the order of `list_entries`."""
    return tuple(
        (position, *within)
        for position, item in enumerate(route)
        for within in ([(index,) for index in range(len(item))] if isinstance(item, tuple) else [()])
    )


class Rates(Record):
    """US dollars for a million tokens, from a size of the whole input on."""

    above: int = 0
    """These rates are those of the whole call if its input has more tokens than this."""
    input: Usd
    output: Usd
    cached_input: Usd
    cache_write: Usd
    """Input written to the cache for as long as the requests ask for."""
    cache_write_hour: Usd | None = None
    """Input written to the cache for an hour; `None`: as `cache_write`."""


class Price(Record):
    """Price of a model as a run keeps it."""

    tiers: tuple[Rates, ...]
    """At least one, by rising `above`, the first from 0 on."""
    source: str
    """`agent file`, or the list that it is from with its version."""
    variant: dict[str, str] = {}
    """Fields of the request that these rates are for, `service_tier` and `speed`; a usual value is left out."""


class RoutePin(Record):
    """One model of a route as a run keeps it."""

    model: ModelName
    group: int
    """Equal models have the same."""
    when: str | None = None
    window: int | None = None
    """Tokens of its context; `None` where nobody knows."""
    max_output_tokens: int | None = None
    timeout: timedelta | None = None
    price: Price | None = None
    """`None` where nobody knows."""


class RouteFacts(Record):
    """Facts of a run that conditions of routes see as `run`, beside those that all conditions see."""

    failures: int = 0
    """Calls that failed, checks that were not passed and answers that could not be taken, so far."""
    context_tokens: int = 0
    last_tools: tuple[str, ...] = ()
    """Tools of the last turn, in the order of its calls."""
    risk: float = 0.0
    """The highest of `last_tools`."""


def find_price(model: str, route: Sequence[RoutePin], others: Mapping[str, Price]) -> Price | None:
    """Return the price of `model`: that of the first entry of `route` that has one, else of `others`."""
    return next((one.price for one in route if one.model == model and one.price is not None), None) or others.get(model)
