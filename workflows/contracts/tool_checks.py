"""Rules on the keys of one entry of `tools`: pure functions over plain values.

A part that has a fault of its own is `UNREADABLE`; nothing is concluded from it, and the rest is judged all the same.
"""

from collections.abc import Mapping, Sequence

from mandate.workflows.contracts.base import Name
from mandate.workflows.contracts.faults import MISSPELT, UNREADABLE, Located, Unreadable, find_repetitions
from mandate.workflows.contracts.templates import find_arguments
from pydantic import TypeAdapter, ValidationError

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def is_name(value: object) -> bool:
    """Return whether `value` can name a tool or an agent."""
    try:
        _NAME.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def find_entry_faults(kind: str | None, entry: Mapping[str, object]) -> list[Located]:
    """Find all that the keys of an entry of this kind have against each other; places are within the entry."""
    match kind:
        case "mcp":
            server = entry.get("mcp")
            found = find_connection_faults(server) if isinstance(server, dict) else []
            return [*((("mcp", *place), message) for place, message in found), *find_mcp_faults(entry)]
        case "activity":
            return find_activity_faults(entry)
        case "http":
            return find_http_faults(entry)
    return []


def find_connection_faults(server: Mapping[str, object]) -> list[Located]:
    """Check that one transport is chosen, and that nothing is said which only the other would need."""
    command, url = server.get("command"), server.get("url")
    given = [value for value in (command, url) if value is not None]
    certain = [value for value in given if value is not MISSPELT]
    if not given or len(certain) > 1:
        return [((), "an MCP server needs exactly one of 'command' and 'url'")]
    if command is None and _is_filled(server.get("env")):
        return [(("env",), "belongs to 'command'; a server at a 'url' has its own environment")]
    if url is None and _is_filled(server.get("headers")):
        return [(("headers",), "belongs to 'url'; a server started by 'command' has no headers")]
    return []


def find_mcp_faults(entry: Mapping[str, object]) -> list[Located]:
    """Check that settings by tool are of tools that are taken, and that keys have a tool that sends them."""
    only, effects = _texts(entry.get("only")), entry.get("effects")
    found: list[Located] = [
        ((key, tool), "is not one of the tools that 'only' takes")
        for key in ("effects", "errors")
        for tool in _mapping(entry.get(key))
        if only and tool not in only
    ]
    named = list(_mapping(effects).values()) if isinstance(effects, dict | None) else [UNREADABLE]
    return [*found, *_key_faults(entry, [entry.get("effect"), *named])]


def _key_faults(entry: Mapping[str, object], effects: Sequence[object]) -> list[Located]:
    """Check that a validity of keys is that of keys that are sent; `effects` are all that the entry names."""
    unknown = any(isinstance(effect, Unreadable) for effect in effects)
    if entry.get("key_valid") is None or unknown or "keyed" in effects:
        return []
    return [(("key_valid",), "belongs to the effect 'keyed'; the other side knows no key of other tools")]


def find_activity_faults(entry: Mapping[str, object]) -> list[Located]:
    """Check that the tool has a name, its schema is that of arguments, and each of these has its position."""
    activity = entry.get("activity")
    type_name = activity.get("name") if isinstance(activity, dict) else None
    found: list[Located] = []
    if entry.get("name") is None and isinstance(type_name, str) and not is_name(type_name):
        found.append((("activity", "name"), f"{type_name!r} cannot be the name of a tool; set the tool's 'name'"))
    if _texts(entry.get("sensitive")):
        found.append((("sensitive",), _IN_CLEAR))
    return [*found, *_key_faults(entry, [entry.get("effect")]), *_schema_faults(entry), *_position_faults(entry)]


_IN_CLEAR = (
    "Temporal carries the arguments of an activity, and its history keeps them as they are; call it by 'python' or "
    "'http' instead, or hand on a reference to what is sensitive"
)


def find_http_faults(entry: Mapping[str, object]) -> list[Located]:
    """Check that the schema is that of arguments, and that those in address and query are known."""
    schema = entry.get("input_schema")
    known, in_url = _properties(schema), _url_arguments(entry)
    found = [*_key_faults(entry, [entry.get("effect")]), *_schema_faults(entry)]
    if known is not None and isinstance(schema, dict):
        required = _texts(schema.get("required", ()))
        found += [
            (("http", "url"), f"the argument {argument!r} must be a required property of input_schema")
            for argument in in_url
            if argument not in known or (required is not None and argument not in required)
        ]
    for index, argument in enumerate(_items(entry.get("query"))):
        if not isinstance(argument, str):
            continue
        if known is not None and argument not in known:
            found.append((("query", index), f"{argument!r} is not a property of input_schema"))
        elif argument in in_url:
            found.append((("query", index), f"{argument!r} is in the address already"))
    return found


def _schema_faults(entry: Mapping[str, object]) -> list[Located]:
    schema = entry.get("input_schema")
    if not isinstance(schema, dict):
        return []
    found: list[Located] = []
    if schema.get("type") not in ("object", UNREADABLE):
        found.append((("input_schema",), "must be the JSON Schema of an object, with 'type: object'"))
    known = _properties(schema)
    if known is not None:
        found += [
            (("input_schema",), f"the sensitive argument {argument!r} is not one of its properties")
            for argument in _items(entry.get("sensitive"))
            if isinstance(argument, str) and argument not in known
        ]
    return found


def _position_faults(entry: Mapping[str, object]) -> list[Located]:
    known, arguments = _properties(entry.get("input_schema")), entry.get("arguments")
    if not isinstance(arguments, list | tuple):
        return []
    names = [argument if isinstance(argument, str) else None for argument in arguments]
    found: list[Located] = [
        (("arguments", index), f"{name!r} is not a property of input_schema")
        for index, name in enumerate(names)
        if known is not None and name is not None and name not in known
    ]
    found += [(("arguments", *place), message) for place, message in find_repetitions(names)]
    if known is not None and None not in names:
        found += [
            (("arguments",), f"the property {name!r} of input_schema has no position and would be lost")
            for name in known
            if name not in names
        ]
    return found


def _properties(schema: object) -> Mapping[str, object] | None:
    """Return the arguments of a JSON Schema; `None` when they are not known, as when it is for no object."""
    if not isinstance(schema, dict):
        return None
    nothing: dict[str, object] | None = {} if schema.get("type", "object") == "object" else None
    properties = schema.get("properties", nothing)
    return properties if isinstance(properties, dict) else None


def _url_arguments(entry: Mapping[str, object]) -> tuple[str, ...]:
    """Return the arguments that the address takes; none when it cannot be read."""
    http = entry.get("http")
    url = http.get("url") if isinstance(http, dict) else None
    try:
        return find_arguments(url) if isinstance(url, str) else ()
    except ValueError:
        return ()


def _items(value: object) -> list[object] | tuple[object, ...]:
    return value if isinstance(value, list | tuple) else ()


def _texts(value: object) -> list[str] | None:
    """Return the texts of `value`; `None` unless all of it can be read."""
    texts = [item for item in _items(value) if isinstance(item, str)]
    return texts if isinstance(value, list | tuple) and len(texts) == len(value) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _is_filled(value: object) -> bool:
    return isinstance(value, dict) and bool(value)
