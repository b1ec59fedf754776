"""Findings of a check: it passes, it fails, or it could not be made."""

import json
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.verification import CheckResult
from mandate.workflows.rules import surrogates
from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.plain_text import REPLACEMENT, shorten

SHOWN_CHARACTERS = 120
"""Length of a result's beginning in a reason."""

_MARK = "\ufeff"
"""Byte order mark, which some programs put before JSON."""
_INTEGERS = range(-(2**63), 2**63)
_MOST_DIGITS = 4000


class Unable(Exception):
    """A check that could not be made."""

    def __init__(
        self, reason: str, *, lasting: bool = False, retry_after: float | None = None, needed: int = 0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting
        """Another attempt would end in the same way."""
        self.retry_after = retry_after
        """Seconds to wait before another attempt; `None` for what is usual."""
        self.needed = needed
        """Tokens of a request, where it was not sent since less is reserved."""


def report(passed: bool, reason: str) -> CheckResult:  # noqa: FBT001 - it is the finding
    return CheckResult(finding="pass" if passed else "fail", reason=reason)


def report_failure(reason: str) -> CheckResult:
    return CheckResult(finding="fail", reason=reason)


def read_json(text: str) -> JsonValue:
    """Return the one JSON value that `text` is.

    Raises:
        ValueError: it is none, or one that is not read alike everywhere: NaN, infinities, a key given twice.
    """
    return _load(text, _refuse_number)


def parse_value(text: str) -> JsonValue:
    """Return a result as Python checks see it: the value that it is as JSON, else its text.

    NaN and infinities, which other languages write into JSON, are the texts of these names.
    """
    try:
        return _load(text, str)
    except ValueError:
        return text


def _load(text: str, read_constant: Callable[[str], JsonValue]) -> JsonValue:
    try:
        value: JsonValue = json.loads(
            text.removeprefix(_MARK), object_pairs_hook=_object, parse_constant=read_constant, parse_int=_read_integer
        )
        return surrogates.repair_json(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def make_facts(text: str, args: JsonObject) -> evaluation.Facts:
    """Return the names that conditions over a result see: `result` and `args`."""
    value = parse_value(text)
    try:
        value = _make_readable(value)
    except RecursionError:
        value = text
    return evaluation.Facts({"result": value, "args": args})


def _make_readable(value: JsonValue) -> JsonValue:
    """Return a result in which nothing keeps conditions from what they ask for.

    They take neither NUL nor integers beyond 64 bits: with U+FFFD, and as text, these are equal to nothing else.
    """
    match value:
        case str():
            return value.replace("\0", REPLACEMENT)
        case int() if value not in _INTEGERS and not isinstance(value, bool):
            return str(value)
        case list():
            return [_make_readable(item) for item in value]
        case dict():
            return {_make_readable_key(key, value): _make_readable(item) for key, item in value.items()}
        case _:
            return value


def _make_readable_key(key: str, siblings: Mapping[str, JsonValue]) -> str:
    name = key.replace("\0", REPLACEMENT)
    while name != key and name in siblings:
        name += REPLACEMENT
    return name


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


def _read_integer(digits: str) -> int | str:
    # Python reads no longer ones.
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _refuse_number(name: str) -> JsonValue:
    raise ValueError(f"{name} is no number of JSON")
