"""Faults of values that may be one of two kinds: pydantic tells those of both, people meant one."""

from collections.abc import Sequence

from pydantic_core import ErrorDetails

_KEY, _WORD, _MAPPING = "on_expiry", "literal['deny']", "OnExpiry"
_NEITHER = "is neither 'deny' nor a mapping with 'escalate'"


def settled(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """`details` as if each value had the kind that it was meant to have, and with its place in the file."""
    return [kept for detail in details if (kept := _settled(detail)) is not None]


def _settled(detail: ErrorDetails) -> ErrorDetails | None:
    loc = detail["loc"]
    if _KEY not in loc:
        return detail
    behind = loc.index(_KEY) + 1
    kind, rest = loc[behind : behind + 1], loc[behind + 1 :]
    if kind == (_WORD,):
        return None
    if kind != (_MAPPING,):
        return detail
    place = ErrorDetails(**{**detail, "loc": (*loc[:behind], *rest)})
    if rest or detail["type"] != "model_type":
        return place
    written = "a list" if isinstance(detail["input"], list) else repr(detail["input"])
    return ErrorDetails(**{**place, "type": "fault", "msg": f"{written} {_NEITHER}"})
