"""Draw the spans of a run as a tree with their times: `python deploy/monitoring/draw_spans.py OUT.svg [HISTORY.json]`.

HISTORY.json is what `temporal workflow show --workflow-id ID --output json` prints. Without it, the program makes a run
of the project that `mandate init` makes, on a Temporal server of its own; its person approves at once, and the events
after that are moved on by `--waits` (3 days), as if that had taken so long. The spans are then made from the history,
by the code that makes them in a worker.
"""

import argparse
import asyncio
import html
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from temporalio.client import WorkflowHandle, WorkflowHistory, WorkflowQueryFailedError
from temporalio.service import RPCError

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.converter import data_converter
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.sandbox import workflow_runner
from mandate.workers.telemetry.replays import replay_facts
from mandate.workers.telemetry.spans import SpanBuilder
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.request import Decision, OpenRequests, Request
from mandate.workflows.plan import PlanWorkflow

ROW, INDENT, WIDTH, TEXT = 22, 18, 960, 330
SHOWN = (
    "mandate.verdict",
    "mandate.verdict.rule",
    "mandate.tool.outcome",
    "mandate.request.outcome",
    "mandate.cost_usd",
)
COLOURS = {"chat": "#7c5cff", "execute_tool": "#1f9d6b", "check": "#1f9d6b", "judge": "#d08700"}


@dataclass(frozen=True)
class Row:
    """One span in the picture."""

    span: ReadableSpan
    depth: int


async def make_history(waits: timedelta) -> str:
    """Run the example to its end, and return its history as JSON, with a wait of that length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = [sys.executable, "-P", "-m", "mandate.workers.main"]
        environment = {**os.environ, "MANDATE_USER": "ann@example.com"}
        await (await start(*program, "init", str(folder / "shop"), cwd=folder, **environment)).wait()
        people = {"people": [{"name": "ann@example.com", "groups": ["finance"]}, {"name": "bob@example.com"}]}
        (folder / "shop" / "people.yaml").write_text(json.dumps(people))
        # Nothing expires within the wait.
        money = folder / "shop" / "policies" / "money.yaml"
        money.write_text(money.read_text(encoding="utf-8").replace("expires: 24h", "expires: 30d"), encoding="utf-8")
        async with run_private_server() as server:
            environment |= {"TEMPORAL_ADDRESS": server.address}
            worker = await start(*program, "worker", cwd=folder / "shop", **environment)
            try:
                client = AgentClient(await connect(address=server.address))
                run = await client.start("refunds", "Order 81 arrived broken.", requester="bob@example.com")
                asked = await find_request(run)
                decision = Decision(request=asked.id, digest=asked.digest, choice="approve", by="ann@example.com")
                await client.decide(run.id, decision)
                await run.result()
                history = await run.fetch_history()
            finally:
                worker.terminate()
                await worker.wait()
    return move(history.to_json(), waits)


async def start(*words: str, cwd: Path, **environment: str) -> asyncio.subprocess.Process:
    """Start a program that says nothing here."""
    nothing = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*words, cwd=cwd, env=environment, stdout=nothing, stderr=nothing)


async def find_request(run: WorkflowHandle[Any, Any]) -> Request:
    """Wait until the run asks something, and return it."""
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.2)
            with suppress(WorkflowQueryFailedError, RPCError):
                found = await run.query("open_requests", result_type=OpenRequests)
                for request in found.requests:
                    return request


def move(history: str, waits: timedelta) -> str:
    """Return a history whose events after the first message of a person are later by `waits`."""
    whole: Any = json.loads(history)
    message = next(
        place
        for place, event in enumerate(whole["events"])
        if event["eventType"].startswith(("EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE", "EVENT_TYPE_WORKFLOW_EXECUTION_SIGN"))
    )
    # The workflow task that takes it in began just before.
    first = next(
        place
        for place in range(message, -1, -1)
        if whole["events"][place]["eventType"] == "EVENT_TYPE_WORKFLOW_TASK_SCHEDULED"
    )
    for event in whole["events"][first:]:
        at = datetime.fromisoformat(event["eventTime"][:26].rstrip("Z")).replace(tzinfo=UTC)
        event["eventTime"] = (at + waits).isoformat().replace("+00:00", "Z")
    return json.dumps(whole)


async def read_spans(history: str) -> list[ReadableSpan]:
    """Return the spans of a run."""
    facts = await replay_facts(
        WorkflowHistory.from_json("run", history),
        workflows=[AgentWorkflow, PlanWorkflow],
        runner=workflow_runner(sandboxed=False),
        converter=data_converter(),
    )
    builder = SpanBuilder()
    return [span for fact in facts if (span := builder.build(fact)) is not None]


def arrange(spans: Sequence[ReadableSpan]) -> list[Row]:
    """Return the spans as backends show them: each below its parent, in the order of their beginnings."""
    ids = {span.context.span_id for span in spans if span.context is not None}
    rows: list[Row] = []

    def add(parent: int | None, depth: int) -> None:
        below = [
            span
            for span in spans
            if (span.parent.span_id if span.parent and span.parent.span_id in ids else None) == parent
        ]
        for span in sorted(below, key=lambda one: (one.start_time or 0, one.end_time or 0)):
            rows.append(Row(span, depth))
            add(span.context.span_id if span.context is not None else 0, depth + 1)

    add(None, 0)
    return rows


def draw(rows: Sequence[Row]) -> str:
    """Return the picture as SVG; a gap without spans is a narrow band that says how long it was."""
    marks = sorted({time for row in rows for time in (row.span.start_time or 0, row.span.end_time or 0)})
    gaps = [(first, second) for first, second in itertools.pairwise(marks) if second - first > 60e9]
    worked = max(marks[-1] - marks[0] - sum(second - first for first, second in gaps), 1)
    band = 90
    scale = (WIDTH - TEXT - 40 - band * len(gaps)) / worked

    def place(at: int) -> float:
        before = [(first, second) for first, second in gaps if second <= at]
        left = at - marks[0] - sum(second - first for first, second in before)
        return TEXT + left * scale + band * len(before)

    height = ROW * (len(rows) + 2)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for first, second in gaps:
        x = place(first)
        parts += [
            f'<rect x="{x:.1f}" y="{ROW}" width="{band}" height="{height - 2 * ROW}" fill="#f1f1f4"/>',
            (
                f'<text x="{x + band / 2:.1f}" y="{ROW - 6}" text-anchor="middle" fill="#555">'
                f"waits {_write(second - first)}</text>"
            ),
        ]
    for number, row in enumerate(rows):
        parts += _draw_row(row, (number + 1) * ROW, place)
    began = datetime.fromtimestamp(marks[0] / 1e9, UTC)
    parts.append(
        f'<text x="8" y="{height - 8}" fill="#777">{len(rows)} spans of one trace; the longest took '
        f"{_write(max((row.span.end_time or 0) - (row.span.start_time or 0) for row in rows))}; "
        f"{_write(marks[-1] - marks[0])} in all, from {began:%Y-%m-%d %H:%M} UTC</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _draw_row(row: Row, y: int, place: Any) -> list[str]:
    span, began, ended = row.span, row.span.start_time or 0, row.span.end_time or 0
    attributes = span.attributes or {}
    told = [_say(name, attributes[name]) for name in SHOWN if attributes.get(name) not in (None, "", 0.0)]
    x, width = place(began), place(ended) - place(began)
    colour = COLOURS.get(span.name.partition(" ")[0], "#3b6ea8")
    shape = (
        f'<rect x="{x:.1f}" y="{y + 4}" width="{max(width, 2):.1f}" height="{ROW - 9}" rx="2" fill="{colour}"/>'
        if ended > began
        else f'<circle cx="{x:.1f}" cy="{y + ROW / 2 - 1:.1f}" r="4" fill="{colour}"/>'
    )
    return [
        f'<text x="{8 + row.depth * INDENT}" y="{y + 15}" fill="#111">{html.escape(span.name)}</text>',
        (
            f'<text x="{TEXT - 12}" y="{y + 15}" text-anchor="end" fill="#777" font-size="10">'
            f"{html.escape(', '.join(told))}</text>"
        ),
        shape,
    ]


def _say(name: str, value: Any) -> str:
    return f"${value:.4f}" if name.endswith("usd") else str(value)


def _write(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("history", type=Path, nargs="?")
    parser.add_argument("--waits", type=float, default=3.0, metavar="DAYS", help="of the example; 3 days if left out")
    options = parser.parse_args()
    if options.history is not None:
        history = options.history.read_text(encoding="utf-8")
    else:
        history = await make_history(timedelta(days=options.waits))
    rows = arrange(await read_spans(history))
    options.out.write_text(draw(rows), encoding="utf-8")
    for row in rows:
        print("  " * row.depth + row.span.name)


if __name__ == "__main__":
    asyncio.run(main())
