"""Runs that are longer than their model's window, over real HTTP against a fake that refuses one token more."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import ALLOW_ALL, Site, new_site, parts_taken, results_told
from tests.support.fake_provider.behaviours import Answer, Behaviour, Broken, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.long_run import GOAL, LongRunModel, write_agent
from tests.support.processes import processes
from tests.support.toolkit import calls_of

MODELS = ("openai:gpt-x", "vllm:llama", "anthropic:claude-x")
WINDOW = 8_000
NEEDLES = {"order": "AX-48213-Q", "rule": "never refund more than 120 EUR", "sum": "1274.35"}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


@asynccontextmanager
async def serving(
    site: Site, model: Callable[[Request], Awaitable[Behaviour]], window: int | None = WINDOW
) -> AsyncIterator[FakeProvider]:
    async with FakeProvider(script=model, window=window, count=True) as fake:
        site.environment |= {
            "OPENAI_API_KEY": "sk-secret",
            "OPENAI_BASE_URL": f"{fake.url}/v1",
            "VLLM_BASE_URL": f"{fake.url}/v1",
            "ANTHROPIC_API_KEY": "sk-secret",
            "ANTHROPIC_BASE_URL": fake.url,
        }
        yield fake


def write(site: Site, agent: dict[str, object]) -> None:
    (site.folder / "agents").mkdir(exist_ok=True)
    (site.folder / "agents" / "long.yaml").write_text(json.dumps(agent))


async def count_cuts(site: Site, result: RunResult) -> int:
    blobs = Blobs(open_store(site.settings.store))
    chain = await TranscriptLog(blobs).load(result.head or "")
    await blobs.close()
    return chain.cut.number if chain.cut is not None else 0


def steering(site: Site, run: str) -> Callable[[], Awaitable[None]]:
    async def steer() -> None:
        await site.agents.steer(run, "Rule: never refund more than 120 EUR", by="ann@example.com")

    return steer


async def play(site: Site, plays: LongRunModel, agent: dict[str, object], window: int | None = WINDOW) -> RunResult:
    """The result of a run that is told a rule at step 3."""
    run = f"long-{uuid4().hex[:8]}"
    plays.run, plays.at_step_3 = run, steering(site, run)
    async with serving(site, plays, window) as fake:
        write(site, agent)
        async with site.serving():
            result: RunResult = await (await site.start("long", GOAL, workflow_id=run)).result()
        plays.refused = fake.refused
    return result


@pytest.mark.parametrize("model", MODELS)
async def test_a_long_run_is_never_refused_and_loses_no_needle(site: Site, model: str) -> None:
    plays = LongRunModel(60)

    result = await play(site, plays, write_agent(model, 60, window=WINDOW, summary={}))

    assert (result.status, plays.refused, plays.answer) == (RunStatus.COMPLETED, 0, NEEDLES)
    assert plays.summaries >= 4
    assert result.usage.model_calls == 61 + plays.summaries + plays.recalls


async def test_without_a_summary_what_is_left_out_is_read_again(site: Site) -> None:
    plays = LongRunModel(30)

    result = await play(site, plays, write_agent(MODELS[0], 30, window=WINDOW, keep=2))

    assert (result.status, plays.refused, plays.answer) == (RunStatus.COMPLETED, 0, NEEDLES)
    assert (plays.summaries, plays.recalls) == (0, 1)
    assert await count_cuts(site, result) >= 1


async def test_a_window_smaller_than_it_is_said_to_be_ends_no_run(site: Site) -> None:
    plays = LongRunModel(60)

    result = await play(site, plays, write_agent(MODELS[0], 60, window=100_000, summary={}), window=5_000)

    assert (result.status, plays.answer) == (RunStatus.COMPLETED, NEEDLES)
    assert 1 <= plays.refused <= 3
    assert await count_cuts(site, result) >= 4


async def test_an_input_that_does_not_fit_alone_is_refused_at_the_start(site: Site) -> None:
    write(site, write_agent(MODELS[0], 5, window=WINDOW))

    async with serving(site, LongRunModel(5)) as fake, site.serving():
        handle = await site.start("long", "Sort these words. " * 4_000)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

    assert str(failed.value.cause).startswith("BadInput: start request: input: the input has about ")
    assert str(failed.value.cause).endswith(
        "Put the text into a file, give the agent a tool that reads parts of it, and name the file in the input"
    )
    assert fake.answered == 0


async def test_a_worker_killed_at_a_cut_is_followed_by_one_that_sends_the_same_bytes(
    site: Site, temporal: DevServer, tmp_path: Path
) -> None:
    plays, run = LongRunModel(40), f"long-{uuid4().hex[:8]}"
    plays.at_step_3 = steering(site, run)
    kill: list[Callable[[], None]] = []
    bodies: list[bytes] = []

    async def answer(request: Request) -> Behaviour:
        first = b"older messages of this conversation are left out" in request.body and not bodies
        if first or (bodies and len(bodies) < 2):
            bodies.append(request.body)
        if first:
            kill.pop()()
            return Broken("drop")
        return await plays(request)

    async with serving(site, answer) as fake:
        write(site, write_agent(MODELS[0], 40, window=WINDOW, summary={}))
        settings = {
            "MANDATE_FOLDER": str(site.folder),
            "MANDATE_AGENTS": str(site.folder / "agents"),
            "MANDATE_TASK_QUEUE": site.queue,
            "TEMPORAL_ADDRESS": temporal.address,
            **site.environment,
        }
        with processes(tmp_path / "processes", **settings) as started:
            worker = await started.worker()
            kill.append(worker.process.kill)
            handle = await site.start("long", GOAL, workflow_id=run)
            while kill:
                await asyncio.sleep(0.05)
            await started.worker()
            result = await handle.result()

    assert (result.status, fake.refused, plays.answer) == (RunStatus.COMPLETED, 0, NEEDLES)
    assert bodies[0] == bodies[1]
    assert await count_cuts(site, result) >= 2


async def test_cuts_go_on_when_the_run_continues_as_new(site: Site) -> None:
    plays = LongRunModel(260)

    result = await play(site, plays, write_agent(MODELS[0], 260, window=WINDOW, summary={}))

    assert (result.status, plays.refused, plays.answer) == (RunStatus.COMPLETED, 0, NEEDLES)
    assert await count_cuts(site, result) >= 15
    assert await parts_taken(site.client, plays.run) > 1


def keeper(*texts: str) -> Callable[[Request], Awaitable[Behaviour]]:
    calls = [Answer(calls=(Call("keep_in_mind", json.dumps({"text": text})),)) for text in texts]

    async def answer(_: Request) -> Behaviour:
        return calls.pop(0) if calls else Answer(text="Done.")

    return answer


@pytest.mark.parametrize(
    ("policy", "text", "told", "kept"),
    [
        ([], "The order is AX-1.", "kept", ["The order is AX-1."]),
        ([], "", 'not called: text: "" is shorter than 1 character', []),
        ([], "x" * 501, "not called: text:", []),
        ([], "订" * 500, "not kept: it is too long; say it in fewer words", []),
        ([{"id": "no", "match": {"tools": ["keep_in_mind"]}, "verdict": "deny"}], "A fact.", "refused: rule 'no'", []),
    ],
)
async def test_a_fact_is_kept_as_a_call_under_the_policy(
    site: Site, policy: list[dict[str, Any]], text: str, told: str, kept: list[str]
) -> None:
    site.write("keeps", [], models=[MODELS[0]], policy=policy or ALLOW_ALL)
    async with serving(site, keeper(text), None), site.serving():
        handle = await site.start("keeps")
        result = await handle.result()
        progress = await handle.query("progress")

    (answer,) = await results_told(site, result.head or "")
    assert answer.text.startswith(told[:20])
    assert progress["kept_in_mind"] == kept
    assert result.effects.count == 0


async def test_what_a_stopped_run_did_before_a_cut_is_counted(site: Site) -> None:
    """Equal effects before and after a cut have keys of their own."""
    paid = 0

    async def answer(_: Request) -> Behaviour:
        nonlocal paid
        paid += 1
        if paid > 24:
            return Answer(text="Done.", reasoning=False)
        big = Call("big", json.dumps({"size": 1800}))
        return Answer(calls=(Call("pay", '{"order": 1}'), big), reasoning=False)

    site.write("pays", [], models=[{"model": MODELS[0], "window": 6_000}], budget={"steps": 60}, max_output_tokens=500)
    async with serving(site, answer, 6_000) as fake, site.serving():
        handle = await site.start("pays")
        result = await handle.result()

    assert (result.status, fake.refused) == (RunStatus.COMPLETED, 0)
    assert len({call.key for call in calls_of(handle.id, "pay")}) == len(calls_of(handle.id, "pay")) == 24
    assert await count_cuts(site, result) >= 2
    assert await parts_taken(site.client, handle.id) == 1
