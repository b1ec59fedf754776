"""Channels on which people hear of requests: what the file of channels says."""

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mandate.workflows.contracts.base import Name, Spec
from mandate.workflows.contracts.faults import find_repeated, refuse
from mandate.workflows.contracts.policy import Group
from mandate.workflows.contracts.request import RequestKind
from mandate.workflows.contracts.templates import SECRET_START, find_secrets

Occasion = Literal["asked", "reminder", "escalated"]
"""Reason to tell people of a request: it is new | they have not answered | others have not, it is theirs to answer."""


_ADDRESS = "must begin with https://, or with http:// when the host is localhost or a loopback address"
_NOT_IN_ADDRESS = re.compile(r"[\s\\\x00-\x1f\x7f]")


class Filters(Spec):
    """A channel's name and what is told on it; a filter that is left out lets everything through."""

    name: Name = Field(description="Names the channel in logs and failures.")
    groups: tuple[Group, ...] | None = Field(
        default=None,
        min_length=1,
        description="Only requests that wait for one of these groups; `anyone` for those that wait for nobody named.",
    )
    kinds: tuple[RequestKind, ...] | None = Field(
        default=None, min_length=1, description="Only requests of these kinds, for example `approval`."
    )
    occasions: tuple[Occasion, ...] | None = Field(
        default=None, min_length=1, description="Only on these occasions: `asked`, `reminder`, `escalated`."
    )


class LogChannel(Filters):
    """One line of the worker's log a notice."""

    kind: Literal["log"] = Field(description="What it is: log, webhook or slack.")


class WebhookChannel(Filters):
    """One signed POST a notice."""

    kind: Literal["webhook"] = Field(description="What it is: log, webhook or slack.")
    url: str = Field(repr=False, description="Where notices are posted; may hold `${secret:NAME}`.")
    secret: str = Field(repr=False, description="What the signature is made with, as `${secret:NAME}`.")

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        return _check_address(url)

    @field_validator("secret")
    @classmethod
    def _is_reference(cls, secret: str) -> str:
        return _check_reference(secret)


class SlackChannel(Filters):
    """One message of an incoming webhook a notice; many notices at once share one."""

    kind: Literal["slack"] = Field(description="What it is: log, webhook or slack.")
    url: str = Field(
        repr=False, description="Address of the incoming webhook, as `${secret:NAME}`: who has it can post."
    )

    @field_validator("url")
    @classmethod
    def _is_reference(cls, url: str) -> str:
        return _check_address(_check_reference(url))


ChannelSpec = Annotated[LogChannel | WebhookChannel | SlackChannel, Field(discriminator="kind")]


class ChannelsFile(Spec):
    """The file of channels."""

    channels: tuple[ChannelSpec, ...] = Field(
        min_length=1, description="All of them hear of every request that their filters let through."
    )

    @field_validator("channels")
    @classmethod
    def _names_differ(cls, channels: tuple[ChannelSpec, ...]) -> tuple[ChannelSpec, ...]:
        refuse(
            [
                ((again, "name"), f"{name!r} is the name of channels[{first}] too; each channel has its own")
                for again, name, first in find_repeated([channel.name for channel in channels])
            ]
        )
        return channels


def find_address_fault(url: str) -> str | None:
    """Return the fault in the address of a channel, its secrets in place; never quote it."""
    if not url.isascii() or _NOT_IN_ADDRESS.search(url):
        return "must be an address without spaces, backslashes and characters outside of ASCII"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return _ADDRESS
    if not host or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not _is_loopback(host)):
        return _ADDRESS
    if parts.username is not None or parts.password is not None:
        return "must not hold a user and a password"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_address(url: str) -> str:
    fault = None if find_secrets(url) else find_address_fault(url)
    if fault is not None:
        raise ValueError(fault)
    return url


def _check_reference(text: str) -> str:
    if SECRET_START not in text:
        raise ValueError("is a secret and does not stand in a file: write '${secret:NAME}'")
    find_secrets(text)
    return text
