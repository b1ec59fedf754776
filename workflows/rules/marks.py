"""Computation of marks: HMAC-SHA256 over use, place and content, cut to 16 bytes, behind the number of its key."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from workflows.contracts.marks import MarkKind

NUMBER_BYTES = 2
MAC_BYTES = 16
"""128 bits: each mark is in a run's history several times a step."""


def compute_mark(number: int, secret: bytes, kind: MarkKind, place: Sequence[str], content: bytes) -> bytes:
    """Return the mark that key `number` makes for `content` at `place`, 18 bytes."""
    mac = hmac.new(secret, digestmod=sha256)
    for part in (kind.encode(), *(name.encode() for name in place), content):
        # With its length, so that no two lists of parts have the same bytes.
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return number.to_bytes(NUMBER_BYTES, "big") + mac.digest()[:MAC_BYTES]


def key_number(mark: bytes) -> int:
    """Return the number of the key that a mark says it is made with."""
    return int.from_bytes(mark[:NUMBER_BYTES], "big")
