"""Names in the arguments of a call: those that a closed schema does not know, and those that receivers read as one."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from mandate.activities.toolbox.schema_names import Names, ObjectNames, find_children, find_others
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import names
from mandate.workflows.rules.plain_text import shorten

_NAME_CHARACTERS = 40
_KNOWN_CHARACTERS = 160
_UNKNOWN_SHOWN = 3


def find_name_fault(schema: JsonObject, value: JsonObject) -> str | None:
    """Return what is wrong with the names in `value`, in a sentence for the model or the person; `None` if nothing is.

    Two names of one object that fold to one are refused whatever the schema says, also one that is given and one that
    is only declared. No value is told.
    """
    reading = Names(schema)
    waiting: list[tuple[str, JsonValue, Sequence[JsonValue]]] = [("", value, (schema,))]
    while waiting:
        place, part, applying = waiting.pop(0)
        if isinstance(part, dict):
            parts = reading.parts(applying)
            said = reading.collect_names(parts)
            fault = _fault(part, said, is_root=not place)
            if fault is not None:
                return f"{place}: {fault}" if place else fault
            more = find_others(parts)
            for name, item in part.items():
                if isinstance(item, dict | list):
                    below = f"{place}.{_show(name)}" if place else _show(name)
                    waiting.append((below, item, find_children(parts, name) or more))
        elif isinstance(part, list):
            more = find_others(reading.parts(applying))
            waiting += [
                (f"{place}[{index}]", item, more) for index, item in enumerate(part) if isinstance(item, dict | list)
            ]
    return None


def _fault(given: Mapping[str, JsonValue], said: ObjectNames, *, is_root: bool) -> str | None:
    clash = names.find_clash(given, said.names)
    if clash is not None and clash[1] in given:
        first, other = sorted(map(_show, clash))
        return f"{first!r} and {other!r} are one name to many receivers; give only one of them"
    if clash is not None:
        return f"{_show(clash[0])!r} is not known here, and many receivers read it as {clash[1]!r}; write {clash[1]!r}"
    if not said.is_closed or said.patterns or said.is_open:
        return None
    unknown = [_show(name) for name in given if name not in said.names]
    if not unknown:
        return None
    listed = ", ".join(map(repr, unknown[:_UNKNOWN_SHOWN])) + (" and more" if len(unknown) > _UNKNOWN_SHOWN else "")
    known = shorten(", ".join(said.names), _KNOWN_CHARACTERS) or "none"
    what = "arguments of this tool" if is_root else "known here"
    if len(unknown) == 1:
        return f"{listed} is {'no argument of this tool' if is_root else 'not known here'}; there are: {known}"
    return f"{listed} are {'no ' if is_root else 'not '}{what}; there are: {known}"


def _show(name: str) -> str:
    return shorten(name, _NAME_CHARACTERS)
