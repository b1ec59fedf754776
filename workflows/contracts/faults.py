"""Faults of values that people write: places, and what validators find inside a value."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[str | int, ...]
"""Position of a value: keys and list positions from the root."""

Located = tuple[Place, str]
"""Place within the value, and one sentence that says what is wrong and what is allowed."""

FAULT = "fault"
"""Type of an error whose message is the whole sentence."""

_PLAIN_KEY = re.compile(r"[\w$-]+")


def key_path(place: Place) -> str:
    """Write a place as text, `tools[2].effect`; a key that is no plain word is in brackets and quotes."""
    shown = ""
    for part in place:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{part}" if _PLAIN_KEY.fullmatch(part) else f"[{part!r}]"
    return shown.removeprefix(".")


def refuse(faults: Sequence[Located]) -> None:
    """Do nothing when there are no faults.

    Raises:
        ValidationError: all of `faults`; pydantic puts the validator's own place before theirs.
    """
    if faults:
        raise ValidationError.from_exception_data(
            "faults",
            [
                InitErrorDetails(
                    type=PydanticCustomError(FAULT, "{message}", {"message": message}), loc=loc, input=None
                )
                for loc, message in faults
            ],
        )


def find_close(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `name` was probably meant to be."""
    return next(iter(get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the one of `known` that is close to `name`, else `;`."""
    close = find_close(name, known)
    return ";" if close is None else f"; did you mean {close!r}?"


def given_twice(names: Sequence[str]) -> list[Located]:
    return [((again,), f"{name!r} is given twice") for again, name, _ in find_repeated(names)]


def find_repeated(names: Sequence[str | None]) -> list[tuple[int, str, int]]:
    """Return position and name of each that stands further up already, and where it does; `None` is no name."""
    first: dict[str, int] = {}
    again: list[tuple[int, str, int]] = []
    for position, name in enumerate(names):
        if name is None:
            continue
        if name in first:
            again.append((position, name, first[name]))
        first.setdefault(name, position)
    return again
