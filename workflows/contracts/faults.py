"""Faults that a validator finds inside its value, each at its own place."""

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Located = tuple[tuple[str | int, ...], str]
"""Place in the value, and one sentence that says what is wrong and what is allowed."""


class Unreadable:
    """Stand-in among plain values for a part that has a fault of its own."""

    __slots__ = ()


UNREADABLE: Final = Unreadable()
"""Something is there, or must be, and what it says is not known."""

MISSPELT: Final = Unreadable()
"""Nothing is there, and an unknown key beside it was probably meant to be it."""


def refuse(faults: Sequence[Located]) -> None:
    """Raise an error for `faults`, if there are any.

    Raises:
        ValidationError: all of `faults`; pydantic puts the validator's own place before theirs.
    """
    if faults:
        raise ValidationError.from_exception_data(
            "faults",
            [
                InitErrorDetails(
                    type=PydanticCustomError("fault", "{message}", {"message": message}), loc=loc, input=None
                )
                for loc, message in faults
            ],
        )


def find_repetitions(names: Sequence[str | None]) -> list[Located]:
    return [((again,), f"{name!r} is given twice") for again, name, _ in find_repeated(names)]


def find_repeated(names: Sequence[str | None]) -> list[tuple[int, str, int]]:
    """Find the position and name of each of `names` that stands further up already, and where; `None` is no name."""
    first: dict[str, int] = {}
    again: list[tuple[int, str, int]] = []
    for position, name in enumerate(names):
        if name is None:
            continue
        if name in first:
            again.append((position, name, first[name]))
        first.setdefault(name, position)
    return again
