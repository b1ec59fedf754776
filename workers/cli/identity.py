"""Identity on the command line: one name for who asks and for who decides."""

import os
import pwd
import socket
import subprocess
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.output import Output
from mandate.workers.settings import Settings
from mandate.workflows.contracts.request import By
from mandate.workflows.rules.commands import PLACEHOLDERS
from mandate.workflows.rules.plain_text import cut

GIT_SECONDS = 5.0
SHOWN_CHARACTERS = 60
"""Of a name that is refused."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The name under which a command acts."""

    name: str
    guessed_from: str | None = None
    """Source of the name when nobody has given it: `git`, or `the login name`."""

    def __str__(self) -> str:
        """Return the name as `ann@example.com (from git)`."""
        return f"{self.name} (from {self.guessed_from})" if self.guessed_from is not None else self.name


def person(settings: Settings, given: str | None, *, option: str = "--by") -> Identity:
    """Return who acts: as `option` says, else `MANDATE_USER`, else git's `user.email`, else the login name and host.

    Raises:
        CliError: the name is empty, a placeholder that was not filled in, or no name that decisions take.
    """
    found = _found(settings, given)
    name = found.name.strip()
    if not name:
        raise CliError(f"{option} is empty; say who you are with it, or with MANDATE_USER")
    if name in PLACEHOLDERS:
        raise CliError(f"{option} {name!r} stands for your own name; put that in its place")
    if not _is_name(name):
        form = "a name of 1 to 200 characters that can all be seen"
        raise CliError(
            f"{option} {cut(name, SHOWN_CHARACTERS)!r} is not {form}; say who you are with it, or with MANDATE_USER"
        )
    return Identity(name, found.guessed_from)


def announce(out: Output, who: Identity) -> None:
    """Say on stderr under whose name things are done, which nobody has typed as a rule."""
    out.note(f"as {who}")


def _found(settings: Settings, given: str | None) -> Identity:
    if given is not None:
        return Identity(given)
    if settings.user:
        return Identity(settings.user)
    email = _git()
    return Identity(email, "git") if email else Identity(_system(), "the login name")


def _is_name(name: str) -> bool:
    """Return whether `by` and `requester` take it."""
    try:
        TypeAdapter(By).validate_python(name)
    except ValidationError:
        return False
    return True


def _git() -> str | None:
    try:
        done = subprocess.run(
            ["git", "config", "user.email"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None


def _system() -> str:
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        login = str(os.getuid())
    return f"{login}@{socket.gethostname()}"
