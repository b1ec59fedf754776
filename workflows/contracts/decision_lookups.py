"""Decisions that are looked up together, and those that wait until a run can take them in."""

from pydantic import AwareDatetime

from mandate.workflows.contracts.base import Record
from mandate.workflows.contracts.request import Checked, Decision, DecisionCheck


class KeptDecision(Record):
    """A decision that came by signal when a run could take none in, until it can."""

    decision: Decision
    at: AwareDatetime
    """Time of arrival: it is in time if it was then."""


class DecisionChecks(Record):
    """Input of `check_decisions`: decisions that came together."""

    checks: tuple[DecisionCheck, ...]


class CheckedMany(Record):
    """Output of `check_decisions`, in the order of its input."""

    checked: tuple[Checked, ...]
