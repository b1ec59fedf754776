"""Faults of values that may be one of two kinds: pydantic tells those of both, people meant one."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class _Choice:
    """A word or a mapping."""

    word: str
    """As pydantic calls it; so is `mapping`."""
    mapping: str
    neither: str
    """Fault of a value that is meant as neither."""
    any_text: bool = False
    """Every text is meant as the word, which has faults of its own then."""


_CHOICES = {
    "on_expiry": _Choice("literal['deny']", "OnExpiry", "is neither 'deny' nor a mapping with 'escalate'"),
    "probe": _Choice(
        "constrained-str", "ProbeSpec", "is neither the name of a tool nor a mapping with 'tool'", any_text=True
    ),
    "compensate": _Choice(
        "constrained-str", "CompensationSpec", "is neither the name of a tool nor a mapping with 'tool'", any_text=True
    ),
}


def settled(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return `details` as if each value had the kind that it was meant to have, with its place in the file."""
    return [kept for detail in details if (kept := _settled(detail)) is not None]


def _settled(detail: ErrorDetails) -> ErrorDetails | None:
    loc = detail["loc"]
    key = next((key for key in _CHOICES if key in loc), None)
    if key is None:
        return detail
    choice, behind = _CHOICES[key], loc.index(key) + 1
    kind, rest = loc[behind : behind + 1], loc[behind + 1 :]
    as_text = choice.any_text and isinstance(detail["input"], str) and not rest
    place = ErrorDetails(**{**detail, "loc": (*loc[:behind], *rest)})
    if kind == (choice.word,):
        return place if as_text else None
    if kind != (choice.mapping,):
        return detail
    if rest or detail["type"] != "model_type":
        return place
    written = "a list" if isinstance(detail["input"], list) else repr(detail["input"])
    return None if as_text else ErrorDetails(**{**place, "type": "choice", "msg": f"{written} {choice.neither}"})
