"""One HTTP request made of a template and arguments: pure functions; arguments never reach scheme, host or port."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

import httpx2
from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import HttpBinding

_TEMPLATE = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?")
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OWN_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "idempotency-key")
_BODYLESS = ("GET", "HEAD", "DELETE")


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
    in_path = _PLACEHOLDER.findall(template["path"] + (template["query"] or ""))
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
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"headers: {name!r} is not a header name")
    if name.lower() in _OWN_HEADERS:
        raise ValueError(f"headers: {name!r} is set by Mandate")
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"headers: the value of {name!r} holds characters that a header cannot have")


def build_call(binding: HttpBinding, arguments: JsonObject) -> HttpCall:
    """Build the request for one call: path and query values percent-encoded, what is left as the JSON body.

    Raises:
        ValueError: a path argument is missing, empty, no text, number or boolean, or would change the path.
    """
    template = _parse(binding.url)
    used: set[str] = set(binding.query)

    def fill(placeholder: re.Match[str]) -> str:
        used.add(placeholder[1])
        return _path_value(placeholder[1], arguments)

    path = _PLACEHOLDER.sub(fill, template["path"])
    if any(part in {".", ".."} for segment in path.split("/") for part in re.split(r"[/\\]", unquote(segment))):
        raise ValueError("a path argument must not be or hold the path segments '.' and '..'")
    query = [text for text in (_PLACEHOLDER.sub(fill, template["query"] or "").removeprefix("?"),) if text]
    query += [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in _query(binding, arguments)]
    rest = {name: value for name, value in arguments.items() if name not in used}
    body = None if not rest and binding.method in _BODYLESS else json.dumps(rest, ensure_ascii=False).encode()
    address = f"{template['scheme']}://{template['authority']}{path or '/'}{'?' if query else ''}{'&'.join(query)}"
    try:
        return HttpCall(binding.method, httpx2.URL(address), body)
    except httpx2.InvalidURL as error:
        raise ValueError(f"the arguments make no valid URL: {error}") from None


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
