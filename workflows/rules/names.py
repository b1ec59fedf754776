"""Names that receivers read as one: `amount` and `Amount`, `order_id` and `orderId`.

Go's encoding/json, System.Text.Json and Jackson fold case, protobuf's JSON takes `order_id` for `orderId`: what a rule
reads under one spelling would be taken from another.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

_CACHED = 8192


@lru_cache(maxsize=_CACHED)
def fold_name(name: str) -> str:
    """Return a form that is equal for names that differ in case, width or another form of the same letters only."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


@lru_cache(maxsize=_CACHED)
def fold_loosely(name: str) -> str:
    """Return a form as of `fold_name` that is equal also for names that differ in `_` and `-` only."""
    plain = fold_name(name.strip())
    return plain.replace("_", "").replace("-", "") or plain


def is_sensitive(name: str, sensitive: Sequence[str]) -> bool:
    """Return whether `name` is one of `sensitive`, in whatever spelling."""
    return bool(sensitive) and (name in sensitive or fold_loosely(name) in _fold_all(tuple(sensitive)))


@lru_cache(maxsize=_CACHED)
def _fold_all(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(fold_loosely, names))


def find_clash(given: Iterable[str], declared: Iterable[str] = ()) -> tuple[str, str] | None:
    """Find two names of one object that receivers may read as one, the later of `given` first.

    The second is given too, or is one of `declared`. Where nothing is declared the keys are data, in which `_` and `-`
    tell things apart.
    """
    known = frozenset(declared)
    fold = fold_loosely if known else fold_name
    seen: dict[str, str] = {}
    for name in given:
        before = seen.setdefault(fold(name), name)
        if before != name:
            return name, before
    for name in known:
        other = seen.get(fold(name), name)
        if other != name and other not in known:
            return other, name
    return None
