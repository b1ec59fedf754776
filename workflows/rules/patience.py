"""Patience with a call that may be repeated: how long, how far apart, and who waits.

The first attempts are one activity, which Temporal repeats: they cost no events. After those the run itself waits
between attempts, so that people see what it waits for, and a stop or a pause need not wait for the other side.
"""

import re
from datetime import timedelta

from mandate.workflows.contracts.tool import Effect, Tool

DEFAULTS = {
    Effect.READ: timedelta(minutes=1),
    Effect.IDEMPOTENT: timedelta(minutes=10),
    Effect.KEYED: timedelta(minutes=10),
}
"""Time after the first attempt within which another one may begin."""

FIRST = 1.0
LONGEST = 30.0
"""Seconds between attempts: doubled each time, from the first to the longest."""

BURST = 4
"""Failed attempts after which the run itself waits."""

BURST_SECONDS = 5.0
"""Longest wait that is left to Temporal."""

QUICK_ATTEMPTS = 3
"""Attempts of a call that failed in a way that waiting does not mend: another worker may do better."""

MOST_ATTEMPTS = 20
"""Attempts of one activity, those whose workers were lost included: a call may be what takes them down."""

ROOM = timedelta(seconds=30)
"""Time of one activity beyond its patience and its last attempt: for workers that are lost."""


def find_patience(tool: Tool) -> timedelta | None:
    """Return how long a call is repeated; `None` for one that is made once."""
    if tool.effect is Effect.ONCE:
        return None
    return tool.patience or DEFAULTS[tool.effect]


def find_second_patience(tool: Tool) -> timedelta | None:
    """Return how long a call is repeated that its server says has failed, when the agent makes it once more.

    MCP has no word for "try again later": servers answer `isError` to an argument that is wrong and while their own
    back end is away. `None` for tools whose errors say which.
    """
    if tool.source != "mcp" or tool.effect is Effect.ONCE:
        return None
    return tool.patience or DEFAULTS[Effect.READ]


def compute_wait(failed: int, asked: float | None = None) -> float:
    """Return the seconds before another attempt after `failed` failures; the other side `asked` for so many."""
    backoff = min(FIRST * 2.0 ** min(failed - 1, 10), LONGEST)
    return backoff if asked is None else max(asked, backoff)


def may_repeat(tool: Tool, failed: int) -> bool:
    """Return whether the tool's own bound on attempts leaves another one."""
    return tool.effect is not Effect.ONCE and (tool.retries is None or failed <= tool.retries)


def is_left_to_temporal(failed: int, wait: float) -> bool:
    """Return whether the next attempt belongs to the same activity."""
    return failed < BURST and wait <= BURST_SECONDS


def is_wait(line: str) -> bool:
    """Return whether a text is one of `describe_wait`."""
    return _WAIT.fullmatch(line) is not None


_WAIT = re.compile(r"[A-Za-z][\w-]{0,63}: attempt \d+, .*, again in \d+ s", re.DOTALL)


def describe_wait(tool: str, attempt: int, reason: str, seconds: float) -> str:
    """Return what a run waits for, in one line: `create_ticket: attempt 4, HTTP 503, again in 8 s`."""
    return f"{tool}: attempt {attempt}, {reason}, again in {seconds:.0f} s"
