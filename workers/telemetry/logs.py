"""Logs of a process: JSON for machines, colours for a terminal."""

import io
import json
import logging
import sys
import warnings
from typing import Any, TextIO

import structlog
from structlog.typing import Processor
from temporalio import activity, workflow
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from mandate.workflows.rules.plain_text import make_plain_lines

LIBRARIES = ("httpx2", "httpcore2", "openai", "anthropic", "mcp", "asyncio")
"""Their messages below WARNING are left out: some of them quote requests."""


def configure_logging(*, level: str = "INFO", as_json: bool | None = None) -> None:
    """Send all logs of this process to stderr; JSON unless stderr is a terminal.

    Tracebacks are written without local variables, which hold prompts and keys.
    """
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _flatten_temporal,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(as_json)],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    warnings.simplefilter("default")
    logging.captureWarnings(capture=True)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    # What cannot be written would be told with the exception that it is about, and so with what a tool was given.
    logging.raiseExceptions = False
    _collect_only_what_is_shown()
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False


def _collect_only_what_is_shown() -> None:
    """Leave out of each record what no line of ours has, as the standard library's documentation advises."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def _rendering(as_json: bool) -> list[Processor]:  # noqa: FBT001 - private, one caller
    if not as_json:
        return [_plain, structlog.dev.ConsoleRenderer(exception_formatter=_plain_traceback)]
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        _plain,
        structlog.processors.JSONRenderer(serializer=json.dumps),
    ]


def _plain(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make texts plain: nothing that a model, a tool or a server says steers the terminal of a reader."""
    return {
        make_plain_lines(name): value if name == "exc_info" else _plain_value(value) for name, value in event.items()
    }


def _plain_value(value: object) -> object:
    match value:
        case str():
            return make_plain_lines(value)
        case dict():
            return {make_plain_lines(str(name)): _plain_value(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain_value(item) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return make_plain_lines(str(value))


def _plain_traceback(output: TextIO, failure: structlog.typing.ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, failure)
    output.write(make_plain_lines(written.getvalue()))


def _flatten_temporal(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put the SDK's own context into the event as `workflow_id`, `run_id` and `activity`."""
    context = event.pop("temporal_workflow", None) or event.pop("temporal_activity", None)
    if isinstance(context, dict):
        for name in ("workflow_id", "activity_type", "attempt"):
            if name in context:
                event.setdefault(name, context[name])
        run_id = context.get("run_id") or context.get("workflow_run_id")
        if run_id is not None:
            event.setdefault("run_id", run_id)
    return event


class LogContext(Interceptor):
    """Context of the log: workflow id, run id, activity and attempt for the time of an activity."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        with structlog.contextvars.bound_contextvars(
            workflow_id=info.workflow_id, run_id=info.workflow_run_id, activity=info.activity_type, attempt=info.attempt
        ):
            return await super().execute_activity(input)
