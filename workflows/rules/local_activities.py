"""Choice of local activities: what is quick runs within the workflow task, for one event and no trip to the server.

Messages to the run wait meanwhile, and a killed worker costs the time limit of the task. So nothing that changes the
world or waits for others is local, nothing that was slow the last time, and all local ones of a task together have half
a second: what is not done by then is done again as an ordinary activity.
"""

from collections.abc import Mapping
from datetime import timedelta

from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.contracts.verification import CheckPin

TASK_LIMIT = timedelta(milliseconds=500)
"""Time that local activities may keep one workflow task open."""

SHORTEST = timedelta(milliseconds=200)
"""With less than this left of `TASK_LIMIT`, an activity is an ordinary one."""

DECISIONS, NOTICES, SESSIONS, PLANS = "decisions", "notices", "sessions", "plans"
"""Names of lookups of decisions, notices to people, what a session keeps, and moves of a plan; no tool and no check has
such a name."""

SOURCES = ("python", "builtin")
CHECKS = ("expect", "schema", "python")


def name_tool(tool: Tool) -> str | None:
    """Return the name under which the speed of a tool is kept; `None` for one that is never local."""
    is_local = tool.effect is Effect.READ and tool.source in SOURCES
    return f"tool {tool.name}" if is_local else None


def name_check(check: CheckPin) -> str | None:
    """Return the name under which the speed of a check is kept; `None` for one that is never local."""
    return f"check {check.name}" if check.kind in CHECKS else None


def is_quick(quick: Mapping[str, bool], name: str) -> bool:
    """Return whether the last time of `name` was quick; what is no tool and no check counts as quick before its
    first.
    """
    return quick.get(name, name in {DECISIONS, NOTICES, SESSIONS, PLANS})


def keep_speed(quick: dict[str, bool], name: str, *, was_quick: bool) -> dict[str, bool]:
    """Return `quick` with the last time of `name`."""
    return quick if quick.get(name) is was_quick else {**quick, name: was_quick}
