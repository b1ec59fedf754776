"""Computation of marks: HMAC-SHA256 over use, place and content, cut to 16 bytes, behind the number of its key."""

import hmac
from collections.abc import Sequence

from pydantic import BaseModel

from mandate.workflows.contracts.children import FindReport
from mandate.workflows.contracts.control import ControlCheck
from mandate.workflows.contracts.decision_lookups import DecisionChecks
from mandate.workflows.contracts.marks import MarkKind
from mandate.workflows.contracts.request import DecisionCheck
from mandate.workflows.rules import decisions

NUMBER_BYTES = 2
MAC_BYTES = 16
"""128 bits: each mark is in a run's history several times a step."""


def compute_mark(number: int, secret: bytes, kind: MarkKind, place: Sequence[str], content: bytes) -> bytes:
    """Return the mark that key `number` makes for `content` at `place`, 18 bytes."""
    parts = [kind.encode(), *[name.encode() for name in place], content]
    # Each with its length, so that no two lists of parts have the same bytes.
    signed = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
    return number.to_bytes(NUMBER_BYTES, "big") + hmac.digest(secret, signed, "sha256")[:MAC_BYTES]


def find_subject(request: BaseModel) -> str:
    """Return what an activity's input is about, by which its answer is told from that to another input.

    After a reset the same activity of a run may be asked something else. Only what never changes with the version of
    the code is in it: a replay computes it again.
    """
    parts = [str(getattr(request, name)) for name in _SUBJECT if getattr(request, name, None) is not None]
    checks = request.checks if isinstance(request, DecisionChecks) else ()
    if isinstance(request, DecisionCheck):
        checks = (request,)
    if isinstance(request, FindReport):
        parts.append(request.child)
    if isinstance(request, ControlCheck):
        parts.append(f"{request.verb} {request.by}")
    parts += [f"{check.request.id} {decisions.compute_key(check.decision)}" for check in checks]
    return " ".join(parts)


_SUBJECT = ("head", "index", "key", "edited", "check", "step")


def read_key_number(mark: bytes) -> int:
    """Return the number of the key that a mark says it is made with."""
    return int.from_bytes(mark[:NUMBER_BYTES], "big")
