"""Calls of Python tools: async ones on the event loop, sync ones in threads."""

import asyncio
import inspect
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import structlog
from pydantic import JsonValue
from pydantic_core import from_json
from temporalio import activity

from mandate.activities import heartbeat
from mandate.activities.retry_after import read_wait
from mandate.activities.threads import run_in_thread
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.contained_tasks import contain_exits, find_task, is_cancelled
from mandate.activities.toolbox.context import NotDone, ToolContext
from mandate.activities.toolbox.coroutines import run_coroutine
from mandate.activities.toolbox.decorator import load_function, read_tool
from mandate.activities.toolbox.raised_errors import describe_error, list_errors, read_message
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.toolbox.returned_values import collect, collect_async, tell, tell_json
from mandate.activities.toolbox.signature import Function, InvalidTool, Signature
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import PythonBinding, Tool, ToolDefinition
from mandate.workflows.rules.surrogates import repair_text

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
            strike = partial(strike_sensitive, tool=definition.tool, arguments=arguments)
            bound = takes.bind(arguments, make_context(context, cancellation, strike=strike))
        except BaseException as error:  # noqa: BLE001 - validators of the tool's own types run any code
            reason = f"arguments of {definition.tool.name!r} do not fit: {read_message(error)}"
            raise ToolError(
                Outcome.NOT_SENT, strike_sensitive(reason, definition.tool, arguments), lasting=True
            ) from None
        if not inspect.iscoroutinefunction(function) and not self._free.acquire(blocking=False):
            raise ToolError(Outcome.NOT_SENT, "all threads of this worker are busy with tools that have not returned")
        task = asyncio.current_task()
        try:
            with contain_exits():
                return ToolText(await self._perform(function, bound, takes, cancellation))
        except asyncio.CancelledError as error:
            if is_cancelled():
                cancellation.set()
                raise
            _raise_failure(error, definition.tool, arguments)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and find_task() is not task:
                # Nobody waits any more: the coroutine is thrown away.
                raise
            _raise_failure(error, definition.tool, arguments)

    async def _perform(
        self, function: Function, bound: dict[str, object], takes: Signature, cancellation: threading.Event
    ) -> str:
        """Call the function and return its result as text; raise whatever it raises."""

        def perform() -> object:
            returned = function(**bound)
            # Here: an iterator runs code of the tool, which may block, or may belong to its thread.
            return returned if _is_pending(returned) else _Told(tell(collect(returned), returns_nothing=nothing))

        async def finish(pending: object) -> str:
            returned = pending
            while inspect.isawaitable(returned):
                returned = await returned
            returned = await collect_async(returned) if isinstance(returned, AsyncIterator) else collect(returned)
            return tell(returned, returns_nothing=nothing)

        nothing = takes.returns_nothing
        if inspect.iscoroutinefunction(function):
            return await run_coroutine(lambda: finish(function(**bound)))
        returned = await run_in_thread(perform, cancellation, ended=self._free.release)
        return returned.text if isinstance(returned, _Told) else await run_coroutine(partial(finish, returned))

    async def close(self) -> None:
        """Close nothing: threads that still run are not waited for, also not when the process ends."""

    def _load(self, definition: ToolDefinition) -> tuple[Function, Signature]:
        assert isinstance(definition.binding, PythonBinding)
        path = definition.binding.function
        if path not in self._loaded:
            try:
                function = load_function(path)
                self._loaded[path] = function, read_tool(function)
            except InvalidTool as error:
                raise ToolError(Outcome.NOT_SENT, f"this worker cannot load the tool: {error}", lasting=True) from None
        return self._loaded[path]


DEFECTS = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, NameError, ImportError,
    NotImplementedError, RecursionError, SyntaxError,
)  # fmt: skip
"""Exceptions of code that is wrong or was given what is wrong: waiting mends none of them."""


def make_context(
    call: CallContext, cancellation: threading.Event, *, strike: Callable[[str], str] = str
) -> ToolContext:
    """Return the context of the call that the running task serves; `strike` takes out what must not be told."""
    return ToolContext(
        workflow_id=call.workflow_id,
        run_id=call.run_id,
        step=call.step,
        idempotency_key=call.idempotency_key,
        attempt=call.attempt,
        _send_heartbeat=_heartbeat_from_anywhere(strike),
        _cancellation=cancellation,
        _task=asyncio.current_task(),
    )


def _heartbeat_from_anywhere(strike: Callable[[str], str]) -> Callable[..., None]:
    """Return the running activity's heartbeat for any thread; outside an activity it does nothing.

    Details are sent as JSON that can be written: for one that cannot, the SDK would cancel the call.
    """
    loop, home, within = asyncio.get_running_loop(), threading.get_ident(), copy_context()
    if not activity.in_activity():
        return lambda *_details: None

    def send(*values: object) -> None:
        details = [_tell_detail(value, strike) for value in values]
        if threading.get_ident() == home:
            within.run(heartbeat.leave, *details)
            return
        # A thread may outlive its worker: then nobody is left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(partial(within.run, heartbeat.leave, *details))

    return send


def _tell_detail(value: object, strike: Callable[[str], str]) -> JsonValue:
    written = strike(tell_json(value))
    try:
        detail: JsonValue = from_json(written)
    except ValueError:
        # A number was struck out.
        return written
    return detail


@dataclass(frozen=True, slots=True)
class _Told:
    """A result that is text already."""

    text: str


def _is_pending(returned: object) -> bool:
    """Return whether the event loop has to bring the result."""
    return inspect.isawaitable(returned) or isinstance(returned, AsyncIterator)


def _raise_failure(error: BaseException, tool: Tool, arguments: JsonObject) -> NoReturn:
    """Raise the failure of the row "Python" of the table of outcomes; a group stands for all errors in it."""
    errors = list_errors(error)
    refusals = [each for each in errors if isinstance(each, NotDone)]
    if len(refusals) == len(errors):
        words = dict.fromkeys(filter(None, map(read_message, refusals)))
        reason = strike_sensitive("; ".join(words), tool, arguments) or "not done"
        raise ToolError(Outcome.NOT_DONE, reason, retry_after=_find_wait(refusals)) from None
    # As text: what renders an exception for people may print local variables, which hold arguments.
    trace = strike_sensitive("".join(traceback.format_exception(error)), tool, arguments)
    kind = strike_sensitive(type(errors[0]).__name__, tool, arguments)
    log.warning("tool_raised", tool=tool.name, error=kind, traceback=repair_text(trace))
    is_lasting = any(isinstance(each, DEFECTS) for each in errors)
    reason = strike_sensitive(describe_error(error), tool, arguments)
    raise ToolError(Outcome.UNKNOWN, reason, lasting=is_lasting) from None


def _find_wait(refusals: Sequence[NotDone]) -> float | None:
    """Return the seconds after which another attempt is worth it; `None` if one of the refusals is for good."""
    waits = [read_wait(getattr(refusal, "retry_after", None)) for refusal in refusals]
    known = [wait for wait in waits if wait is not None]
    return max(known) if len(known) == len(waits) else None
