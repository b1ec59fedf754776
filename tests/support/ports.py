"""Ports for servers that are started later, or again and again."""

import secrets
import socket
from contextlib import suppress

UNUSED = range(20_000, 32_000)
"""Below those that the system gives to whoever connects, or asks for any port."""


def free_port() -> int:
    """A port of this machine that is free, and that nobody is given who does not ask for it."""
    while True:
        port = secrets.choice(UNUSED)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
