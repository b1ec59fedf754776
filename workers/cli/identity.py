"""Who acts on the command line."""

import subprocess
from typing import TYPE_CHECKING

from workers.cli.errors import CliError
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.cli.output import Output

GIT_SECONDS = 5.0


def person(settings: Settings, by: str | None) -> str:
    """`by` if it was given, else `MANDATE_USER`, else git's `user.email`, else the login name and host.

    Raises:
        CliError: it is empty, or a placeholder that was not filled in.
    """
    from workflows.rules.answering import PLACEHOLDERS

    name = (by if by is not None else settings.user or _git() or _system()).strip()
    if not name:
        raise CliError("--by is empty; say who you are with it, or with MANDATE_USER")
    if name in PLACEHOLDERS:
        raise CliError(f"--by {name!r} stands for your own name; put that in its place")
    return name


def announce(out: "Output", by: str) -> None:
    """Says on stderr under whose name things are done, which nobody has typed as a rule."""
    out.note(f"as {by}")


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
    import os
    import pwd
    import socket

    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        login = str(os.getuid())
    return f"{login}@{socket.gethostname()}"
