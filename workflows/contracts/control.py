"""Checks of who may steer, pause, resume and stop runs, and speak in sessions."""

from typing import Literal

from mandate.workflows.contracts.base import Record

ControlVerb = Literal["steer", "pause", "resume", "stop", "say"]

SAFE: tuple[ControlVerb, ...] = ("pause", "stop")
"""What does its work also when it cannot be checked who wants it: a run in trouble must be held all the same."""


class ControlCheck(Record):
    """Input of `check_control`."""

    verb: ControlVerb
    by: str
    agent: str
    """Name of the run's agent, which controls nothing itself."""
    workflow_id: str


class ControlChecked(Record):
    """Output of `check_control`."""

    refusal: str | None = None
    """The reason why the message has no effect, in one sentence."""
