"""Hosts that HTTP tools may reach, and their addresses."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx2

from mandate.activities.toolbox.http.public_address import is_public

_ENTRY = re.compile(r"(private:)?(\*\.)?(\[[0-9a-fA-F:.]+\]|[^\[\]:/@*\s?#]+)(?::(\d{1,5}))?")

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, best first; raises `OSError` when there are none."""


class HostRefused(Exception):
    """A request to a host or address that the worker does not allow."""


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    subdomains: bool
    port: int | None
    private: bool

    def covers(self, host: str, port: int, default_port: int) -> bool:
        named = host.endswith(f".{self.host}") if self.subdomains else host == self.host
        return named and port == (self.port or default_port)


async def look_up(host: str, port: int) -> Sequence[str]:
    """Look up addresses with the system's resolver."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in infos))


class AllowedHosts:
    """Hosts that tools may reach, as the worker's settings name them.

    `api.example.com` allows the scheme's own port, `api.example.com:8443` only that one, `*.example.com` every
    subdomain but not `example.com`. Addresses that are not public (loopback, private, link-local and the like) are
    reached only if an entry names them literally (`127.0.0.1:8080`, `localhost:8080`) or says that the name may lead
    to them: `private:tickets.internal:8080`.

    Raises:
        ValueError: an entry of another form.
    """

    def __init__(self, entries: Sequence[str], look_up: LookUp = look_up) -> None:
        self._entries = tuple(entries)
        self._rules = tuple(_rule(entry) for entry in entries)
        self._look_up = look_up

    async def addresses(self, url: httpx2.URL) -> Sequence[str]:
        """Return the addresses that a request to `url` may connect to; it must use these and look up nothing again.

        Raises:
            HostRefused: the host is not allowed, or one of its addresses is not public and may not be reached.
            OSError: the name is not known.
        """
        host = find_host(url)
        default_port = 443 if url.scheme == "https" else 80
        port = url.port or default_port
        rules = [rule for rule in self._rules if rule.covers(host, port, default_port)]
        if not rules:
            allowed = ", ".join(self._entries) or "none"
            raise HostRefused(
                f"host '{host}:{port}' is not allowed; MANDATE_HTTP_HOSTS of the worker allows: {allowed}"
            )
        addresses = (host,) if _is_address(host) else await self._look_up(host, port)
        if not any(rule.private for rule in rules):
            for address in addresses:
                if not is_public(address):
                    raise HostRefused(
                        f"host {host!r} leads to {address}, which is not public; allow it as 'private:{host}:{port}'"
                    )
        return addresses


def find_host(url: httpx2.URL) -> str:
    """Return the lower-case ASCII name or bare address, without the dot that ends a full name."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _rule(entry: str) -> _Rule:
    parts = _ENTRY.fullmatch(entry)
    try:
        if parts is None:
            raise ValueError
        host = find_host(httpx2.URL(f"http://{parts[3]}"))
    except (ValueError, httpx2.InvalidURL):
        raise ValueError(
            f"allowed host {entry!r} must be 'host', 'host:port', '*.domain' or one of them after 'private:'"
        ) from None
    literal = _is_address(host) or host == "localhost"
    port = int(parts[4]) if parts[4] else None
    return _Rule(host, parts[2] is not None, port, parts[1] is not None or (literal and parts[2] is None))
