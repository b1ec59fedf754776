"""Model calls through the whole runtime, over real HTTP against a fake that enforces the vendors' rules."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.fake_provider.behaviours import Answer, Body, Broken, Call, Problem
from tests.support.fake_provider.server import FakeProvider
from tests.support.toolkit import calls_of

MODELS = ("openai:gpt-6-sol", "vllm:llama", "anthropic:claude-sonnet-5-5")


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    return new_site(
        tmp_path,
        client,
        OPENAI_API_KEY="sk-secret",
        OPENAI_BASE_URL=f"{fake.url}/v1",
        VLLM_BASE_URL=f"{fake.url}/v1",
        ANTHROPIC_API_KEY="sk-secret",
        ANTHROPIC_BASE_URL=fake.url,
    )


def look(number: int, seconds: float = 0.0) -> Answer:
    arguments = f'{{"what": "n{number}", "seconds": {seconds}}}'
    return Answer(text=f"I look {number}.", calls=(Call("look", arguments, id=f"call_{number}"),))


@pytest.mark.parametrize("model", MODELS)
async def test_a_run_over_each_protocol(site: Site, fake: FakeProvider, model: str) -> None:
    site.write("asks", [], models=[model])
    parallel = (Call("look", '{"what": "a"}'), Call("look", '{"what": "b"}'), Call("pay", '{"order": 1}'))
    fake.will(Answer(calls=parallel), Answer(text="All is well."))

    async with site.serving():
        handle = await site.start("asks")
        result = await handle.result()
        history = (await handle.fetch_history()).to_json()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "All is well.")
    assert [part.text for part in await results_told(site, result.head or "")] == [
        "looked at a",
        "looked at b",
        '{"paid":1.0,"order":1}',
    ]
    assert result.usage.model_calls == 2
    assert result.usage.cached_input_tokens > 0
    assert result.usage.reasoning_tokens > 0
    assert (result.usage.unpriced_calls == 2) is model.startswith("vllm:")
    assert (result.usage.cost_usd > 0) is not model.startswith("vllm:")
    assert "sk-secret" not in history


ODD: dict[str, tuple[dict[str, object], ...]] = {
    "openai:gpt-6-sol": tuple(
        {
            "status": "completed",
            "output": [{"type": "function_call", "call_id": "c1", "name": "pay", "arguments": arguments}],
        }
        for arguments in (["x"], "", None)
    ),
    "vllm:llama": tuple(
        {"choices": [{"message": {"tool_calls": [{"id": "c1", "function": {"name": "pay", "arguments": arguments}}]}}]}
        for arguments in (5, "", None)
    ),
    "anthropic:claude-sonnet-5-5": tuple(
        {"stop_reason": "tool_use", "content": [{"type": "tool_use", "id": "c1", "name": "pay", "input": arguments}]}
        for arguments in (True, "", None)
    ),
}


@pytest.mark.parametrize("model", MODELS)
async def test_a_call_that_cannot_be_read_is_refused_in_words(site: Site, fake: FakeProvider, model: str) -> None:
    site.write("asks", [], models=[model], attempts=9)
    odd = (Body(json.dumps(body).encode(), content_type="application/json") for body in ODD[model])
    fake.will(*odd, Answer(text="I gave up."))

    result, run = await site.run("asks")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "I gave up.")
    assert calls_of(run, "pay") == []
    told = [part.text for part in await results_told(site, result.head or "")]
    first = {"openai": "a list", "vllm": "a number", "anthropic": "a boolean"}[model.partition(":")[0]]
    assert told == [
        f"not called: the arguments must be a JSON object, not {first}",
        'not called: "order" is a required property',
        "not called: the arguments must be a JSON object, not null",
    ]


@pytest.mark.parametrize("model", MODELS)
async def test_requests_are_equal_byte_for_byte_whoever_makes_them(site: Site, fake: FakeProvider, model: str) -> None:
    """One worker throughout, and a new one (cold caches, new clients) for each step: the same bytes on the wire."""
    site.write("asks", [], models=[model])
    fake.will(look(1), look(2), look(3), Answer(text="Done."))
    async with site.serving():
        await (await site.start("asks")).result()
    warm = [request.body for request in fake.requests]
    fake.reset()

    fake.will(look(1, 0.4), look(2, 0.4), look(3, 0.4), Answer(text="Done."))
    async with site.serving():
        handle = await site.start("asks")
        while len(calls_of(handle.id, "look")) < 1:
            await asyncio.sleep(0.02)
    for step in (2, 3):
        async with site.serving():
            while len(calls_of(handle.id, "look")) < step:
                await asyncio.sleep(0.02)
    async with site.serving():
        await handle.result()
    cold = [request.body.replace(b"0.4", b"0.0") for request in fake.requests]

    assert len(warm) == 4
    assert cold == warm


@pytest.mark.parametrize("model", MODELS)
async def test_a_provider_that_stumbles_is_asked_again(site: Site, fake: FakeProvider, model: str) -> None:
    site.write("asks", [], models=[model])
    busy = Problem(429, "rate_limit_exceeded", "slow down", {"retry-after": "1"})
    fake.will(busy, Problem(500, "server_error", "oops"), Answer(text="Done."))

    began = time.monotonic()
    result, _ = await site.run("asks")

    assert result.status is RunStatus.COMPLETED
    assert len(fake.requests) == 3
    assert time.monotonic() - began > 1.0


async def test_the_route_crosses_providers_and_keeps_the_conversation(site: Site, fake: FakeProvider) -> None:
    site.write("asks", [], models=["openai:gpt-6-sol", "anthropic:claude-sonnet-5-5"])
    quota = Problem(429, "insufficient_quota", "You exceeded your current quota")
    fake.will(look(1), quota, look(2), Answer(text="Done."))

    result, run = await site.run("asks")

    assert result.status is RunStatus.COMPLETED
    assert [request.protocol for request in fake.requests] == [
        "openai.responses",
        "openai.responses",
        "anthropic.messages",
        "anthropic.messages",
    ]
    assert len(calls_of(run, "look")) == 2
    assert b"looked at n1" in fake.requests[2].body


async def test_a_dead_provider_ends_in_a_sentence_without_the_key(site: Site, fake: FakeProvider) -> None:
    site.write("asks", [], models=["openai:gpt-6-sol"])
    fake.will(Problem(401, "invalid_api_key", "Incorrect API key provided: sk-secret"))

    result, _ = await site.run("asks")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith("openai:gpt-6-sol gave no answer: ")
    assert "sk-secret" not in (result.reason or "")


async def test_cancelling_a_run_cancels_its_model_call(site: Site, fake: FakeProvider) -> None:
    site.write("asks", [], models=["openai:gpt-6-sol"])
    fake.will(Answer(text="late", delay=60.0))

    async with site.serving():
        handle = await site.start("asks")
        while not fake.requests:
            await asyncio.sleep(0.02)
        began = time.monotonic()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert time.monotonic() - began < 5
        while not fake.dropped:
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 12


async def test_a_cut_connection_is_retried(site: Site, fake: FakeProvider) -> None:
    site.write("asks", [], models=["openai:gpt-6-sol"])
    fake.will(Broken("cut"), Answer(text="Done."))

    result, _ = await site.run("asks")

    assert result.status is RunStatus.COMPLETED
