"""The file of triggers, read and checked: all that is wrong with it, with places."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.workers.catalog.conditions import check_over
from mandate.workers.events.routing import EVENT
from mandate.workers.events.triggers import PlanAction, SayAction, StartAction, Trigger, TriggerFile
from mandate.workers.settings import Settings
from mandate.workflows.contracts.faults import Place, did_you_mean

_TEXT = ("string",)
_ASKED = ("string", "object")


def triggers_path(settings: Settings) -> Path | None:
    """Return the file of triggers, or `None` when there is none and none was named."""
    return settings.triggers or (settings.default_triggers if settings.default_triggers.exists() else None)


def read_triggers(settings: Settings) -> TriggerFile | None:
    """Read the file of triggers; return `None` without one.

    Raises:
        FileError: all faults of the file, those of its expressions included.
    """
    found = _read(settings)
    return found[0] if found is not None else None


def faults_for(settings: Settings) -> tuple[Fault, ...]:
    """Return why no event could be taken in under the file of triggers."""
    try:
        _read(settings)
    except FileError as error:
        return error.faults
    return ()


def warnings_for(settings: Settings, *, agents: Sequence[str], plans: Sequence[str]) -> tuple[Fault, ...]:
    """Warn of triggers that start what is not here; needs a file without faults."""
    found = _read(settings)
    if found is None:
        return ()
    file, document = found
    known: Mapping[str, Sequence[str]] = {"agent": agents, "plan": plans}
    warned = []
    for position, trigger in enumerate(file.triggers):
        key, kind, name = _target(trigger)
        if kind and name not in known[kind]:
            hint = did_you_mean(name, known[kind])
            message = f"names the {kind} {name!r}, which is not here{hint} there are {', '.join(known[kind]) or 'none'}"
            place = ("triggers", position, key, "name" if kind == "plan" else "agent")
            warned.append(document.fault(place, message, name))
    return in_order(warned)


def triggers_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of the file of triggers, for editors."""
    schema = TriggerFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate file of triggers"}


def _read(settings: Settings) -> tuple[TriggerFile, Document] | None:
    path = triggers_path(settings)
    if path is None:
        return None
    if not path.is_file():
        message = "is not a file; --triggers, MANDATE_TRIGGERS or mandate.yaml names the file of triggers"
        raise FileError([Fault(str(path), 0, 0, "", "", message)])
    file, document = read_spec(path, TriggerFile)
    faults = [
        document.fault(("triggers", position, *place), f"{problem.place(text)}: {problem.message}")
        for position, trigger in enumerate(file.triggers)
        for place, text, takes in _expressions(trigger)
        for problem in check_over(EVENT, text, takes)
    ]
    if faults:
        raise FileError(faults)
    return file, document


def _expressions(trigger: Trigger) -> Iterator[tuple[Place, str, Sequence[str] | None]]:
    """Yield the expressions of a trigger with the types of JSON that each comes to; `None` for true or false."""
    yield ("match",), trigger.match, None
    if trigger.requester_from is not None:
        yield ("requester_from",), trigger.requester_from, _TEXT
    match trigger.action:
        case StartAction(input=asked):
            yield ("start", "input"), asked, _ASKED
        case PlanAction(input=str() as asked):
            yield ("plan", "input"), asked, ()
        case SayAction(session=session, text=text):
            yield ("say", "session"), session, _TEXT
            yield ("say", "text"), text, _TEXT
        case _:
            return


def _target(trigger: Trigger) -> tuple[str, str, str]:
    """Return the key of what a trigger does, the kind of what it starts, and the name of that."""
    match trigger.action:
        case StartAction(agent=name):
            return "start", "agent", name
        case SayAction(agent=name):
            return "say", "agent", name
        case PlanAction(name=name):
            return "plan", "plan", name
        case None:
            return "ignore", "", ""
