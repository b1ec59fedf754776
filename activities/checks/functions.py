"""Python functions as checks: the `@check` decorator, and what such a function may return."""

import asyncio
import inspect
import threading
from collections.abc import Mapping
from functools import partial
from typing import TypeVar, get_args

from mandate.activities.checks.findings import Unable, report, report_failure
from mandate.activities.threads import run_in_thread
from mandate.activities.toolbox.contained_tasks import contain_exits, find_task, is_cancelled
from mandate.activities.toolbox.coroutines import run_coroutine
from mandate.activities.toolbox.decorator import load_function
from mandate.activities.toolbox.raised_errors import describe_error, list_errors, read_message
from mandate.activities.toolbox.returned_values import tell
from mandate.activities.toolbox.signature import Function, InvalidTool, function_name
from mandate.workflows.contracts.verification import FINAL, CheckResult, Finding

F = TypeVar("F", bound=Function)

_MARK = "__mandate_check__"
_OF_CALLS = ("result", "args", "context")
_OF_ANSWERS = ("result", "answer", "context")
_GIVEN = ("result", "args", "answer", "context")
_RETURNS = "a check returns true or false, a pair of that and a reason, or a CheckResult"


def check(function: F) -> F:
    """Make a sync or async function a check; it stays an ordinary function.

    It is given by name what it has parameters for: `result` (what the tool returned or the final answer is: a value
    if it is JSON, else its text), `args` (the arguments of the call), `answer` (the final answer) and `context`
    (a `ToolContext`). It returns true or false, a pair of that and a reason, or a `CheckResult`; an `AssertionError`
    means that the check failed, any other exception that it could not be made.

    Raises:
        InvalidTool: no function, or a parameter that there is nothing for.
    """
    name = function_name(function)
    if isinstance(function, type) or not callable(function):
        raise InvalidTool(f"{name} is not a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTool(f"{name} is a generator; a check returns one finding")
    for parameter in inspect.signature(function).parameters.values():
        by_name = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if not by_name or (parameter.name not in _GIVEN and parameter.default is parameter.empty):
            raise InvalidTool(f"{name}: there is nothing for {str(parameter)!r}; a check may take {', '.join(_GIVEN)}")
    setattr(function, _MARK, True)
    return function


def load_check(path: str, after: str) -> Function:
    """Return the check at `module:function`, its module imported; `after` is a tool's name or `FINAL`.

    Raises:
        InvalidTool: there is no such function, it is not decorated, or it takes what there is not after that.
    """
    function = load_function(path)
    if getattr(function, _MARK, None) is not True:
        raise InvalidTool(f"{path!r} is not decorated with @check")
    there = _OF_ANSWERS if after == FINAL else _OF_CALLS
    for name in _list_parameters(function):
        if name not in there:
            what = "the final answer" if after == FINAL else "a tool"
            raise InvalidTool(
                f"{path!r} takes {name!r}, which a check after {what} does not have; it has {_enumerate(there)}"
            )
    return function


async def run_check(function: Function, given: Mapping[str, object], cancellation: threading.Event) -> CheckResult:
    """Call `function` and return its finding; sync ones run in a thread of their own.

    Raises:
        Unable: it raised anything but an `AssertionError`, or returned something that is no finding.
        asyncio.CancelledError: the caller was cancelled; `cancellation` is set for a thread that goes on.
    """
    bound = partial(function, **{name: given[name] for name in _list_parameters(function)})
    task = asyncio.current_task()
    try:
        with contain_exits():
            returned = await _call(bound, cancellation)
    except asyncio.CancelledError as error:
        if is_cancelled():
            cancellation.set()
            raise
        raise Unable(describe_error(error)) from None
    except BaseException as error:
        if isinstance(error, GeneratorExit) and find_task() is not task:
            raise
        errors = list_errors(error)
        if all(isinstance(each, AssertionError) for each in errors):
            words = "; ".join(dict.fromkeys(filter(None, map(read_message, errors))))
            return report_failure(words or f"an assertion of {_name(function)} does not hold")
        raise Unable(describe_error(error)) from None
    return _read(returned, function)


async def _call(bound: "partial[object]", cancellation: threading.Event) -> object:
    async def finish(pending: object) -> object:
        returned = pending
        while inspect.isawaitable(returned):
            returned = await returned
        return returned

    if inspect.iscoroutinefunction(bound):
        return await run_coroutine(lambda: finish(bound()))
    returned = await run_in_thread(bound, cancellation, ended=lambda: None)
    return await run_coroutine(partial(finish, returned)) if inspect.isawaitable(returned) else returned


def _list_parameters(function: Function) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name in _GIVEN)


def _read(returned: object, function: Function) -> CheckResult:
    if isinstance(returned, bool):
        return report(returned, f"{_name(function)} says that it {'holds' if returned else 'does not hold'}")
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], bool):
        return report(returned[0], tell(returned[1]))
    finding, reason = _parts(returned)
    if finding == "unable":
        raise Unable(reason)
    if finding in get_args(Finding):
        return report(finding == "pass", reason)
    raise Unable(f"{_name(function)} returned {type(returned).__name__}; {_RETURNS}", lasting=True)


def _parts(returned: object) -> tuple[object, str]:
    """Return the finding and the reason of something like a `CheckResult`."""
    fields = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
    finding = fields.get("finding")
    return finding, tell(fields.get("reason") or f"it says {finding!r} without a reason")


def _name(function: Function) -> str:
    return str(getattr(function, "__name__", "the check"))


def _enumerate(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
