"""Costs by model, with those of summaries apart."""

from decimal import Decimal

from mandate.workers.history.models import CHILDREN, SUMMARIES, ModelTable
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.transcript import Measured


def test_summaries_have_a_row_of_their_own() -> None:
    whole = Usage(model_calls=2, input_tokens=1500, output_tokens=120, cost_usd=Decimal("0.5"))
    summary = Usage(model_calls=1, input_tokens=500, output_tokens=20, cost_usd=Decimal("0.2"))
    plain = Usage(model_calls=1, input_tokens=1000, output_tokens=100, cost_usd=Decimal("0.3"))
    models = ModelTable({1: plain, 2: whole}, {2: summary})

    for step in (1, 2):
        models.add(step, Measured(model="vllm:a", input_tokens=1000, output_tokens=100))

    told = {model: totals.to_json(model) for model, totals in models}
    assert told == {
        "vllm:a": {
            "model": "vllm:a", "answers": 2, "input_tokens": 2000, "output_tokens": 200, "cost_usd": "0.6",
        },
        SUMMARIES: {
            "model": SUMMARIES, "answers": 1, "input_tokens": 500, "output_tokens": 20, "cost_usd": "0.2",
        },
    }  # fmt: skip


def test_children_have_a_row_of_their_own() -> None:
    below = Usage(model_calls=5, input_tokens=900, output_tokens=60, cost_usd=Decimal("0.7"), unpriced_calls=1)
    models = ModelTable({}, {}, below)

    models.add(1, Measured(model="vllm:a", input_tokens=1000, output_tokens=100))

    assert [model for model, _ in models] == ["vllm:a", CHILDREN]
    assert dict(models)[CHILDREN].to_json(CHILDREN) == {
        "model": CHILDREN, "answers": 5, "input_tokens": 900, "output_tokens": 60, "cost_usd": None,
    }  # fmt: skip
