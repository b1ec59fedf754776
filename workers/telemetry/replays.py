"""Facts of a run, made again from its history."""

from collections.abc import Sequence

from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.worker import Interceptor, Replayer, WorkflowRunner

from mandate.workers.telemetry.headers import NoteInterceptor, TraceInterceptor
from mandate.workflows.contracts.telemetry import Noted


async def replay_facts(
    history: WorkflowHistory,
    *,
    workflows: Sequence[type],
    runner: WorkflowRunner,
    converter: DataConverter,
    namespace: str = "default",
    interceptors: Sequence[Interceptor] = (),
) -> list[Noted]:
    """Return all facts that workflow code notes in a run.

    Raises:
        Exception: whatever the replay fails with, where the code does not fit the history.
    """
    notes: dict[str, Noted] = {}
    replayer = Replayer(
        workflows=workflows,
        namespace=namespace,
        data_converter=converter,
        interceptors=[
            *interceptors,
            NoteInterceptor(lambda noted: notes.update({noted.key: noted})),
            TraceInterceptor(),
        ],
        workflow_runner=runner,
    )
    await replayer.replay_workflow(history)
    return list(notes.values())
