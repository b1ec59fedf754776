"""The file of triggers as it is written: which events start what, in whose name, and with what input."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from mandate.workflows.contracts.base import Duration, Name, Spec
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.faults import find_repeated, refuse
from mandate.workflows.contracts.request import By
from mandate.workflows.contracts.route import ModelName
from mandate.workflows.contracts.run import Label


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write an expression in CEL over 'event'")
    return text


Expression = Annotated[str, Field(max_length=4000), AfterValidator(_refuse_blank)]


class StartAction(Spec):
    """A run of an agent for each event."""

    agent: Name = Field(description="Name of an agent file of the workers.")
    input: Expression = Field(description="What it is asked: CEL over `event`, a text or an object.")
    model: ModelName | None = Field(default=None, description="Asked in place of the agent's route, if it allows that.")


class PlanAction(Spec):
    """A run of a plan for each event."""

    name: Name = Field(description="Name of a plan file of the workers.")
    input: Expression | None = Field(default=None, description="What it is asked: CEL over `event`, any value.")


class SayAction(Spec):
    """A message to a session for each event."""

    agent: Name = Field(description="Name of an agent file of the workers.")
    session: Expression = Field(
        description="Which session: CEL over `event`, a text. Events with the same text speak to the same session."
    )
    text: Expression = Field(description="The words: CEL over `event`, a text.")
    idle: Duration | None = Field(default=None, description="How long the session waits for the next message.")
    model: ModelName | None = Field(default=None, description="As of `start`.")


Action = StartAction | PlanAction | SayAction

_ACTIONS = ("start", "plan", "say", "ignore")
_NAMES = ("requester", "requester_from")


class Trigger(Spec):
    """Events, and what is done with them; the first trigger of the file whose `match` holds counts."""

    id: Name = Field(description="Name of the trigger, for logs; sessions of `say` are named after it.")
    match: Expression = Field(description="CEL over `event`, true or false. What cannot be evaluated does not match.")
    start: StartAction | None = Field(default=None, description="Start a run of an agent.")
    plan: PlanAction | None = Field(default=None, description="Start a run of a plan.")
    say: SayAction | None = Field(default=None, description="Say something to a session.")
    ignore: Literal[True] | None = Field(default=None, description="Nothing is done, and the event is no dead letter.")
    requester: By | None = Field(default=None, description="Who asks, whoever sends the event.")
    requester_from: Expression | None = Field(
        default=None,
        description="In place of `requester`: CEL over `event`. Whoever sends events then says who asks.",
    )
    untrusted: bool = Field(
        default=True,
        description="What it starts is tainted: rules see `run.tainted`. `false` where all senders are trusted.",
    )
    labels: dict[Label, Label] = Field(default={}, max_length=20, description="For finding the runs.")
    budget: BudgetRequest | None = Field(default=None, description="Lower limits than those of the agent or plan.")

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        given = [name for name in _ACTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"has {' and '.join(map(repr, given))}" if given else "does nothing"
            raise ValueError(f"{what}; give one of {', '.join(map(repr, _ACTIONS))}")
        names = [name for name in _NAMES if getattr(self, name) is not None]
        if self.ignore and (names or self.labels or self.budget is not None):
            raise ValueError("ignores its events, and starts nothing that has a requester, labels or a budget")
        if not self.ignore and len(names) != 1:
            what = "has 'requester' and 'requester_from'" if names else "does not say who asks"
            raise ValueError(f"{what}; give 'requester', a name, or 'requester_from', an expression over the event")
        return self

    @property
    def action(self) -> Action | None:
        """The run or message that an event leads to; `None` for events that are ignored."""
        return self.start or self.plan or self.say


class TriggerFile(Spec):
    """The file of triggers."""

    triggers: tuple[Trigger, ...] = Field(
        min_length=1, max_length=200, description="Triggers; of those that match an event the first one counts."
    )

    @field_validator("triggers")
    @classmethod
    def _ids_differ(cls, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
        refuse(
            [
                ((again, "id"), f"{name!r} is the id of triggers[{first}] too; each trigger has its own")
                for again, name, first in find_repeated([trigger.id for trigger in triggers])
            ]
        )
        return triggers
