"""Texts of models as they come: a log of a run, bounded, for whoever reads along."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

StreamKind = Literal["begin", "text", "end"]

KEPT_FOR = timedelta(hours=1)
"""Time after which pieces are removed."""

STEPS_KEPT = 2
"""Steps before the one that begins whose pieces stay."""

REMOVED_AT_ONCE = 500
"""Expired pieces that are removed each time that a step begins."""

READ_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """A piece of the text of one answer, or its begin or end."""

    run_id: str
    step: int
    attempt: int
    kind: StreamKind
    content: bytes = b""
    """Of a text, as the payload codec leaves it."""
    offset: int = 0
    """Place in the log; larger for later pieces of a run."""
