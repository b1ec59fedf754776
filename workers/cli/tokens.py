"""Signed tokens for what is done on the command line, from the command that prints them."""

import asyncio
from collections.abc import Mapping

from mandate.workers.cli.errors import CliError


async def token(command: str, told: Mapping[str, str], environment: Mapping[str, str], *, undone: str) -> str:
    """Return what `command` prints, which signs what `told` says; `undone` ends the sentence when it does not.

    Raises:
        CliError: it fails or prints nothing.
    """
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, env={**environment, **told}
    )
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise CliError(f"--token-command ended with exit code {process.returncode}; {undone}")
    printed = out.decode("utf-8-sig", errors="replace").strip()
    if not printed:
        raise CliError(f"--token-command printed no token; {undone}")
    return printed
