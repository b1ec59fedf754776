"""Calls of Python tools: results as text, the table of outcomes, threads, heartbeats, cancellation."""

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.decorator import NotDone, ToolContext, define_tool, tool
from mandate.activities.toolbox.python import PythonToolbox
from mandate.activities.toolbox.signature import Function
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool_entry import PythonTool

CALL = CallContext(
    workflow_id="refunds-1", run_id="r", step=4, idempotency_key="k", attempt=2, timeout=timedelta(seconds=5)
)
SHELF: ContextVar[str] = ContextVar("SHELF")
MODULE = "tools_under_test"


@dataclass
class Order:
    number: int
    total: float


class Customer(BaseModel):
    name: str
    orders: list[int] = []


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    """An importable module that tests put their functions into."""
    made = ModuleType(MODULE)
    sys.modules[MODULE] = made
    yield made
    del sys.modules[MODULE]


async def call(function: Function, arguments: JsonObject | None = None) -> ToolText:
    setattr(sys.modules[MODULE], function.__name__, function)
    toolbox = PythonToolbox(threads=2)
    made = define_tool(function, PythonTool(python=f"{MODULE}:{function.__name__}"))
    try:
        return await toolbox.call(made, arguments or {}, CALL)
    finally:
        await toolbox.close()


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("plain ü", "plain ü"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (Order(81, 2.5), '{"number":81,"total":2.5}'),
        (Customer(name="Ann", orders=[1]), '{"name":"Ann","orders":[1]}'),
        ([Customer(name="Ann")], '[{"name":"Ann","orders":[]}]'),
        ({"at": timedelta(seconds=90)}, '{"at":"PT1M30S"}'),
        ({"n": float("nan")}, '{"n":"NaN"}'),
        ({3}, "[3]"),
        (10**30, "1" + "0" * 30),
        ({"n": 10**5000}, '{"n":1' + "0" * 5000 + "}"),
        (b'\xef\xbb\xbf{"n": 1}', '{"n": 1}'),
        (b"\xff\x00", "done; the result is 2 bytes of binary content, which is not shown"),
        (object(), "done; the result, a object, has no JSON form and is not shown"),
        ("a \ud800 b", "a \ufffd b"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\x00b", "a\x00b"),
        ({"a": "b \ud83d c", "n": 1}, '{"a":"b \ufffd c","n":1}'),
    ],
)
async def test_result_is_text_or_json(returned: object, text: str) -> None:
    def give():
        return returned

    assert await call(give) == ToolText(text)


async def test_result_of_a_tool_that_returns_nothing_is_done() -> None:
    def give() -> None:
        pass

    assert await call(give) == ToolText("done")


class Quiet(Exception):
    pass


class Panic(BaseException):
    """An error as libraries in Rust raise it."""


class Mute(Exception):
    def __str__(self) -> str:
        raise Panic("of __str__")


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "retry_after"),
    [
        (NotDone("the order is closed"), Outcome.NOT_DONE, "the order is closed", None),
        (NotDone("busy", retry_after=3.0), Outcome.NOT_DONE, "busy", 3.0),
        (ValueError("no such row"), Outcome.UNKNOWN, "ValueError: no such row", None),
        (Quiet(), Outcome.UNKNOWN, "Quiet", None),
        (TimeoutError("slow"), Outcome.UNKNOWN, "TimeoutError: slow", None),
        (SystemExit(1), Outcome.UNKNOWN, "SystemExit: 1", None),
        (KeyboardInterrupt(), Outcome.UNKNOWN, "KeyboardInterrupt", None),
        (GeneratorExit(), Outcome.UNKNOWN, "GeneratorExit", None),
        (StopIteration("x"), Outcome.UNKNOWN, "RuntimeError: {stop}", None),
        (asyncio.CancelledError("own"), Outcome.UNKNOWN, "CancelledError: own", None),
        (Panic("of a library"), Outcome.UNKNOWN, "Panic: of a library", None),
        (Mute(), Outcome.UNKNOWN, "Mute", None),
        (ValueError("half \ud83d"), Outcome.UNKNOWN, "ValueError: half \ufffd", None),
    ],
)
async def test_exception_says_what_is_known(
    error: BaseException, outcome: Outcome, reason: str, retry_after: float | None
) -> None:
    def in_thread():
        raise error

    async def on_loop():
        raise error

    wanted = {
        in_thread: reason.format(stop="StopIteration was raised"),
        on_loop: reason.format(stop="coroutine raised StopIteration"),
    }
    for function, expected in wanted.items():
        with pytest.raises(ToolError) as failed:
            await call(function)
        assert (failed.value.outcome, failed.value.reason) == (outcome, expected)
        assert failed.value.retry_after == retry_after
        assert failed.value.__suppress_context__


async def test_arguments_that_do_not_fit_reach_no_tool() -> None:
    ran = []

    def pay(amount: int) -> None:
        ran.append(amount)

    with pytest.raises(ToolError) as refused:
        await call(pay, {"amount": "much"})

    assert refused.value.outcome is Outcome.NOT_SENT
    assert refused.value.reason.startswith("arguments of 'pay' do not fit: amount: Input should be a valid integer")
    assert ran == []


async def test_function_that_this_worker_lacks_is_not_sent() -> None:
    def gone() -> None:
        pass

    made = define_tool(gone, PythonTool(python=f"{MODULE}:gone"))

    with pytest.raises(ToolError) as refused:
        await PythonToolbox().call(made, {}, CALL)

    assert refused.value.outcome is Outcome.NOT_SENT
    assert "this worker cannot load the tool: module 'tools_under_test' has no function 'gone'" in refused.value.reason


async def test_tool_is_told_its_call() -> None:
    async def tell(context: ToolContext) -> list[str | int]:
        return [context.workflow_id, context.run_id, context.step, context.idempotency_key, context.attempt]

    assert await call(tell) == ToolText('["refunds-1","r",4,"k",2]')


async def test_traceback_is_logged_without_local_variables() -> None:
    def pay(card: str) -> None:
        raise ValueError("declined")

    with capture_logs() as logs, pytest.raises(ToolError):
        await call(pay, {"card": "4111-1111"})

    assert [(entry["event"], entry["log_level"], entry["tool"]) for entry in logs] == [
        ("tool_raised", "warning", "pay")
    ]
    assert 'raise ValueError("declined")' in logs[0]["traceback"]
    assert "4111" not in str(logs)


def grouped(message: str) -> BaseException:
    return BaseExceptionGroup("all", [ExceptionGroup("some", [ValueError(message)]), Panic(message)])


@pytest.mark.parametrize(
    "error", [ValueError, NotDone, Panic, SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, grouped]
)
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_sensitive_argument_in_an_exception_is_struck_out(
    error: Callable[[str], BaseException], kind: str
) -> None:
    @tool(sensitive=["card"])
    def in_thread(card: dict[str, str], order: int) -> None:
        raise error(f"card {card['number']} declined for order {order}")

    @tool(sensitive=["card"])
    async def on_loop(card: dict[str, str], order: int) -> None:
        raise error(f"card {card['number']} declined for order {order}")

    with capture_logs() as logs, pytest.raises(ToolError) as failed:
        await call(on_loop if kind == "async" else in_thread, {"card": {"number": "4111-1111"}, "order": 8100})

    assert failed.value.reason.endswith("card *** declined for order 8100")
    assert "4111-1111" not in failed.value.whole
    assert "4111-1111" not in str(logs)


BANK = ConnectionError("the bank did not answer")
CLOSED = NotDone("the account is closed")
BUSY = NotDone("busy", retry_after=3.0)


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "retry_after"),
    [
        (ExceptionGroup("g", [BANK]), Outcome.UNKNOWN, "ConnectionError: the bank did not answer", None),
        (ExceptionGroup("g", [CLOSED]), Outcome.NOT_DONE, "the account is closed", None),
        (ExceptionGroup("g", [CLOSED, CLOSED]), Outcome.NOT_DONE, "the account is closed", None),
        (ExceptionGroup("g", [ExceptionGroup("h", [CLOSED])]), Outcome.NOT_DONE, "the account is closed", None),
        (ExceptionGroup("g", [BUSY]), Outcome.NOT_DONE, "busy", 3.0),
        (ExceptionGroup("g", [BUSY, NotDone("full", retry_after=5.0)]), Outcome.NOT_DONE, "busy; full", 5.0),
        (ExceptionGroup("g", [BUSY, CLOSED]), Outcome.NOT_DONE, "busy; the account is closed", None),
        (
            ExceptionGroup("g", [CLOSED, ExceptionGroup("h", [BANK])]),
            Outcome.UNKNOWN,
            "NotDone: the account is closed; ConnectionError: the bank did not answer",
            None,
        ),
        (
            BaseExceptionGroup("g", [CLOSED, asyncio.CancelledError()]),
            Outcome.UNKNOWN,
            "NotDone: the account is closed; CancelledError",
            None,
        ),
        (
            ExceptionGroup("g", [ValueError(str(number)) for number in range(5)]),
            Outcome.UNKNOWN,
            "ValueError: 0; ValueError: 1; ValueError: 2; and 2 more",
            None,
        ),
        (BaseExceptionGroup("g", [SystemExit(2)]), Outcome.UNKNOWN, "SystemExit: 2", None),
    ],
)
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_group_of_exceptions_is_what_is_in_it(
    error: BaseException, outcome: Outcome, reason: str, retry_after: float | None, kind: str
) -> None:
    def in_thread():
        raise error

    async def on_loop():
        raise error

    with pytest.raises(ToolError) as failed:
        await call(on_loop if kind == "async" else in_thread)

    assert (failed.value.outcome, failed.value.reason, failed.value.retry_after) == (outcome, reason, retry_after)


async def test_error_without_words_is_told_with_its_cause() -> None:
    def ask():
        raise TimeoutError from BANK

    with pytest.raises(ToolError) as failed:
        await call(ask)

    assert failed.value.reason == "TimeoutError, caused by ConnectionError: the bank did not answer"


async def test_causes_that_lead_back_to_where_they_began_are_told_once() -> None:
    def ask():
        first, second, third = TimeoutError(), ConnectionError(), LookupError()
        first.__cause__, second.__cause__, third.__cause__ = second, third, first
        raise first

    with pytest.raises(ToolError) as failed:
        await call(ask)

    assert failed.value.reason == "TimeoutError, caused by ConnectionError, caused by LookupError"


async def test_endless_recursion_is_not_waited_for() -> None:
    def ask():
        return ask()

    with pytest.raises(ToolError) as failed:
        await call(ask)

    assert failed.value.lasting
    assert failed.value.reason.startswith("RecursionError: maximum recursion depth exceeded")


async def test_sensitive_argument_in_the_name_of_an_exception_is_in_no_log() -> None:
    @tool(sensitive=["card"])
    def pay(card: str) -> None:
        raise type(f"No{card}", (Exception,), {})

    with capture_logs() as logs, pytest.raises(ToolError):
        await call(pay, {"card": "4111222233334444"})

    assert logs[0]["error"] == "No***"
    assert "4111222233334444" not in str(logs)


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (3, 3.0),
        (timedelta(minutes=1), 60.0),
        ("120", 120.0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (float("nan"), None),
        (float("inf"), None),
        (-1, None),
        (1e300, None),
        ([1], None),
    ],
)
async def test_wait_that_no_timer_has_is_none(wait: object, seconds: float | None) -> None:
    def ask():
        raise NotDone("busy", retry_after=wait)  # type: ignore[arg-type]  # authors pass on what a server says

    with pytest.raises(ToolError) as failed:
        await call(ask)

    assert (failed.value.outcome, failed.value.retry_after) == (Outcome.NOT_DONE, seconds)


async def test_refusal_that_forgets_its_parent_is_a_refusal() -> None:
    class Closed(NotDone):
        def __init__(self) -> None:
            pass

    def ask():
        raise Closed

    with pytest.raises(ToolError) as failed:
        await call(ask)

    assert (failed.value.outcome, failed.value.reason) == (Outcome.NOT_DONE, "not done")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Panic("of a library"), ValueError("plain")])
async def test_task_of_a_tool_does_not_end_the_worker(error: BaseException) -> None:
    """Such an error leaves the event loop otherwise, and with it the process."""

    async def leave() -> None:
        raise error

    async def act() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leave())

    async def act_in_thread() -> None:
        await asyncio.gather(asyncio.to_thread(leave_now))

    def leave_now() -> None:
        raise error

    for function in (act, act_in_thread):
        with pytest.raises(ToolError) as failed:
            await call(function)
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        assert (failed.value.outcome, failed.value.reason) == (Outcome.UNKNOWN, told)
    assert await asyncio.create_task(asyncio.sleep(0, "alive")) == "alive"


async def test_sync_tool_runs_in_a_thread_with_the_callers_context_variables() -> None:
    def where() -> list[str | bool]:
        return [SHELF.get(), threading.current_thread() is threading.main_thread()]

    SHELF.set("top")

    assert await call(where) == ToolText('["top",false]')


async def test_function_that_returns_an_awaitable_is_awaited() -> None:
    async def later() -> int:
        return 5

    def now():
        return later()

    async def soon():
        return now()

    assert await call(now) == ToolText("5")
    assert await call(soon) == ToolText("5")


def count(end: int) -> Iterator[int]:
    yield from range(end)


async def count_async(end: int) -> AsyncIterator[int]:
    for number in range(end):
        yield number


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (lambda: count(3), "[0,1,2]"),
        (lambda: count_async(3), "[0,1,2]"),
        (lambda: map(str, (1, 2)), '["1","2"]'),
        (lambda: {"n": count(2)}, '{"n":[0,1]}'),
        (lambda: count(0), "[]"),
    ],
)
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_items_of_a_generator_are_the_result(returned: Callable[[], object], text: str, kind: str) -> None:
    def in_thread():
        return returned()

    async def on_loop():
        return returned()

    assert await call(on_loop if kind == "async" else in_thread) == ToolText(text)


@pytest.mark.parametrize("returned", [itertools.count, lambda: count_async(10**9)])
async def test_generator_without_an_end_is_cut_and_told(returned: Callable[[], object]) -> None:
    def give():
        return returned()

    text = (await call(give)).text

    assert text.endswith(",9998,9999]\n[the first 10000 items; there are more, which were not read]")


async def test_generator_that_fails_is_a_call_that_fails() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise NotDone("the order is closed")

    def give():
        return items()

    with pytest.raises(ToolError) as failed:
        await call(give)

    assert (failed.value.outcome, failed.value.reason) == (Outcome.NOT_DONE, "the order is closed")


async def test_call_that_is_thrown_away_ends_quietly() -> None:
    """When a loop ends, Python throws `GeneratorExit` into what is still waiting there: nobody hears of a failure."""

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    sys.modules[MODULE].wait = wait  # type: ignore[attr-defined]
    coroutine = PythonToolbox().call(define_tool(wait, PythonTool(python=f"{MODULE}:wait")), {}, CALL)
    running = asyncio.create_task(asyncio.sleep(0))
    coroutine.send(None)
    await running

    await asyncio.to_thread(coroutine.close)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_heartbeats_reach_temporal(kind: str) -> None:
    async def on_loop(context: ToolContext) -> None:
        context.heartbeat("page", 3)

    def in_thread(context: ToolContext) -> None:
        context.heartbeat("page", 3)

    beats: list[tuple[object, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)

    await environment.run(call, on_loop if kind == "async" else in_thread)
    await asyncio.sleep(0)

    assert beats == [("page", 3)]


@pytest.mark.parametrize(
    ("detail", "sent"),
    [
        ({"page": 3}, {"page": 3}),
        ("half \ud83d", "half \ufffd"),
        ({"client": object()}, {"client": "(a object, which has no JSON form)"}),
        ("card 4111222233334444", "card ***"),
        ({"card": 4111222233334444}, '{"card":***}'),
    ],
)
async def test_heartbeat_is_what_can_be_sent(detail: object, sent: object) -> None:
    """For a detail that it cannot write, the SDK cancels the call; a sensitive argument would be in the history."""

    @tool(sensitive=["card"])
    async def pay(card: str, context: ToolContext) -> None:
        context.heartbeat(detail)

    beats: list[tuple[object, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)

    await environment.run(call, pay, {"card": "4111222233334444"})

    assert beats == [(sent,)]


async def test_cancelled_sync_tool_sees_it_and_the_caller_does_not_wait() -> None:
    started, seen = threading.Event(), threading.Event()

    def slow(context: ToolContext) -> None:
        started.set()
        if context.wait(60) and context.cancelled:
            seen.set()
        context.raise_if_cancelled()

    running = asyncio.create_task(call(slow))
    await asyncio.to_thread(started.wait, 30)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(seen.wait, 30)


async def test_cancelled_async_tool_can_clean_up() -> None:
    seen: list[bool] = []

    async def slow(context: ToolContext) -> None:
        seen.append(context.cancelled)
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(context.cancelled)

    running = asyncio.create_task(call(slow))
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.sleep(0.01)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == [False, True]


async def test_a_call_that_finds_no_free_thread_is_not_sent() -> None:
    """Tools that were given up keep their threads; a call must not wait for them and then read as unknown."""
    ran: list[int] = []
    release = threading.Event()

    def hold() -> None:
        release.wait(60)

    def act() -> None:
        ran.append(1)

    toolbox = PythonToolbox(threads=1)
    made = {}
    for function in (hold, act):
        setattr(sys.modules[MODULE], function.__name__, function)
        made[function] = define_tool(function, PythonTool(python=f"{MODULE}:{function.__name__}"))
    first = asyncio.create_task(toolbox.call(made[hold], {}, CALL))
    await asyncio.sleep(0.01)
    with pytest.raises(ToolError) as busy:
        await toolbox.call(made[act], {}, CALL)
    release.set()
    await first
    await toolbox.call(made[act], {}, CALL)
    await toolbox.close()

    assert busy.value.outcome is Outcome.NOT_SENT
    assert ran == [1]


def test_context_for_tests_needs_no_temporal_and_no_loop() -> None:
    beats: list[tuple[object, ...]] = []
    context = ToolContext.for_tests(attempt=3, on_heartbeat=lambda *details: beats.append(details))

    context.heartbeat(1)
    context.raise_if_cancelled()

    assert (context.attempt, context.cancelled, context.wait(0), beats) == (3, False, False, [(1,)])
    ToolContext.for_tests().heartbeat()
    with pytest.raises(asyncio.CancelledError):
        ToolContext.for_tests(cancelled=True).raise_if_cancelled()
