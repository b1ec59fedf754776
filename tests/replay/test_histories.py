"""Histories of earlier versions still replay: running workflows survive a change of the code."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from workers.converter import data_converter
from workers.worker import workflow_runner
from workflows.agent import AgentWorkflow

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 8


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_history_replays(path: Path) -> None:
    replayer = Replayer(
        workflows=[AgentWorkflow], data_converter=data_converter(), workflow_runner=workflow_runner(strict=True)
    )

    await replayer.replay_workflow(WorkflowHistory.from_json(path.stem, path.read_text()))
