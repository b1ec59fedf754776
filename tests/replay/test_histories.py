"""Histories of earlier versions still replay: running workflows survive a change of the code."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from mandate.activities.keyring import Keyring
from mandate.workers.converter import data_converter
from mandate.workers.marks import MarkInterceptor
from mandate.workers.sandbox import workflow_runner
from mandate.workers.telemetry.headers import NoteInterceptor, TraceInterceptor
from mandate.workers.telemetry.spans import SpanBuilder
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.telemetry import Noted
from mandate.workflows.plan import PlanWorkflow
from mandate.workflows.rules.trace_ids import ROOT
from tests.support.memory_store import MemoryStore

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def load(path: Path) -> WorkflowHistory:
    """A stored history, under the workflow id of its run: the ids of children are made of it."""
    text = path.read_text()
    begun = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(begun.get("workflowId", path.stem), text)


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 8


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_history_replays(path: Path) -> None:
    replayer = Replayer(
        workflows=[AgentWorkflow, PlanWorkflow],
        data_converter=data_converter(),
        workflow_runner=workflow_runner(strict=True),
    )

    await replayer.replay_workflow(load(path))


UNMARKED = [path for path in HISTORIES if '"mark"' not in path.read_text()]


@pytest.mark.parametrize("path", UNMARKED, ids=lambda path: path.stem)
async def test_history_from_before_marks_replays_in_workers_that_have_keys(path: Path) -> None:
    """By their time: the store that the workers of then had takes what had no mark until they were gone."""
    store = MemoryStore()
    store.unmarked_until = datetime.now(UTC)
    keyring = Keyring(store)
    await keyring.refresh()
    history = load(path)

    await replayer_with(keyring).replay_workflow(history)


async def test_history_without_marks_is_not_taken_where_there_was_never_a_worker_without() -> None:
    keyring = Keyring(MemoryStore())
    await keyring.refresh()
    (path,) = (path for path in UNMARKED if path.stem == "0.1-completed")

    with pytest.raises(RuntimeError, match="the run is of store"):
        await replayer_with(keyring).replay_workflow(load(path))


def replayer_with(keyring: Keyring) -> Replayer:
    return Replayer(
        workflows=[AgentWorkflow, PlanWorkflow],
        data_converter=data_converter(),
        workflow_runner=workflow_runner(strict=True),
        interceptors=[MarkInterceptor(keyring, "memory-1")],
    )


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_history_replays_with_telemetry_and_tells_each_fact_once(path: Path) -> None:
    """Whatever happened in a run: no key stands for two facts, no span is without its parent, none ends before it."""
    notes: list[Noted] = []
    replayer = Replayer(
        workflows=[AgentWorkflow, PlanWorkflow],
        data_converter=data_converter(),
        workflow_runner=workflow_runner(strict=True),
        interceptors=[NoteInterceptor(notes.append), TraceInterceptor()],
    )

    await replayer.replay_workflow(load(path))

    keys = [noted.key for noted in notes]
    assert sorted(keys) == sorted(set(keys))
    assert keys.count(ROOT) == keys.count("end") == 1
    assert {noted.parent for noted in notes} - {"", *keys} == set()
    assert all(noted.began is None or noted.began <= noted.at for noted in notes)
    assert all(noted.is_replayed for noted in notes[:-1])
    builder = SpanBuilder()
    spans = [builder.build(noted) for noted in notes]
    assert all(span is not None and span.name.strip() == span.name for span in spans)
