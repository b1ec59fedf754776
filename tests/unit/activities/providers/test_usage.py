"""Usage of answers: tokens of all passes of a call, and their cost by the pinned price."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from mandate.activities.providers import errors
from mandate.activities.providers.prices import pin_price
from mandate.activities.providers.rawjson import Raw
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.route import Price, PriceSpec
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.prompts import ADAPTERS, prompt

HAIKU = "claude-haiku-5-5"
OWN = pin_price("vllm:fake", PriceSpec.model_validate({"input": "1", "output": "2", "cached_input": "0.5"}))

BODIES: dict[str, JsonObject] = {
    RESPONSES: {
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}],
        "usage": {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 400}, "output_tokens": 10},
    },
    CHAT: {
        "choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 400}, "completion_tokens": 10},
    },
    MESSAGES: {
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 600, "cache_read_input_tokens": 400, "output_tokens": 10},
    },
}


async def read(protocol: str, body: JsonObject, *, model: str, price: Price | None) -> Usage:
    adapter = ADAPTERS[protocol]("http://127.0.0.1:1")
    asked = replace(prompt(model=model), price=price)
    try:
        peer = errors.Peer("fake", model, "http://127.0.0.1:1", 1, secrets=())
        return adapter.read_answer(asked, Raw.read(json.dumps(body)), peer).usage
    finally:
        await adapter.close()


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
async def test_answers_of_all_protocols_cost_as_pinned(protocol: str) -> None:
    known = await read(protocol, BODIES[protocol], model="fake", price=OWN)
    unknown = await read(protocol, BODIES[protocol], model="fake", price=None)

    tokens = Usage(model_calls=1, input_tokens=1000, cached_input_tokens=400, output_tokens=10)
    assert known == tokens.model_copy(update={"cost_usd": Decimal("0.00082")})  # 600 * 1 + 400 * 0.5 + 10 * 2
    assert unknown == tokens.model_copy(update={"unpriced_calls": 1})


def in_passes(*passes: JsonObject, **top: int) -> JsonObject:
    usage = {"input_tokens": 23_000, "output_tokens": 1000, **top, "iterations": list(passes)}
    return {**BODIES[MESSAGES], "usage": usage}


LAST: JsonObject = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}
COMPACTION: JsonObject = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}


async def test_passes_are_summed_each_at_its_own_tier() -> None:
    """A compaction is billed beside what the top level of the usage says."""
    body = in_passes(COMPACTION, LAST)

    used = await read(MESSAGES, body, model=HAIKU, price=pin_price(f"anthropic:{HAIKU}", None))

    # 180,000 * 0.5 + 3500 * 2.5, above 100,000 tokens, and 23,000 * 0.1 + 1000 * 0.5, below
    cost = Decimal("0.09875") + Decimal("0.0028")
    assert used == Usage(model_calls=1, input_tokens=203_000, output_tokens=4500, cost_usd=cost)


async def test_pass_of_another_model_costs_what_that_model_costs() -> None:
    other: JsonObject = {**LAST, "type": "fallback_message", "model": "claude-sonnet-5-5"}
    dated: JsonObject = {**LAST, "model": f"{HAIKU}-20261001"}
    own = pin_price(f"anthropic:{HAIKU}", PriceSpec.model_validate({"input": "1", "output": "1"}))

    used = await read(MESSAGES, in_passes(dated, other), model=HAIKU, price=own)

    # 24,000 * 1 as in the file, and 23,000 * 2 + 1000 * 10
    assert used.cost_usd == Decimal("0.024") + Decimal("0.056")


async def test_writes_for_an_hour_cost_twice_the_input() -> None:
    body: JsonObject = {
        **BODIES[MESSAGES],
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
            "output_tokens": 0,
        },
    }
    written = PriceSpec.model_validate({"input": "1", "output": "1", "cache_write": "1.25"})

    listed, filed = [
        await read(MESSAGES, body, model=HAIKU, price=pin_price(f"anthropic:{HAIKU}", spec)) for spec in (None, written)
    ]

    assert listed.cost_usd == Decimal("0.00017")  # 400 * 0.125 + 600 * 0.2
    assert filed.cost_usd == Decimal("0.0017")  # 400 * 1.25 + 600 * 2


@pytest.mark.parametrize("passes", [[COMPACTION, {"type": "message"}], [7], "many", {"message": 1}])
async def test_pass_that_cannot_be_read_makes_the_price_unknown(passes: object) -> None:
    body = json.loads(json.dumps(in_passes()))
    body["usage"]["iterations"] = passes

    used = await read(MESSAGES, body, model=HAIKU, price=pin_price(f"anthropic:{HAIKU}", None))

    assert (used.model_calls, used.unpriced_calls, used.cost_usd) == (1, 1, Decimal(0))


@pytest.mark.parametrize("passes", [None, []])
async def test_without_passes_the_top_level_counts(passes: object) -> None:
    body = json.loads(json.dumps(in_passes()))
    body["usage"]["iterations"] = passes

    used = await read(MESSAGES, body, model=HAIKU, price=pin_price(f"anthropic:{HAIKU}", None))

    assert used == Usage(model_calls=1, input_tokens=23_000, output_tokens=1000, cost_usd=Decimal("0.0028"))
