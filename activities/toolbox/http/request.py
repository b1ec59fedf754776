"""One HTTP request made of a template and arguments: pure functions; arguments never reach scheme, host or port."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

import httpx2
from pydantic import JsonValue

from mandate.workflows.contracts import templates
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import HttpBinding
from mandate.workflows.contracts.tool_entry import find_header_fault
from mandate.workflows.rules.names import find_clash
from mandate.workflows.rules.surrogates import is_encodable

_TEMPLATE = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?")
_PLACEHOLDER = re.compile(r"(\$?)\{([^{}]+)\}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\U0010ffff]*")
_BODYLESS = ("GET", "HEAD", "DELETE")


@dataclass(frozen=True, slots=True)
class RunValues:
    """Values of a call that its request may name; whatever is in them is data."""

    key: str
    workflow_id: str
    requester: str | None

    def find(self, name: str) -> str | None:
        """Return a value by its name; `None` for a name that is not known.

        Raises:
            ValueError: the run has no such value.
        """
        match name:
            case templates.KEY:
                return self.key
            case templates.WORKFLOW_ID:
                return self.workflow_id
            case templates.REQUESTER if self.requester is None:
                raise ValueError(
                    "the request names '${run.requester}', and the start of this run does not say who asks"
                )
            case templates.REQUESTER:
                return self.requester
            case _:
                return None


NO_RUN = RunValues("", "", None)


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request, ready but for its headers."""

    method: str
    url: httpx2.URL
    body: bytes | None
    """JSON, or `None` when there is none."""


def check_binding(binding: HttpBinding, schema: JsonObject) -> None:
    """Refuse a request template that no call could be made of; for the time when agent files are loaded.

    Raises:
        ValueError: a placeholder outside path and query or one that is no required argument, a `query` entry that is
            no argument, a header that is not the author's to set, or an argument of a GET or HEAD that would need a
            body.
    """
    template = _parse(binding.url)
    properties = schema.get("properties")
    known = tuple(properties) if isinstance(properties, dict) else ()
    required = schema.get("required")
    in_path = [name for mark, name in _PLACEHOLDER.findall(template["path"] + (template["query"] or "")) if not mark]
    for name in in_path:
        if name not in known or not isinstance(required, list) or name not in required:
            raise ValueError(f"url: {{{name}}} must be a required property of input_schema")
    for name in binding.query:
        if name not in known:
            raise ValueError(f"query: {name!r} is not a property of input_schema")
    for name in binding.headers:
        check_header(name, "")
    unsent = [name for name in known if name not in in_path and name not in binding.query]
    if binding.method in ("GET", "HEAD") and unsent:
        raise ValueError(f"{binding.method} has no body: put {unsent[0]!r} into the url or into 'query'")


def check_header(name: str, value: str) -> None:
    """Raise `ValueError` for a header that HTTP does not allow or that is not the author's to set."""
    fault = find_header_fault(name)
    if fault is not None:
        raise ValueError(f"headers: {name!r} {fault}")
    if not _HEADER_VALUE.fullmatch(value) or not is_encodable(value):
        raise ValueError(f"headers: the value of {name!r} holds characters that a header cannot have")


def build_call(binding: HttpBinding, arguments: JsonObject, values: RunValues = NO_RUN) -> HttpCall:
    """Build the request for one call: path and query values percent-encoded, what is left as the JSON body.

    Raises:
        ValueError: a path argument is missing, empty, no text, number or boolean, or would change the path; an
            argument has the name of a fixed field; or the run lacks a value that the template names.
    """
    template = _parse(binding.url)
    used: set[str] = set(binding.query)

    def fill(placeholder: re.Match[str]) -> str:
        name = placeholder[2]
        if placeholder[1] and (value := values.find(name)) is not None:
            return quote(value, safe="")
        used.add(name)
        return placeholder[1] + _path_value(name, arguments)

    path = _PLACEHOLDER.sub(fill, template["path"])
    if any(part in {".", ".."} for segment in path.split("/") for part in re.split(r"[/\\]", unquote(segment))):
        raise ValueError("a path argument must not be or hold the path segments '.' and '..'")
    query = [text for text in (_PLACEHOLDER.sub(fill, template["query"] or "").removeprefix("?"),) if text]
    query += [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in _query(binding, arguments)]
    rest = {name: value for name, value in arguments.items() if name not in used}
    content = _add_fixed(rest, binding.body, values)
    body = None if not content and binding.method in _BODYLESS else json.dumps(content, ensure_ascii=False).encode()
    address = f"{template['scheme']}://{template['authority']}{path or '/'}{'?' if query else ''}{'&'.join(query)}"
    try:
        return HttpCall(binding.method, httpx2.URL(address), body)
    except httpx2.InvalidURL as error:
        raise ValueError(f"the arguments make no valid URL: {error}") from None


def _add_fixed(rest: JsonObject, fixed: JsonObject, values: RunValues) -> JsonObject:
    """Return the fixed fields of a body, filled in, and the arguments; receivers must not take one for another."""
    if not fixed:
        return rest
    clash = next((name for name in rest if name in fixed or find_clash((name,), fixed)), None)
    if clash is not None:
        raise ValueError(f"the argument {clash!r} is a field that the agent file has fixed")
    return {**{name: _fill_json(value, values) for name, value in fixed.items()}, **rest}


def _fill_json(value: JsonValue, values: RunValues) -> JsonValue:
    match value:
        case str():
            return templates.fill_references(value, values.find)
        case list():
            return [_fill_json(item, values) for item in value]
        case dict():
            return {name: _fill_json(item, values) for name, item in value.items()}
        case _:
            return value


def _parse(url: str) -> re.Match[str]:
    template = _TEMPLATE.fullmatch(url)
    if template is None:
        raise ValueError("url: must be http(s)://host/path without a fragment")
    if not template["authority"] or re.search(r"[{}@\\\s%]", template["authority"]):
        raise ValueError("url: the host must be written out, without placeholders and credentials")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template["path"] + (template["query"] or ""))):
        raise ValueError("url: '{' and '}' stand only around the name of an argument")
    return template


def _path_value(name: str, arguments: JsonObject) -> str:
    value = arguments.get(name)
    if value is None or value == "":
        raise ValueError(f"the argument {name!r} is part of the URL and must not be empty")
    if isinstance(value, dict | list):
        raise ValueError(f"the argument {name!r} is part of the URL: it must be a text, a number or a boolean")
    return quote(_scalar(value), safe="")


def _query(binding: HttpBinding, arguments: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield names and values; a list repeats its name, null is left out."""
    for name in binding.query:
        value = arguments.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise ValueError(f"the argument {name!r} goes into the query: objects and nested lists cannot")
            if item is not None:
                yield name, _scalar(item)


def _scalar(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)
