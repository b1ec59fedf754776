"""Points at which a worker of the proof by plans dies, by itself and with all that it does."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from functools import cache

from tests.support.plan_book import open_book

DEATHS = "MANDATE_TEST_DEATHS"
"""Environment: JSON, by point the passes of it from which on the next process dies; counted over all processes."""

APART = 1.5
"""Seconds between deaths: a model is asked six times for one answer, and no more."""

RARE = frozenset({"before_once", "after_once", "leaving", "carried"})
"""Points that few calls pass: nothing waits there."""

POINTS = (
    "advance_begins",
    "advance_ends",
    "model_begins",
    "model_ends",
    "read",
    "before_effect",
    "after_effect",
    "before_once",
    "after_once",
    "leaving",
    "carried",
)


@cache
def _find_deaths() -> Mapping[str, Sequence[int]]:
    found: Mapping[str, Sequence[int]] = json.loads(os.environ.get(DEATHS, "{}"))
    return found


def die_at(point: str) -> None:
    """Pass a point, or die there with SIGKILL."""
    wanted = _find_deaths().get(point)
    if not wanted:
        return
    if open_book().note_pass(point, wanted, 0.0 if point in RARE else APART):
        os.kill(os.getpid(), signal.SIGKILL)
