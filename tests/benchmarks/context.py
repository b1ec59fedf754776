"""A long run within a small window: what its requests hold, beside a run without cuts and one that always cuts.

`python -m tests.benchmarks.context --steps 10000 [--window 32000] [--json]`
"""

import argparse
import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import structlog
from temporalio.client import Client

from mandate.activities.stores.sqlite import SqliteStore
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.support.agents import new_site
from tests.support.fake_provider.server import FakeProvider
from tests.support.long_run import GOAL, RIGHT, LongRunModel, write_agent

MODEL = "openai:long"
COMPARED_STEPS = 300
PERSON = "ann@example.com"


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of one way to manage a conversation, a step."""

    way: str
    steps: int
    status: str
    bytes_per_step: int
    sent_anew_per_step: int
    """Bytes that no prompt cache has."""
    cached_share: float
    request_bytes_max: int
    cuts: int


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of the long run."""

    status: str
    steps: int
    window: int
    cuts: int
    refused_after_first_cut: int
    needles: int
    needles_right: int
    request_bytes_max: int
    cached_share: float
    ms_per_step: float
    history_bytes_per_step: float
    store_bytes_per_step: float
    cold_load_blobs: int
    """Blobs that a cold worker reads for the last step."""
    compared: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class _Run:
    status: str
    model: LongRunModel
    refused: int
    cuts: int
    seconds: float
    history_bytes: int
    store_bytes: int
    cold_load_blobs: int


class _CountingStore(SqliteStore):
    """A store that counts the blobs that are read."""

    read = 0

    async def get(self, digests: list[str]) -> dict[str, bytes]:  # type: ignore[override] # as it is called here
        found = await super().get(digests)
        type(self).read += len(found)
        return found


async def run_long(
    client: Client, steps: int, *, window: int | None, declared: int | None, context: Mapping[str, object]
) -> _Run:
    """Make one run; `window` is the fake's, `declared` what the agent file says of it."""
    run = f"long-{uuid4().hex[:8]}"
    model = LongRunModel(steps)
    with tempfile.TemporaryDirectory(prefix="mandate-context-") as folder:
        async with FakeProvider(script=model, window=window, count=True, keeps_requests=False) as fake:
            site = new_site(Path(folder), client, OPENAI_API_KEY="sk-none", OPENAI_BASE_URL=f"{fake.url}/v1")

            async def steer() -> None:
                await site.agents.steer(run, "Rule: never refund more than 120 EUR", by=PERSON)

            model.at_step_3 = steer
            (site.folder / "agents").mkdir()
            agent = write_agent(MODEL, steps, window=declared, **context)
            (site.folder / "agents" / "long.yaml").write_text(json.dumps(agent))
            began = time.perf_counter()
            async with site.serving():
                result = await (await site.start("long", GOAL, workflow_id=run)).result()
            seconds = time.perf_counter() - began
            refused, store = fake.refused, site.settings.store.removeprefix("sqlite:///")
            history = await _measure_history(client, run)
            cuts, blobs = await _read_cuts(Path(store), result.head)
            size = sum(path.stat().st_size for path in Path(store).parent.glob(f"{Path(store).name}*"))
    return _Run(str(result.status), model, refused, cuts, seconds, history, size, blobs)


async def _measure_history(client: Client, run: str) -> int:
    size, run_id = 0, ""
    while run_id is not None:
        part = client.get_workflow_handle(run, run_id=run_id or None)
        size += (await part.describe()).raw_info.history_size_bytes
        first = await anext(part.fetch_history_events(page_size=1))
        run_id = first.workflow_execution_started_event_attributes.continued_execution_run_id or None  # type: ignore[assignment] # ends the loop
    return size


async def _read_cuts(path: Path, head: str | None) -> tuple[int, int]:
    """Return the cuts of a conversation, and the blobs that a cold worker reads of it."""
    assert head is not None
    blobs = Blobs(_CountingStore(path))
    before = _CountingStore.read
    chain = await TranscriptLog(blobs).load(head)
    read = _CountingStore.read - before
    await blobs.close()
    return (chain.cut.number if chain.cut is not None else 0), read


def compare(way: str, run: _Run) -> Compared:
    sizes, shared = run.model.sizes, run.model.shared
    return Compared(
        way=way,
        steps=run.model.steps,
        status=run.status,
        bytes_per_step=sum(sizes) // len(sizes),
        sent_anew_per_step=(sum(sizes) - sum(shared)) // len(sizes),
        cached_share=round(run.model.cached_share, 4),
        request_bytes_max=max(sizes),
        cuts=run.cuts,
    )


async def measure(steps: int, window: int) -> Report:
    async with run_private_server() as server:
        os.environ["TEMPORAL_ADDRESS"] = server.address
        client = await connect()
        long = await run_long(client, steps, window=window, declared=window, context={"summary": {}})
        few = min(steps, COMPARED_STEPS)
        cut = await run_long(client, few, window=window, declared=window, context={"summary": {}})
        never = await run_long(client, few, window=None, declared=100_000_000, context={})
        always = await run_long(client, few, window=window, declared=4_096, context={"limit": 0.1, "keep": 2})
    model = long.model
    return Report(
        status=long.status,
        steps=steps,
        window=window,
        cuts=long.cuts,
        refused_after_first_cut=long.refused,
        needles=len(RIGHT),
        needles_right=model.needles_right,
        request_bytes_max=max(model.sizes),
        cached_share=round(model.cached_share, 4),
        ms_per_step=round(1000 * long.seconds / steps, 1),
        history_bytes_per_step=round(long.history_bytes / steps),
        store_bytes_per_step=round(long.store_bytes / steps),
        cold_load_blobs=long.cold_load_blobs,
        compared=(compare("cuts", cut), compare("no cuts", never), compare("a cut each step", always)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.context")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--window", type=int, default=32_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    report = asyncio.run(measure(options.steps, options.window))
    for way in report.compared:
        print(json.dumps(asdict(way)))
    shown = asdict(report)
    shown.pop("compared")
    if options.json:
        print(json.dumps(shown))
        return
    for name, value in shown.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
