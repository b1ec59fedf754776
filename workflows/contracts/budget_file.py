"""The file of budgets: limits beyond one run, for each day or month."""

import re
from datetime import UTC, tzinfo
from difflib import get_close_matches
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from mandate.workflows.contracts.base import Name, PositiveMoney, Spec
from mandate.workflows.contracts.faults import find_repeated, refuse
from mandate.workflows.contracts.people import PersonName

EACH = "*"
"""In place of a name: each agent, requester or value has a budget of its own."""

_AGENT = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")


def _check_agent(name: str) -> str:
    if name != EACH and not _AGENT.fullmatch(name):
        raise ValueError(f"must be the name of an agent, or '{EACH}' for a budget of each agent")
    return name


def _check_time_zone(name: str) -> str:
    try:
        find_time_zone(name)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(name, available_timezones(), n=1, cutoff=0.8)
        hint = f"; did you mean {close[0]!r}?" if close else ", for example 'UTC' or 'Europe/Berlin'"
        raise ValueError(f"is not a time zone that is known here{hint}") from None
    return name


def find_time_zone(name: str) -> tzinfo:
    """Return the time zone of this name.

    Raises:
        KeyError, ValueError, OSError: there is none.
    """
    # Also where a machine has no table of time zones.
    return UTC if name == "UTC" else ZoneInfo(name)


AgentName = Annotated[str, AfterValidator(_check_agent)]

TimeZone = Annotated[str, AfterValidator(_check_time_zone)]

LabelText = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class PeriodBudget(Spec):
    """Limits of all runs together that it fits, for each day or month; every key given must fit."""

    id: Name = Field(description="Name of the budget; what it has spent is kept under it.")
    agent: AgentName | None = Field(
        default=None,
        description=f"Runs of this agent; `{EACH}`: each agent has its own; left out, all agents together.",
    )
    requester: PersonName | None = Field(
        default=None,
        description=f"Runs that this person asked for, by their name in the file of people; `{EACH}`: each requester "
        "has their own; left out, all requesters together.",
    )
    labels: dict[LabelText, LabelText] = Field(
        default={},
        max_length=20,
        description=f"Runs with these labels; `{EACH}`: each value has its own; runs without the label share one.",
    )
    per: Literal["day", "month"] = Field(description="Time after which it begins anew.")
    time_zone: TimeZone = Field(default="UTC", description="Where days and months begin, for example `Europe/Berlin`.")
    cost_usd: PositiveMoney | None = Field(
        default=None, description='US dollars for all model calls, as a text: `"50.00"`.'
    )
    tokens: int | None = Field(
        default=None, ge=1, le=10**15, description="Tokens of all model calls, input and output, cached ones included."
    )

    @model_validator(mode="after")
    def _has_limit(self) -> Self:
        if self.cost_usd is None and self.tokens is None:
            raise ValueError("has no limit; give 'cost_usd', 'tokens' or both")
        return self


class BudgetFile(Spec):
    """The file of budgets."""

    budgets: tuple[PeriodBudget, ...] = Field(
        max_length=200, description="Budgets beyond one run; a model call must find room in all that fit its run."
    )

    @field_validator("budgets")
    @classmethod
    def _ids_differ(cls, budgets: tuple[PeriodBudget, ...]) -> tuple[PeriodBudget, ...]:
        refuse(
            [
                ((again, "id"), f"{name!r} is the id of budgets[{first}] too; each budget has its own")
                for again, name, first in find_repeated([budget.id for budget in budgets])
            ]
        )
        return budgets
