"""Endpoints of model providers: what the file of providers says."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from mandate.workflows.contracts.base import Spec
from mandate.workflows.contracts.faults import Located, refuse
from mandate.workflows.contracts.route import PROVIDERS
from mandate.workflows.contracts.templates import SECRET_START, find_secrets
from mandate.workflows.contracts.tool_entry import Confidential, find_header_fault

EndpointProtocol = Literal["openai.chat", "openai.responses", "anthropic.messages"]

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NOT_IN_ADDRESS = re.compile(r"[\s\\\x00-\x1f\x7f]")
_SECRET_NAME = re.compile(
    r"authorization|api[-_]?key|^key$|credential|passw|secret|token|cookie|signature|^sig$", re.IGNORECASE
)
_OWN_HEADERS = ("content-type", "content-encoding", "accept", "accept-encoding")

PATHS: Mapping[EndpointProtocol, str] = {
    "openai.responses": "/responses",
    "openai.chat": "/chat/completions",
    "anthropic.messages": "/v1/messages",
}
"""Path of each protocol after the base URL."""


def _check_key(key: str) -> str:
    if SECRET_START not in key:
        raise ValueError("is a secret and does not stand in a file: write '${secret:NAME}'")
    find_secrets(key)
    return key


def find_url_fault(url: str) -> str | None:
    """Return the fault in a base URL; never quote it."""
    if SECRET_START in url:
        return "secrets are resolved in 'key' and in header values only, never in an address"
    if not url.isascii() or _NOT_IN_ADDRESS.search(url):
        return "must be an address without spaces, backslashes and characters outside of ASCII"
    if "{" in url or "}" in url:
        return "has braces; write the names of your own account in their place"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not an address with a host and, where it has one, a port from 0 to 65535"
    if parts.scheme not in {"http", "https"} or not host:
        return "must begin with http:// or https:// and a host, for example https://api.example.com/v1"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user and a password; write the key as 'key' or as a header"
    if parts.fragment or url.endswith("#"):
        return "must end before '#'"
    if parts.query or url.endswith("?"):
        return "must end before '?'; what follows belongs to 'query'"
    return None


class Endpoint(Spec):
    """Server of models that speaks one of the protocols; models of the name `<endpoint>:<model>` are asked there."""

    protocol: EndpointProtocol = Field(
        description="What it speaks: openai.chat, openai.responses or anthropic.messages."
    )
    base_url: str = Field(
        repr=False, description="Address before the protocol's own path, for example `https://host/v1`."
    )
    key: Annotated[str, AfterValidator(_check_key)] | None = Field(
        default=None, repr=False, description="Sent as `Authorization: Bearer ...`: `${secret:NAME}`."
    )
    headers: dict[str, Confidential] = Field(
        default={}, repr=False, description="Sent with every request; `${secret:NAME}` is resolved by the worker."
    )
    query: dict[str, str] = Field(default={}, description="Sent in the address of every request.")
    max_tokens_field: MaxTokensField | None = Field(
        default=None,
        description="Field that bounds the answer, for `openai.chat`; left out: max_completion_tokens.",
    )
    prices_as: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_-]*$",
        description="Provider whose list prices hold here, as genai-prices calls it, for example `azure`.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if (fault := find_url_fault(url)) is not None:
            raise ValueError(fault)
        return url

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse([*self._path_faults(), *self._header_faults(), *self._query_faults()])
        return self

    @property
    def confidential(self) -> tuple[str, ...]:
        """Texts of it that may name secrets."""
        return (*((self.key,) if self.key is not None else ()), *self.headers.values())

    def _path_faults(self) -> Iterator[Located]:
        path = urlsplit(self.base_url).path.rstrip("/")
        ends = next((end for end in PATHS.values() if path.endswith(end)), None)
        if ends is not None:
            yield ("base_url",), f"ends in {ends!r}, which the protocol adds by itself; leave it out"
        elif self.protocol == "anthropic.messages" and path.endswith("/v1"):
            yield ("base_url",), "ends in '/v1', which the protocol 'anthropic.messages' adds by itself; leave it out"
        if self.max_tokens_field is not None and self.protocol != "openai.chat":
            yield ("max_tokens_field",), f"belongs to the protocol 'openai.chat', not to {self.protocol!r}"

    def _header_faults(self) -> Iterator[Located]:
        seen = dict[str, str]()
        for name, value in self.headers.items():
            if fault := find_header_fault(name):
                yield ("headers", name), fault
            elif name.lower() in _OWN_HEADERS:
                yield ("headers", name), "is set by Mandate"
            elif name.lower() in seen:
                yield ("headers", name), f"is the same header as {seen[name.lower()]!r}"
            elif name.lower() == "authorization" and self.key is not None:
                yield ("headers", name), "is what 'key' is sent as; write one of the two"
            elif _SECRET_NAME.search(name) and SECRET_START not in value:
                yield ("headers", name), "is a secret and does not stand in a file: write '${secret:NAME}'"
            elif not value.isprintable():
                yield ("headers", name), "holds characters that a header cannot have"
            seen.setdefault(name.lower(), name)

    def _query_faults(self) -> Iterator[Located]:
        for name, value in self.query.items():
            if not name:
                yield ("query", name), "is not a name"
            elif SECRET_START in value or _SECRET_NAME.search(name):
                yield ("query", name), "must hold no secret: addresses are logged; send it as 'key' or as a header"


class ProvidersFile(Spec):
    """The file of providers."""

    endpoints: dict[str, Endpoint] = Field(description="Endpoints by name: what stands before `:` in a model's name.")

    @model_validator(mode="before")
    @classmethod
    def _names_are_free(cls, value: object) -> object:
        endpoints = value.get("endpoints") if isinstance(value, dict) else None
        if isinstance(endpoints, dict):
            refuse([(("endpoints", name), fault) for name in endpoints if (fault := _find_name_fault(str(name)))])
        return value


def _find_name_fault(name: str) -> str | None:
    if name == "scripted":
        return "is built in: scripts play its models; give the endpoint another name"
    if name in PROVIDERS:
        way = f"its address is {name.upper()}_BASE_URL, or '{name}_base_url' in mandate.yaml"
        return f"is built in, and {way}; give the endpoint another name"
    if not _NAME.fullmatch(name):
        return "is not a name of an endpoint: a small letter, then up to 63 small letters, digits, '_' and '-'"
    return None
