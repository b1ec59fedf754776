"""What a model call costs."""

import subprocess
import sys
from decimal import Decimal

import pytest

from mandate.activities.providers.prices import compute_price
from mandate.activities.providers.rawjson import Raw
from mandate.workflows.contracts.model import Usage

USAGE = Usage(input_tokens=1000, cached_input_tokens=400, cache_write_tokens=100, output_tokens=50, reasoning_tokens=30)


@pytest.mark.parametrize(
    ("provider", "model", "cost"),
    [
        ("openai", "gpt-6-sol", "0.00183"),  # (500 * 2 + 400 * 0.2 + 100 * 2.5 + 50 * 10) / 1e6
        ("anthropic", "claude-sonnet-5-5", "0.00179"),  # (500 * 2 + 400 * 0.1 + 100 * 2.5 + 50 * 10) / 1e6
        ("openai", "gpt-9-imaginary", None),
        ("anthropic", "gpt-6-sol", None),
        ("vllm", "gpt-6-sol", None),  # a server of one's own has no list price, whatever the model is called
        ("scripted", "gpt-6-sol", None),
    ],
)
def test_price(provider: str, model: str, cost: str | None) -> None:
    assert compute_price(provider, model, USAGE) == (None if cost is None else Decimal(cost))


def test_model_that_answered_counts_where_the_name_has_no_price() -> None:
    body = Raw.read('{"model": "gpt-6-sol"}')

    assert compute_price("openai", "our-deployment", USAGE, body) == Decimal("0.00183")


def test_service_tier_changes_the_price() -> None:
    body = Raw.read('{"service_tier": "priority"}')

    # gpt-5.5 costs two and a half times as much: 1000 * 12.5 + 10 * 75
    assert compute_price("openai", "gpt-5.5", Usage(input_tokens=1000, output_tokens=10), body) == Decimal("0.01325")


def test_speed_changes_the_price() -> None:
    body = Raw.read('{"usage": {"speed": "fast"}}')
    usage = Usage(input_tokens=1000, output_tokens=10)

    assert compute_price("anthropic", "claude-opus-5-5", usage) == Decimal("0.0042")
    assert compute_price("anthropic", "claude-opus-5-5", usage, body) == Decimal("0.0084")


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),  # no usage was reported: not free
        Usage(input_tokens=10, cached_input_tokens=20),  # more cached than there was
    ],
)
def test_tokens_that_cannot_be_are_an_unknown_price(usage: Usage) -> None:
    assert compute_price("openai", "gpt-6-sol", usage) is None


@pytest.mark.parametrize(
    ("module", "absent"),
    [("openai_chat, openai_responses", "anthropic"), ("anthropic", "openai")],
)
def test_adapter_loads_its_own_sdk_and_no_price_list(module: str, absent: str) -> None:
    code = (
        f"import sys; from mandate.activities.providers import {module}, prices;"
        "from mandate.workflows.contracts.model import Usage;"
        "prices.compute_price(None, 'x', Usage(input_tokens=1));"
        f"print('genai_prices' in sys.modules, {absent!r} in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
