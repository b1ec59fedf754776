"""Prices and windows of an agent's models, and those models whose price nobody knows."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property

from mandate.activities.documents import Document, Fault
from mandate.activities.providers.prices import find_window, pin_price
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import Place, did_you_mean, key_path
from mandate.workflows.contracts.route import ModelName, Price, RouteEntry, RoutePin

EXAMPLE = 'price: {input: "0.10", output: "0.40"}'

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
"""A model's name that needs no quotes in YAML."""


class AgentPrices:
    """Prices and windows of the models of one valid agent file."""

    def __init__(self, spec: AgentSpec, document: Document, find_list: Callable[[str], str | None]) -> None:
        """Take the agent; `find_list` returns whose list prices hold for the models of a provider."""
        self._find_list = find_list
        self._spec = spec
        self._document = document

    @cached_property
    def route(self) -> tuple[RoutePin, ...]:
        """The models of the route, in order."""
        return tuple(self._pin(entry, group) for entry, group in self._spec.entries)

    @cached_property
    def others(self) -> dict[str, Price]:
        """Prices of the models that are asked beside the route, those that are in it too included."""
        names = [*(model for _, model in self._asked()), *self._spec.prices]
        found = {model: self._find_price(model) for model in dict.fromkeys(names)}
        return {model: price for model, price in found.items() if price is not None}

    def faults(self) -> Iterator[Fault]:
        """Yield models without a price where money is limited, and prices of models that are not asked."""
        yield from self._misplaced()
        if self._spec.budget.cost_usd is None:
            return
        places = list(_list_route_places(self._spec))
        for place, (entry, _), pin in zip(places, self._spec.entries, self.route, strict=True):
            if pin.price is None:
                yield self._missing(place, entry.model, entry.params, _write_entry(self._spec, place, entry.model))
        first = {model: place for place, model in reversed(list(self._asked()))}
        for model, place in first.items():
            if model not in self.others and model not in self._in_route:
                yield self._missing(place, model, {}, f"prices: {{{_quote(model)}: {EXAMPLE.partition(' ')[2]}}}")

    @property
    def _in_route(self) -> dict[str, RouteEntry]:
        return {entry.model: entry for entry, _ in self._spec.entries}

    def _asked(self) -> Iterator[tuple[Place, ModelName]]:
        """Yield each model that is asked, or may be, beside the route, and where it is named."""
        for index, check in enumerate(self._spec.checks):
            if check.model is not None:
                yield ("checks", index, "model"), check.model
            yield from ((("checks", index, "models", place), model) for place, model in enumerate(check.models))
        summary = self._spec.context.summary
        for place, model in enumerate(summary.models if summary is not None else ()):
            yield ("context", "summary", "models", place), model
        for place, model in enumerate(self._spec.models_allowed):
            if not model.endswith("*"):
                yield ("models_allowed", place), model

    def _find_price(self, model: str) -> Price | None:
        entry = self._in_route.get(model)
        if entry is not None:
            return pin_price(model, entry.price, params=entry.params, prices_as=self._list_of(model))
        return pin_price(model, self._spec.prices.get(model), prices_as=self._list_of(model))

    def _list_of(self, model: str) -> str | None:
        return self._find_list(model.partition(":")[0])

    def _pin(self, entry: RouteEntry, group: int) -> RoutePin:
        return RoutePin(
            model=entry.model,
            group=group,
            when=entry.when,
            window=entry.window or find_window(entry.model, prices_as=self._list_of(entry.model)),
            max_output_tokens=entry.max_output_tokens,
            timeout=entry.timeout,
            price=self._find_price(entry.model),
        )

    def _misplaced(self) -> Iterator[Fault]:
        places = dict(zip(self._in_route, _list_route_places(self._spec), strict=True))
        asked = {model for _, model in self._asked()}
        beginnings = tuple(model[:-1] for model in self._spec.models_allowed if model.endswith("*"))
        for model in self._spec.prices:
            if (place := places.get(model)) is not None:
                line = _write_entry(self._spec, place, model)
                yield self._document.fault(
                    ("prices", model), f"is a model of the route: say it at {key_path(place)}: {line}"
                )
            elif model not in asked and not (beginnings and model.startswith(beginnings)):
                named = f"{', '.join(sorted(asked)) or 'none'}"
                message = (
                    f"no check, summary or 'models_allowed' names it{did_you_mean(model, asked)} they name {named}"
                )
                yield self._document.fault(("prices", model), message)

    def _missing(self, place: Place, model: str, params: JsonObject, line: str) -> Fault:
        asked = (
            " as 'params' ask for it"
            if params and pin_price(model, None, prices_as=self._list_of(model)) is not None
            else ""
        )
        message = f"no price is known for {model!r}{asked}, and 'budget' limits 'cost_usd'; add its price: {line}"
        return self._document.fault(place, message)


def _list_route_places(spec: AgentSpec) -> Iterator[Place]:
    """Yield the place of each model of the route, in the order of `entries`."""
    for index, item in enumerate(spec.models):
        if isinstance(item, tuple):
            yield from (("models", index, within) for within in range(len(item)))
        else:
            yield ("models", index)


def _write_entry(spec: AgentSpec, place: Place, model: str) -> str:
    """Return what is to be written at a place of the route: the whole entry in place of a name, else its `price`."""
    item = spec.models[int(place[1])]
    entry = item[int(place[2])] if isinstance(item, tuple) else item
    return EXAMPLE if isinstance(entry, RouteEntry) else f"{{model: {_quote(model)}, {EXAMPLE}}}"


def _quote(model: str) -> str:
    return model if _PLAIN.fullmatch(model) else json.dumps(model)
