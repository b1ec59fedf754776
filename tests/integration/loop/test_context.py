"""Runs that are longer than their model's window, over real HTTP against a fake that refuses one token more."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.fake_provider.server import FakeProvider
from tests.support.long_run import GOAL, LongRunModel, write_agent

MODELS = ("openai:gpt-x", "vllm:llama", "anthropic:claude-x")
WINDOW = 8_000


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


async def serve(site: Site, model: LongRunModel, window: int | None = WINDOW) -> FakeProvider:
    fake = FakeProvider(script=model, window=window, count=True)
    await fake.__aenter__()
    site.environment |= {
        "OPENAI_API_KEY": "sk-secret",
        "OPENAI_BASE_URL": f"{fake.url}/v1",
        "VLLM_BASE_URL": f"{fake.url}/v1",
        "ANTHROPIC_API_KEY": "sk-secret",
        "ANTHROPIC_BASE_URL": fake.url,
    }
    return fake


def write(site: Site, agent: dict[str, object]) -> None:
    (site.folder / "agents").mkdir(exist_ok=True)
    (site.folder / "agents" / "long.yaml").write_text(json.dumps(agent))


@pytest.mark.parametrize("model", MODELS)
async def test_a_long_run_is_never_refused_and_loses_no_needle(site: Site, model: str) -> None:
    steps = 60
    plays, run = LongRunModel(steps), f"long-{uuid4().hex[:8]}"
    fake = await serve(site, plays)
    write(site, write_agent(model, steps, window=WINDOW, summary={}))

    async def steer() -> None:
        await site.agents.steer(run, "Rule: never refund more than 120 EUR", by="ann@example.com")

    plays.at_step_3 = steer
    async with site.serving():
        handle = await site.start("long", GOAL, workflow_id=run)
        result = await handle.result()

    assert (result.status, fake.refused) == (RunStatus.COMPLETED, 0)
    assert plays.answer == {"order": "AX-48213-Q", "rule": "never refund more than 120 EUR", "sum": "1274.35"}
    assert plays.summaries >= 4
    await fake.__aexit__(None, None, None)
