"""The first exchange with an MCP server, for finding out whether a command starts one."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence

from mandate.activities import child_processes

_VARIABLES = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")
"""The few that MCP servers are given by the SDK, whose import takes longer than an answer."""
_CLIENT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "mandate", "version": "1"}}
_HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _CLIENT}


async def starts_server(command: Sequence[str]) -> bool:
    """Tell whether `command` starts an MCP server over stdio; it is killed then, and when the caller is cancelled.

    Takes as long as the command does.

    Raises:
        OSError: the command cannot be started.
    """
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child_processes.register(process.pid)
    try:
        process.stdin.write(json.dumps(_HELLO).encode() + b"\n")
        return b'"result"' in await process.stdout.readline()
    finally:
        child_processes.send(process.pid, signal.SIGKILL)
        child_processes.release(process.pid)
        await process.wait()
