"""Models of a run: how often each answered, with how many tokens, at what cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from pydantic import JsonValue

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.transcript import Measured

SUMMARIES = "summaries"
"""Row of all calls for summaries, of whichever model."""

CHILDREN = "children"
"""Row of all model calls of children that have reported since the run last continued as new."""


@dataclass(slots=True)
class ModelTotals:
    """Answers of one model."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    priced: int = 0
    """Answers whose cost is in the sum: those since the run last continued as new that have a price."""

    def to_json(self, model: str) -> dict[str, JsonValue]:
        """Return one entry of `-o json`; `cost_usd` is `null` where the cost of some answers is not known."""
        return {
            "model": model,
            "answers": self.answers,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": f"{self.cost_usd:f}" if self.priced == self.answers else None,
        }


@dataclass(slots=True)
class ModelTable:
    """Totals by model, in the order in which they answered first."""

    usages: Mapping[int, Usage]
    """Of the steps of which the history tells."""
    beside: Mapping[int, Usage]
    """The part of them that calls for summaries took."""
    below: Usage = field(default_factory=Usage)
    """Of children."""
    _totals: dict[str, ModelTotals] = field(default_factory=dict)

    def add(self, step: int, measured: Measured) -> None:
        """Count the answer of one step, and the calls for summaries that were made for it."""
        beside = self.beside.get(step, Usage())
        if beside.model_calls:
            summaries = self._totals.setdefault(SUMMARIES, ModelTotals())
            summaries.answers += beside.model_calls
            summaries.input_tokens += beside.input_tokens
            summaries.output_tokens += beside.output_tokens
            summaries.cost_usd += beside.cost_usd
            summaries.priced += beside.model_calls - beside.unpriced_calls
        totals = self._totals.setdefault(measured.model, ModelTotals())
        totals.answers += 1
        totals.input_tokens += measured.input_tokens
        totals.output_tokens += measured.output_tokens
        usage = self.usages.get(step)
        if usage is not None and not usage.unpriced_calls:
            totals.cost_usd += usage.cost_usd - beside.cost_usd
            totals.priced += 1

    def __iter__(self) -> Iterator[tuple[str, ModelTotals]]:
        yield from self._totals.items()
        its = self.below
        if its.model_calls:
            priced = its.model_calls - its.unpriced_calls
            yield CHILDREN, ModelTotals(its.model_calls, its.input_tokens, its.output_tokens, its.cost_usd, priced)
