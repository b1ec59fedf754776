"""Findings of a check: it passes, it fails, or it could not be made."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.verification import CheckResult
from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.plain_text import shorten

SHOWN_CHARACTERS = 120
"""Length of a result's beginning in a reason."""


class Unable(Exception):
    """A check that could not be made."""

    def __init__(
        self, reason: str, *, lasting: bool = False, retry_after: float | None = None, usage: Usage | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting
        """Another attempt would end in the same way."""
        self.retry_after = retry_after
        """Seconds to wait before another attempt; `None` for what is usual."""
        self.usage = usage or Usage()
        """What the attempt cost all the same."""


def report(passed: bool, reason: str, usage: Usage | None = None) -> CheckResult:  # noqa: FBT001 - it is the finding
    return CheckResult(finding="pass" if passed else "fail", reason=reason, usage=usage or Usage())


def report_failure(reason: str) -> CheckResult:
    return CheckResult(finding="fail", reason=reason)


def read_json(text: str) -> JsonValue:
    """Return the one JSON value that `text` is.

    Raises:
        ValueError: it is none, or one that is not read alike everywhere: NaN, infinities, a key given twice.
    """
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def parse_value(text: str) -> JsonValue:
    """Return a result as conditions and Python checks see it: the value that it is as JSON, else its text."""
    try:
        return read_json(text)
    except ValueError:
        return text


def make_facts(text: str, args: JsonObject) -> evaluation.Facts:
    """Return the names that conditions over a result see: `result` and `args`."""
    return evaluation.Facts({"result": parse_value(text), "args": args})


def check_condition(condition: str, text: str, args: JsonObject, *, shown: bool, lasting: bool = False) -> CheckResult:
    """Return whether `condition` holds for the result `text`; `shown` allows a reason to hold the beginning of it.

    Raises:
        Unable: the condition cannot be evaluated; `lasting` says that the result will be no other.
    """
    outcome = make_facts(text, args).evaluate(condition)
    written = shorten(condition, SHOWN_CHARACTERS)
    result = f"; the result is {shorten(text, SHOWN_CHARACTERS) or 'empty'}" if shown else ""
    if type(outcome) is evaluation.Unevaluable:
        raise Unable(f"{written!r} cannot be evaluated: {outcome.reason}{result}", lasting=lasting)
    return report(outcome is True, f"{written!r} holds" if outcome is True else f"{written!r} does not hold{result}")


def _object(pairs: list[tuple[str, JsonValue]]) -> Mapping[str, JsonValue]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key is given twice")
    return members


def _refuse_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
