"""The way of facts to spans: what a replay notes again is left out, what was not exported comes again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import BlobStore
from mandate.workers.telemetry import pipeline as module
from mandate.workers.telemetry.cursors import CLAIM, Cursor, Cursors
from mandate.workers.telemetry.pipeline import Pipeline
from mandate.workflows.contracts.telemetry import (
    Fact,
    MessageTaken,
    Noted,
    RequestAsked,
    RequestClosed,
    RunEnded,
    RunIdentity,
)

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
RUN = RunIdentity("default", "refund-1", "run-1")


def noted(key: str, event: int, fact: Fact | None = None, *, run: str = "run-1", is_replayed: bool = False) -> Noted:
    its = fact or MessageTaken("shop", "steer")
    return Noted(replace(RUN, run_id=run), key, "", its, AT, None, event, is_replayed)


class Bench:
    """Pipelines of workers with one store, whose exporter can be told to fail."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.sent: list[str] = []
        self.works = True
        self.status = ""

    def worker(self, name: str) -> Pipeline:
        async def export(notes: Sequence[Noted]) -> bool:
            if self.works:
                self.sent += [one.key for one in notes]
            return self.works

        async def find_end(workflow_id: str, run_id: str) -> str:
            return self.status

        return Pipeline(Cursors(self.store, name), find_end, export=export)

    async def cursor(self, run: str = "run-1") -> Cursor:
        return await Cursors(self.store, "reader").read(run)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Bench(store)
    await store.close()


async def flush(pipeline: Pipeline, *notes: Noted) -> None:
    for one in notes:
        pipeline.note(one)
    await pipeline.flush()


async def test_a_worker_that_replays_exports_what_is_new_only(bench: Bench) -> None:
    await flush(bench.worker("a"), noted("run", 3), noted("model:1", 9))
    second = bench.worker("b")

    await flush(second, noted("run", 3), noted("model:1", 9), noted("tool:1", 9), noted("model:2", 15))
    await flush(second, noted("run", 3), noted("model:2", 15))

    assert bench.sent == ["run", "model:1", "tool:1", "model:2"]


async def test_a_task_that_was_tried_again_under_another_event_repeats_nothing(bench: Bench) -> None:
    worker = bench.worker("a")

    await flush(worker, noted("run", 3))
    await flush(worker, noted("run", 6), noted("model:1", 6))

    assert bench.sent == ["run", "model:1"]


async def test_what_could_not_be_exported_is_kept_and_comes_with_what_follows(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.works = False
    await flush(worker, noted("run", 3))
    await flush(worker, noted("model:1", 9))
    bench.works = True

    await flush(worker)

    assert bench.sent == ["run", "model:1"]
    assert (await bench.cursor()).event == 9


async def test_another_worker_waits_for_a_claim_until_that_is_too_old(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Cursors(bench.store, "killed").claim("run-1")
    worker = bench.worker("a")

    await flush(worker, noted("run", 3))
    before = list(bench.sent)
    later = datetime.now(UTC) + CLAIM + timedelta(seconds=1)
    monkeypatch.setattr("mandate.workers.telemetry.cursors._now", later.timestamp)
    await flush(worker)

    assert (before, bench.sent) == ([], ["run"])


async def test_two_workers_at_once_export_a_fact_once(bench: Bench) -> None:
    one, two = bench.worker("a"), bench.worker("b")
    for worker in (one, two):
        worker.note(noted("run", 3))

    await asyncio.gather(one.flush(), two.flush())
    await asyncio.gather(one.flush(), two.flush())

    assert bench.sent == ["run"]


@pytest.mark.parametrize(
    ("outcome", "status", "is_sent"),
    [
        ("completed", "COMPLETED", True),
        ("stopped", "COMPLETED", True),
        ("continued", "CONTINUED_AS_NEW", True),
        ("cancelled", "COMPLETED", False),
        ("completed", "", False),
    ],
)
async def test_an_end_is_exported_once_the_server_says_so(
    bench: Bench, outcome: str, status: str, is_sent: bool
) -> None:
    bench.status = status

    await flush(bench.worker("a"), noted("run", 3), noted("end", 9, RunEnded("shop", "v", outcome)))

    assert bench.sent == (["run", "end"] if is_sent else ["run"])
    assert (await bench.cursor()).is_over is is_sent


async def test_an_end_that_did_not_come_to_be_is_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_LOOKS", 3)
    worker = bench.worker("a")
    await flush(worker, noted("end", 9, RunEnded("shop", "v", "completed")))
    for _ in range(3):
        await worker.flush()
    bench.status = "COMPLETED"

    await worker.flush()
    await flush(worker, noted("end", 21, RunEnded("shop", "v", "completed")))

    assert bench.sent == ["end"]


async def test_open_requests_are_at_the_cursor(bench: Bench) -> None:
    worker = bench.worker("a")
    asked = [RequestAsked("shop", f"r{number}", "approval", "d", "pay", 1, AT) for number in (1, 2)]

    await flush(worker, *(noted(f"request:{one.request}", 9, one) for one in asked))
    await flush(worker, noted("closed:r1", 15, RequestClosed("shop", "r1", "approval", "approved", AT)))

    assert {name: one.asked_at for name, one in (await bench.cursor()).open.items()} == {"r2": AT.timestamp()}


async def test_a_worker_with_too_much_leaves_whole_runs_to_their_histories(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 2)
    worker = bench.worker("a")

    await flush(worker, noted("a", 3, run="old"), noted("b", 3, run="old"), noted("a", 3, run="new"))
    await flush(worker, noted("c", 9, run="old"))

    assert bench.sent == ["a"]
    assert (await bench.cursor("old")).event == -1
    assert (await bench.cursor("new")).event == 3
