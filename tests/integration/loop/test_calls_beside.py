"""Calls beside those of the model's turn, of judges and summaries: each counts once, in the run and beyond it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.activities.stores.address import open_store
from mandate.workers.dev_server.server import DevServer
from mandate.workers.history.record import read_record
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, new_site
from tests.support.fake_provider.behaviours import NAMED, Answer, Behaviour, Call, Problem
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.processes import processes

CHEAP, DEAR = {"input": "1", "output": "10"}, {"input": "100", "output": "100"}
PASS = '{"verdict": "pass", "reason": "ok"}'
REFUSED = Problem(400, "invalid_value", "no")
SUMMARY = Answer(text="The agent looked things up. [1]", reasoning=False)
JUDGES, NOTES, CUT = b"You check the work", b"You keep the notes", b"older messages of this conversation are left out"
JUDGED = {"name": "judged", "after": "final", "rubric": "It holds."}


def look(number: int, words: int = 300) -> Answer:
    """A step whose call is long."""
    return Answer(calls=(Call("look", json.dumps({"what": f"{number} " + "x y z " * words})),), reasoning=False)


@dataclass
class Script:
    """A model that looks up so often before it answers, and what judges and summaries answer by their models."""

    looks: int = 0
    others: dict[str, Callable[[], Behaviour]] = field(default_factory=dict)
    cut: list[Behaviour] = field(default_factory=list)
    """Of the model itself, for the first requests that were cut."""
    asked: list[str] = field(default_factory=list)
    """Models of all requests, in their order."""

    async def __call__(self, request: Request) -> Behaviour:
        model = request.json["model"]
        self.asked.append(model)
        if JUDGES in request.body or NOTES in request.body[:6000]:
            return self.others[model]()
        if self.cut and CUT in request.body:
            return self.cut.pop(0)
        if self.asked.count("main") <= self.looks:
            return look(self.asked.count("main"))
        return Answer(text="All done.", reasoning=False)


@asynccontextmanager
async def playing(folder: Path, client: Client, script: Script) -> AsyncIterator[Site]:
    """A site whose runs count in a budget of a hundred dollars beyond them."""
    (folder / "budgets.yaml").write_text('{"budgets": [{"id": "all", "per": "month", "cost_usd": "100"}]}')
    async with FakeProvider(script=script, count=True) as fake:
        environment = {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
        yield new_site(folder, client, MANDATE_BUDGETS=str(folder / "budgets.yaml"), **environment)


def write(site: Site, *, others: dict[str, dict[str, str]], model: dict[str, Any] | None = None, **keys: Any) -> None:
    """An agent whose other models have these prices."""
    models = [{"model": "vllm:main", "price": CHEAP, "max_output_tokens": 500, **(model or {})}]
    prices = {f"vllm:{name}": price for name, price in others.items()}
    site.write("a", [], models=models, prices=prices, max_output_tokens=500, **keys)


async def check_sums(site: Site, result: RunResult, workflow_id: str, *, made: int) -> None:
    """Check that run, record and the budget beyond it count `made` calls, and the same money."""
    record = await read_record(site.client, workflow_id, None)
    store = open_store(site.settings.store)
    try:
        (balance,) = await store.list_balances("", "9999")
    finally:
        await store.close()
    assert result.usage.model_calls + result.usage.assumed_calls == made
    assert record.budget is not None
    assert record.budget.use["model_calls"].spent == made
    assert balance.held.cost_usd == 0
    if not result.usage.assumed_calls:
        assert (balance.spent.cost_usd, balance.assumed.cost_usd) == (result.usage.cost_usd, 0)
    else:
        # It may be more where less was left to the run than a call may take, and a call beside is not of its size.
        assert balance.assumed.cost_usd > 0


async def test_judge_that_takes_longer_than_its_check_counts_within_the_limit(tmp_path: Path, client: Client) -> None:
    """Each of three attempts would be billed, and the limit pays for two."""
    script = Script(others={"judge": lambda: Answer(text=PASS, delay=6)})
    async with playing(tmp_path, client, script) as site:
        check = {**JUDGED, "model": "vllm:judge", "timeout": "2s"}
        write(site, others={"judge": CHEAP}, checks=[check], budget={"model_calls": 3})
        result, workflow_id = await site.run("a")

        assert script.asked == ["main", "judge", "judge"]
        await check_sums(site, result, workflow_id, made=3)


async def test_judge_that_is_asked_after_one_that_refused_counts_beyond_the_run(tmp_path: Path, client: Client) -> None:
    script = Script(others={"first": lambda: REFUSED, "second": lambda: Answer(text=PASS)})
    async with playing(tmp_path, client, script) as site:
        check = {**JUDGED, "models": ["vllm:first", "vllm:second"]}
        write(site, others={"first": DEAR, "second": DEAR}, checks=[check])
        result, workflow_id = await site.run("a")

        assert (result.status, script.asked) == (RunStatus.COMPLETED, ["main", "first", "second"])
        await check_sums(site, result, workflow_id, made=2)


@pytest.mark.parametrize("budget", [{"model_calls": 3}, {"steps": 1}], ids=["of the run", "beyond it"])
async def test_judge_without_a_verdict_counts_where_the_next_one_has_no_room(
    tmp_path: Path, client: Client, budget: dict[str, int]
) -> None:
    script = Script(others=dict.fromkeys(("first", "second", "third"), lambda: Answer(text="Hm.")))
    async with playing(tmp_path, client, script) as site:
        check = {**JUDGED, "models": ["vllm:first", "vllm:second", "vllm:third"]}
        third = CHEAP if "model_calls" in budget else {"input": "900000", "output": "900000"}
        write(site, others={"first": CHEAP, "second": CHEAP, "third": third}, checks=[check], budget=budget)
        result, workflow_id = await site.run("a")

        assert script.asked[:3] == ["main", "first", "second"]
        assert "third" not in script.asked
        await check_sums(site, result, workflow_id, made=len(script.asked))


async def test_summary_that_is_written_after_one_was_refused_counts_beyond_the_run(
    tmp_path: Path, client: Client
) -> None:
    script = Script(looks=5, others={"first": lambda: REFUSED, "second": lambda: SUMMARY})
    async with playing(tmp_path, client, script) as site:
        summary = {"models": ["vllm:first", "vllm:second"]}
        prices = {"first": DEAR, "second": DEAR}
        write(site, others=prices, model={"window": 8000}, context={"summary": summary})
        result, workflow_id = await site.run("a")

        assert (result.status, "second" in script.asked) == (RunStatus.COMPLETED, True)
        await check_sums(site, result, workflow_id, made=len(script.asked) - script.asked.count("first"))


async def test_second_summary_for_one_answer_counts_beyond_the_run(tmp_path: Path, client: Client) -> None:
    """The conversation is cut for its size, and cut again since the model refuses it all the same."""
    script = Script(looks=33, others={"notes": lambda: SUMMARY}, cut=[NAMED["context"]])
    async with playing(tmp_path, client, script) as site:
        context = {"summary": {"models": ["vllm:notes"]}, "keep": 6}
        write(site, others={"notes": DEAR}, model={"window": 60_000}, context=context)
        result, workflow_id = await site.run("a")

        assert "notes main notes main" in " ".join(script.asked)
        assert result.status == RunStatus.COMPLETED
        await check_sums(site, result, workflow_id, made=len(script.asked) - 1)


async def test_summary_that_hangs_leaves_the_model_its_time(tmp_path: Path, client: Client) -> None:
    script = Script(looks=4, others={"notes": lambda: Answer(text="late", delay=60)})
    async with playing(tmp_path, client, script) as site:
        context = {"summary": {"models": ["vllm:notes"]}}
        model, budget = {"window": 8000, "timeout": "1s"}, {"model_calls": 20}
        write(site, others={"notes": CHEAP}, model=model, context=context, budget=budget)
        async with asyncio.timeout(25):
            result, workflow_id = await site.run("a")

        assert result.status == RunStatus.COMPLETED
        assert result.usage.assumed_calls == script.asked.count("notes") > 0
        await check_sums(site, result, workflow_id, made=len(script.asked))


async def test_calls_of_an_attempt_whose_worker_is_killed_count_once_each(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    """The first judge has no verdict; the worker is killed while the second is asked, and another one takes over."""
    kill = list[Callable[[], None]]()

    def second() -> Behaviour:
        if kill:
            kill.pop()()
        return Answer(text=PASS)

    script = Script(others={"first": lambda: Answer(text="Hm."), "second": second})
    async with playing(tmp_path, client, script) as site:
        check = {**JUDGED, "models": ["vllm:first", "vllm:second"]}
        write(site, others={"first": CHEAP, "second": CHEAP}, checks=[check], budget={"model_calls": 8})
        settings = {
            "MANDATE_FOLDER": str(site.folder),
            "MANDATE_AGENTS": str(site.folder / "agents"),
            "MANDATE_TASK_QUEUE": site.queue,
            "TEMPORAL_ADDRESS": temporal.address,
            **site.environment,
        }
        with processes(tmp_path / "processes", **settings) as started:
            kill.append((await started.worker()).process.kill)
            handle = await site.start("a")
            while kill:
                await asyncio.sleep(0.05)
            await started.worker()
            result = await handle.result()

        assert (result.status, script.asked) == (RunStatus.COMPLETED, ["main", "first", "second", "second"])
        assert (result.usage.model_calls, result.usage.assumed_calls) == (3, 1)
        await check_sums(site, result, handle.id, made=4)
        assert result.usage.cost_usd > Decimal("0.005")
