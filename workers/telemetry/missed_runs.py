"""Runs that ended before their facts were exported: their workers were killed, and nobody replays what has ended.

One worker at a time looks through the runs that have ended since the last look, and replays those whose end no
cursor has passed. A replay notes all facts again, and the pipeline exports those that are missing. A run that was
terminated or timed out has no end that its workflow code could note, so it gets one here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Interceptor, WorkflowRunner

from mandate.activities.stores.base import StoreUnavailable
from mandate.workers.telemetry.cursors import Cursors
from mandate.workers.telemetry.pipeline import Pipeline
from mandate.workers.telemetry.replays import replay_facts
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW
from mandate.workflows.contracts.telemetry import Noted, RunBegun, RunEnded

log = structlog.stdlib.get_logger(__name__)

EVERY_SECONDS = 10.0
SETTLED = timedelta(seconds=5)
"""Time after its end for which the worker of a run may export it itself."""
OVERLAP = timedelta(minutes=2)
"""How far each look goes back behind the one before: lists of runs lag behind."""
MOST_AT_ONCE = 200
DUTY = "missed_runs"

UNTOLD = {WorkflowExecutionStatus.TERMINATED: "terminated", WorkflowExecutionStatus.TIMED_OUT: "timed_out"}


class MissedRuns:
    """Search for runs of one task queue whose end is not exported."""

    def __init__(
        self,
        client: Client,
        task_queue: str,
        cursors: Cursors,
        pipeline: Pipeline,
        *,
        workflows: Sequence[type],
        runner: WorkflowRunner,
        interceptors: Sequence[Interceptor],
    ) -> None:
        """Take what a replay needs; `interceptors` are those that let workflow code check marks."""
        self._client = client
        self._duty = f"{DUTY}/{client.namespace}/{task_queue}"
        self._queue = task_queue
        self._cursors = cursors
        self._pipeline = pipeline
        self._workflows = workflows
        self._runner = runner
        self._interceptors = interceptors
        self._over: set[str] = set()

    async def run(self, every: float = EVERY_SECONDS) -> None:
        """Look for them, for ever."""
        while True:
            await asyncio.sleep(every)
            try:
                await self.look()
            except (StoreUnavailable, RPCError) as error:
                log.warning("telemetry_waits", problem=str(error))

    async def look(self) -> None:
        """Export what is missing of the runs that have ended since the last look."""
        duty = await self._cursors.claim(self._duty)
        if duty is None:
            return
        now = datetime.now(UTC)
        since = datetime.fromisoformat(duty.mark) if duty.mark else now - SETTLED
        found = await self._list_ended(since - OVERLAP)
        # Of more than that, the others are found by the next looks.
        reached = now - SETTLED if len(found) < MOST_AT_ONCE else since
        for run in found:
            if run.run_id in self._over:
                continue
            if run.close_time is None or run.close_time > now - SETTLED:
                continue
            if not await self._export(run):
                reached = min(reached, run.close_time)
        if len(self._over) > 100_000:
            self._over.clear()
        await self._cursors.release(self._duty, replace(duty, mark=max(since, reached).isoformat()))

    async def _list_ended(self, since: datetime) -> list[WorkflowExecution]:
        query = (
            f"WorkflowType IN ('{AGENT_WORKFLOW}', '{PLAN_WORKFLOW}') AND TaskQueue = '{self._queue}' "
            f"AND ExecutionStatus != 'Running' AND CloseTime >= '{since.isoformat()}'"
        )
        found: list[WorkflowExecution] = []
        async for run in self._client.list_workflows(query):
            if run.run_id not in self._over:
                found.append(run)
            if len(found) >= MOST_AT_ONCE:
                break
        return sorted(found, key=lambda run: run.close_time or since)

    async def _export(self, run: WorkflowExecution) -> bool:
        """Export what is missing of a run; return whether it is done."""
        cursor = await self._cursors.read(run.run_id)
        if not cursor.is_over:
            notes = await self._replay(run)
            if notes is None:
                self._over.add(run.run_id)
                return True
            if not await self._pipeline.export(run.run_id, notes, None, is_over=True):
                return False
            log.info("telemetry_made_up", workflow_id=run.id, run_id=run.run_id, facts=len(notes))
        self._over.add(run.run_id)
        return True

    async def _replay(self, run: WorkflowExecution) -> list[Noted] | None:
        """Return all facts of a run; `None` where its history cannot be replayed here."""
        handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
        history = await handle.fetch_history()
        try:
            notes = await replay_facts(
                history,
                workflows=self._workflows,
                runner=self._runner,
                converter=self._client.data_converter,
                namespace=self._client.namespace,
                interceptors=self._interceptors,
            )
        except Exception as error:  # noqa: BLE001 - a replay may fail with anything
            log.warning("telemetry_lost", workflow_id=run.id, run_id=run.run_id, problem=str(error)[:300])
            return None
        if run.status in UNTOLD and run.close_time is not None and notes:
            notes.append(_end(run, notes, UNTOLD[run.status], len(history.events)))
        return notes


def _end(run: WorkflowExecution, notes: Sequence[Noted], outcome: str, event: int) -> Noted:
    begun = next((noted.fact for noted in notes if isinstance(noted.fact, RunBegun)), None)
    assert run.close_time is not None
    return Noted(
        run=notes[-1].run,
        key="end",
        parent="",
        fact=RunEnded(
            agent=begun.agent if begun is not None else "",
            version=begun.version if begun is not None else "",
            outcome=outcome,
        ),
        at=run.close_time,
        began=None,
        event=event,
        is_replayed=True,
    )
