"""Marks: a message authentication code that only workers of one installation can make.

A payload's mark travels in its metadata, beside the encoding, so that content and types stay as they are.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

METADATA_KEY = "mark"

MarkKind = Literal["input", "output", "failure", "state", "heartbeat", "result", "child", "report"]
"""Use of the content: a mark for one is none for another. That of a kept result is the key that it is found by;
`child` is what a parent tells a child, `report` the result of a child."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Content that arrived with a mark where no type was wanted; nothing is known of either yet."""

    content: bytes
    """JSON."""
    mark: bytes


def read_as(model: type[M], given: object) -> M:
    """Return a value that was decoded without a type; its mark, if it has one, is not looked at.

    Raises:
        ValidationError: it is no such value.
    """
    return model.model_validate_json(given.content) if isinstance(given, Marked) else model.model_validate(given)
