"""Marks: a message authentication code that only workers of one installation can make.

A payload's mark travels in its metadata, beside the encoding, so that content and types stay as they are.
"""

from dataclasses import dataclass
from typing import Literal

METADATA_KEY = "mark"

MarkKind = Literal["input", "output", "failure", "state", "heartbeat"]
"""Use of the content: a mark for one is none for another."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Content that arrived with a mark where no type was wanted; nothing is known of either yet."""

    content: bytes
    """JSON."""
    mark: bytes
