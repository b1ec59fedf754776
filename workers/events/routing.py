"""Choice of what an event starts, by the file of triggers: a pure function."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import JsonValue, TypeAdapter, ValidationError

from mandate.workers.events.cloud_event import CloudEvent
from mandate.workers.events.triggers import PlanAction, SayAction, StartAction, Trigger
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import By
from mandate.workflows.rules.cel.evaluation import Facts, Unevaluable

EVENT = "event"
"""The one variable of expressions."""

MOST_TOLD = 5
"""Triggers that a dead letter tells of whose `match` could not be evaluated."""

_BY: TypeAdapter[str] = TypeAdapter(By)
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Start:
    """A run of an agent."""

    trigger: Trigger
    agent: str
    input: str | JsonObject
    requester: str
    model: str | None


@dataclass(frozen=True, slots=True)
class StartPlan:
    """A run of a plan."""

    trigger: Trigger
    plan: str
    input: JsonValue
    requester: str


@dataclass(frozen=True, slots=True)
class Speak:
    """A message to a session."""

    trigger: Trigger
    agent: str
    workflow_id: str
    text: str
    by: str
    idle: timedelta | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event of no interest, as a trigger says."""

    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Unusable:
    """An event that nothing can be done with."""

    reason: str
    """One sentence, without values of the event."""
    trigger: Trigger | None = None
    """`None` where none matches."""


Route = Start | StartPlan | Speak | Ignored | Unusable


class _Unfit(Exception):
    """An expression that comes to nothing that can be used; the text is one sentence."""


def find_route(triggers: Sequence[Trigger], event: CloudEvent) -> Route:
    """Return what the first trigger that matches does with an event."""
    facts = Facts({EVENT: event.to_json()})
    unread = []
    for trigger in triggers:
        match facts.evaluate(trigger.match):
            case True:
                try:
                    return _follow(trigger, facts)
                except _Unfit as error:
                    return Unusable(str(error), trigger)
            case Unevaluable(reason=reason):
                unread.append(f"trigger {trigger.id!r}: match: {reason}")
            case _:
                continue
    told = f" ({'; '.join(unread[:MOST_TOLD])})" if unread else ""
    return Unusable(f"no trigger matches the event{told}")


def _follow(trigger: Trigger, facts: Facts) -> Route:
    match trigger.action:
        case None:
            return Ignored(trigger)
        case StartAction(agent=agent, input=asked, model=model):
            found = _value(facts, trigger, "start.input", asked)
            if not isinstance(found, str | dict):
                raise _Unfit(f"trigger {trigger.id!r}: start.input: comes to neither a text nor an object")
            return Start(trigger, agent, found, _find_requester(trigger, facts), model)
        case PlanAction(name=name, input=asked):
            value = _value(facts, trigger, "plan.input", asked) if asked is not None else None
            return StartPlan(trigger, name, value, _find_requester(trigger, facts))
        case SayAction() as say:
            session = _text(facts, trigger, "say.session", say.session)
            text = _text(facts, trigger, "say.text", say.text)
            by = _find_requester(trigger, facts)
            return Speak(trigger, say.agent, _name_session(trigger, session), text, by, say.idle, say.model)


def _name_session(trigger: Trigger, text: str) -> str:
    """Return a workflow id that no other trigger and no other text has, so that an event finds no session of others."""
    readable = _UNSAFE.sub("-", text).strip("-")[:40].strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return "-".join(part for part in (trigger.id, readable, digest) if part)


def _find_requester(trigger: Trigger, facts: Facts) -> str:
    if trigger.requester_from is None:
        assert trigger.requester is not None
        return trigger.requester
    name = _text(facts, trigger, "requester_from", trigger.requester_from)
    try:
        return _BY.validate_python(name)
    except ValidationError:
        raise _Unfit(
            f"trigger {trigger.id!r}: requester_from: comes to no name of 1 to 200 characters that can all be seen"
        ) from None


def _text(facts: Facts, trigger: Trigger, key: str, expression: str) -> str:
    found = _value(facts, trigger, key, expression)
    if not isinstance(found, str) or not found.strip():
        raise _Unfit(f"trigger {trigger.id!r}: {key}: comes to no text, or to an empty one")
    return found


def _value(facts: Facts, trigger: Trigger, key: str, expression: str) -> JsonValue:
    found = facts.value(expression)
    if isinstance(found, Unevaluable):
        raise _Unfit(f"trigger {trigger.id!r}: {key}: {found.reason}")
    return found
