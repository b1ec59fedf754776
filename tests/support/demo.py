"""What tests of `mandate demo` share."""

import asyncio
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from mandate.workers.dev_server import lease
from tests.support.processes import PROJECT, Process


def npx(folder: Path, does: str) -> dict[str, str]:
    """An environment whose `npx` is a script."""
    found = folder / "bin" / "npx"
    found.parent.mkdir(exist_ok=True)
    found.write_text(f"#!/bin/sh\n{does}\n")
    found.chmod(0o755)
    return {"PATH": f"{found.parent}:{os.environ['PATH']}"}


async def facts_of(demo: Process) -> dict[str, Any]:
    assert await demo.ended() == 0, demo.stderr()
    found: dict[str, Any] = json.loads(demo.stdout())
    return found


def command_of(said: str, words: str) -> str:
    """The command with `words` as it was printed, on however many lines."""
    commands = re.findall(r"^  \S(?:.*\\\n)*.*$", said, re.MULTILINE)
    return next(command.strip() for command in commands if words in command)


async def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What comes of a command in another terminal, whose user has another name and knows of no state folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MANDATE_", "TEMPORAL_"))}
    environment |= {"MANDATE_USER": "somebody@else.example", "HOME": str(folder)}
    return await asyncio.to_thread(
        subprocess.run, ["sh", "-c", command], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )


async def server_is_gone(folder: Path, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while lease.keeper_lives(folder) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return not lease.keeper_lives(folder)
