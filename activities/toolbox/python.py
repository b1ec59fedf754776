"""Calls of Python tools: async ones on the event loop, sync ones in threads."""

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import NoReturn

import structlog
from pydantic_core import to_json
from temporalio import activity

from mandate.activities import heartbeat
from mandate.activities.failures import ToolError
from mandate.activities.threads import run_in_thread
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.context import NotDone, ToolContext
from mandate.activities.toolbox.decorator import load_function
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.toolbox.signature import Function, InvalidTool, Signature, read_signature
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import PythonBinding, Tool, ToolDefinition

log = structlog.get_logger(__name__)


class PythonToolbox:
    """The tools of source `python`; functions are imported once."""

    def __init__(self, threads: int = 100) -> None:
        """Take `threads`, which bounds the sync tools that run at once; a call beyond them is not sent."""
        self._free = threading.Semaphore(threads)
        self._loaded: dict[str, tuple[Function, Signature]] = {}

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """Make one attempt; a time limit is the caller's.

        Raises:
            ToolError: not sent when the function cannot be loaded or refuses the arguments, not done on `NotDone`,
                unknown on any other exception.
            asyncio.CancelledError: the caller was cancelled; a sync tool's thread goes on until it looks at
                `ToolContext.cancelled`.
        """
        function, takes = self._load(definition)
        cancellation = threading.Event()
        try:
            bound = takes.bind(arguments, make_context(context, cancellation))
        except Exception as error:  # noqa: BLE001 - validators of the tool's own types run any code
            reason = f"arguments of {definition.tool.name!r} do not fit: {_message(error)}"
            raise ToolError(
                Outcome.NOT_SENT, strike_sensitive(reason, definition.tool, arguments), lasting=True
            ) from None
        if not inspect.iscoroutinefunction(function) and not self._free.acquire(blocking=False):
            raise ToolError(Outcome.NOT_SENT, "all threads of this worker are busy with tools that have not returned")
        try:
            if inspect.iscoroutinefunction(function):
                returned = await function(**bound)
            else:
                returned = await run_in_thread(partial(function, **bound), cancellation, ended=self._free.release)
                returned = await returned if inspect.isawaitable(returned) else returned
        except asyncio.CancelledError as error:
            if is_cancelled():
                cancellation.set()
                raise
            _raise_failure(error, definition.tool, arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool may raise anything; the model is told
            _raise_failure(error, definition.tool, arguments)
        return ToolText(_text(returned, returns_nothing=takes.returns_nothing))

    async def close(self) -> None:
        """Close nothing: threads that still run are not waited for, also not when the process ends."""

    def _load(self, definition: ToolDefinition) -> tuple[Function, Signature]:
        assert isinstance(definition.binding, PythonBinding)
        path = definition.binding.function
        if path not in self._loaded:
            try:
                function = load_function(path)
                self._loaded[path] = function, read_signature(function)
            except InvalidTool as error:
                raise ToolError(Outcome.NOT_SENT, f"this worker cannot load the tool: {error}", lasting=True) from None
        return self._loaded[path]


DEFECTS = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, NameError, ImportError,
    NotImplementedError, SyntaxError,
)  # fmt: skip
"""Exceptions of code that is wrong or was given what is wrong: waiting mends none of them."""


def make_context(call: CallContext, cancellation: threading.Event) -> ToolContext:
    """Return the context of the call that the running task serves."""
    return ToolContext(
        workflow_id=call.workflow_id,
        run_id=call.run_id,
        step=call.step,
        idempotency_key=call.idempotency_key,
        attempt=call.attempt,
        _send_heartbeat=_heartbeat_from_anywhere(),
        _cancellation=cancellation,
        _task=asyncio.current_task(),
    )


def _heartbeat_from_anywhere() -> Callable[..., None]:
    """Return the running activity's heartbeat for any thread; outside an activity it does nothing."""
    loop, home, within = asyncio.get_running_loop(), threading.get_ident(), copy_context()
    if not activity.in_activity():
        return lambda *_details: None

    def send(*details: object) -> None:
        if threading.get_ident() == home:
            within.run(heartbeat.leave, *details)
            return
        # A thread may outlive its worker: then nobody is left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(partial(within.run, heartbeat.leave, *details))

    return send


def is_cancelled() -> bool:
    """Return whether the running task was cancelled, and not only something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _raise_failure(error: BaseException, tool: Tool, arguments: JsonObject) -> NoReturn:
    """Raise the failure of the row "Python" of the table of outcomes."""
    message = strike_sensitive(_message(error), tool, arguments)
    if isinstance(error, NotDone):
        raise ToolError(Outcome.NOT_DONE, message or "not done", retry_after=error.retry_after) from None
    kind = type(error).__name__
    # As text: what renders an exception for people may print local variables, which hold arguments.
    trace = strike_sensitive("".join(traceback.format_exception(error)), tool, arguments)
    log.warning("tool_raised", tool=tool.name, error=kind, traceback=trace)
    reason = f"{kind}: {message}" if message else kind
    raise ToolError(Outcome.UNKNOWN, reason, lasting=isinstance(error, DEFECTS)) from None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - __str__ is the tool's code
        return ""


def _text(returned: object, *, returns_nothing: bool) -> str:
    """Return the text for the model; never fail, for the tool has acted."""
    if returned is None:
        return "done" if returns_nothing else "null"
    if isinstance(returned, bytes | bytearray | memoryview):
        return f"done; the result is {len(bytes(returned))} bytes of binary content, which is not shown"
    try:
        text = (
            returned
            if isinstance(returned, str)
            else to_json(returned, inf_nan_mode="strings", bytes_mode="base64").decode()
        )
        text.encode()
    except Exception:  # noqa: BLE001 - values bring their own serialisers
        return f"done; the result, a {type(returned).__name__}, has no JSON form and is not shown"
    return text
