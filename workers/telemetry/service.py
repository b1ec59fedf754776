"""Telemetry of one worker: what takes its facts, and what looks after them beside it."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Interceptor, WorkflowRunner

from mandate.activities.providers.breaker import BreakerState
from mandate.activities.stores.base import BlobStore
from mandate.workers.telemetry.cursors import Cursors
from mandate.workers.telemetry.headers import NoteInterceptor, TraceInterceptor
from mandate.workers.telemetry.metrics import Metrics
from mandate.workers.telemetry.pipeline import Export, Pipeline
from mandate.workers.telemetry.settings import INSTALL, TelemetryError, TelemetrySettings
from mandate.workflows.contracts.budget_file import BudgetFile
from mandate.workflows.contracts.telemetry import Noted

SPANS_AT_ONCE = 512


class Telemetry:
    """Telemetry of one worker."""

    def __init__(self, settings: TelemetrySettings, client: Client, task_queue: str) -> None:
        """Take what is wanted.

        Raises:
            TelemetryError: what it needs is not installed, or its settings cannot be used.
        """
        self._settings = settings
        self._client = client
        self._queue = task_queue
        self.metrics = Metrics(Runtime.default().metric_meter) if settings.metrics is not None else None
        self._export: Export | None = None
        self._close_exporter: Callable[[], None] | None = None
        if settings.traces:
            self._export, self._close_exporter = _open_export()
        self.pipeline: Pipeline | None = None
        self._cursors: Cursors | None = None

    def open(self, store: BlobStore, identity: str) -> Sequence[Interceptor]:
        """Return the interceptors of the worker with this identity and store."""
        # People may give several workers one name.
        self._cursors = Cursors(store, f"{identity}/{uuid.uuid4().hex[:8]}")
        self.pipeline = Pipeline(self._cursors, self._find_end, export=self._export, metrics=self.metrics)
        traces = [TraceInterceptor()] if self._settings.traces else []
        return [NoteInterceptor(self.pipeline.note), *traces]

    def run(
        self,
        stack: AsyncExitStack,
        *,
        store: BlobStore,
        agents: Mapping[str, tuple[str, Sequence[str]]],
        workflows: Sequence[type],
        runner: WorkflowRunner,
        marks: Interceptor,
        breakers: Callable[[], Iterable[BreakerState]],
        budgets: Callable[[], Awaitable[BudgetFile | None]],
        has_status: bool,
    ) -> None:
        """Begin what goes on beside the worker; `stack` ends it, with what is left exported.

        `agents` are the version and the effects of each, by name.
        """
        assert self.pipeline is not None
        assert self._cursors is not None
        if self.metrics is not None:
            self.metrics.begin(agents)
        if self._close_exporter is not None:
            stack.callback(self._close_exporter)
        stack.push_async_callback(self.pipeline.close)
        _keep_running(stack, self.pipeline.run())
        if self._settings.traces:
            from mandate.workers.telemetry.missed_runs import MissedRuns  # noqa: PLC0415 - needs what spans need

            missed_runs = MissedRuns(
                self._client,
                self._queue,
                self._cursors,
                self.pipeline,
                workflows=workflows,
                runner=runner,
                interceptors=[marks],
            )
            _keep_running(stack, missed_runs.run())
        if self.metrics is not None:
            from mandate.workers.telemetry.gauges import Gauges  # noqa: PLC0415 - only with metrics

            gauges = Gauges(
                self.metrics,
                self._client,
                self._queue,
                self._cursors,
                store,
                breakers=breakers,
                budgets=budgets,
                has_status=has_status,
            )
            _keep_running(stack, gauges.run())

    async def _find_end(self, workflow_id: str, run_id: str) -> str:
        try:
            described = await self._client.get_workflow_handle(workflow_id, run_id=run_id).describe()
        except RPCError as error:
            return "gone" if error.status is RPCStatusCode.NOT_FOUND else ""
        status = described.status
        return "" if status in {None, WorkflowExecutionStatus.RUNNING} else str(status.name if status else "")


def _keep_running(stack: AsyncExitStack, work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    stack.callback(task.cancel)


def _open_export() -> tuple[Export, Callable[[], None]]:
    try:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - only with spans

        from mandate.workers.telemetry.exporters import open_exporter  # noqa: PLC0415
        from mandate.workers.telemetry.spans import SpanBuilder  # noqa: PLC0415
    except ImportError:
        raise TelemetryError(
            f"variables of OpenTelemetry ask for spans, and its SDK is not installed; {INSTALL}, "
            "or set OTEL_SDK_DISABLED=true"
        ) from None
    exporter, builder = open_exporter(), SpanBuilder()

    async def export(notes: Sequence[Noted]) -> bool:
        spans = [span for noted in notes if (span := builder.build(noted)) is not None]
        for first in range(0, len(spans), SPANS_AT_ONCE):
            part = spans[first : first + SPANS_AT_ONCE]
            if await asyncio.to_thread(exporter.export, part) is not SpanExportResult.SUCCESS:
                return False
        return True

    return export, exporter.shutdown
