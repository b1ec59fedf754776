"""A folder with agent files, a Temporal server of its own, and real commands that are typed there."""

import asyncio
import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.support import command_server
from tests.support.processes import PROJECT

BIN = Path(sys.executable).parent


OURS = ("mandate", "temporal-agent")
"""Programs of ours, which the server of commands runs."""

_SERVERS: list[tuple[str, subprocess.Popen[bytes]]] = []


async def _command_server() -> str:
    """The socket of this process's server of commands, which ends with it."""
    if not _SERVERS:
        folder = tempfile.mkdtemp(prefix="commands-")
        path = str(Path(folder) / "socket")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "MANDATE_"))
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.command_server", path],
            cwd=PROJECT,
            env=environment,
            # Nobody who waits for the end of these tests waits for it.
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(server.kill)
        _SERVERS.append((path, server))
    path, server = _SERVERS[0]
    async with asyncio.timeout(60):
        while not Path(path).exists():
            assert server.poll() is None, "the server of commands did not start"
            await asyncio.sleep(0.02)
    return path


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Place:
    """A server, agent files, and the environment of commands."""

    folder: Path
    address: str
    client: Client
    env: Mapping[str, str]

    async def start(self, *words: str, program: str = str(BIN / "mandate"), **env: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            program, *words, stdin=pipe, stdout=pipe, stderr=pipe, env={**self.env, **env}, cwd=self.folder
        )

    async def run(self, *words: str, stdin: str = "", program: str = str(BIN / "mandate"), **env: str) -> Done:
        """Run a command to its end, in a process that is forked from one with its imports."""
        if Path(program).name not in OURS:
            process = await self.start(*words, program=program, **env)
            return await _end(process, stdin)
        pipe = asyncio.subprocess.PIPE
        # -I -S: the one that asks needs nothing, and is started often.
        asking = (sys.executable, "-I", "-S", command_server.__file__, await _command_server(), program)
        process = await asyncio.create_subprocess_exec(
            *asking, *words, stdin=pipe, stdout=pipe, stderr=pipe, env={**self.env, **env}, cwd=self.folder
        )
        return await _end(process, stdin)

    @asynccontextmanager
    async def serving(self, agent: str) -> AsyncIterator[None]:
        """With `mandate worker`, from when it has said that it serves `agent`."""
        worker = await self.start("worker", "-o", "json", "--log-level", "error")
        try:
            await line_with(worker.stdout, agent)
            yield
        finally:
            worker.kill()
            await worker.wait()


async def _end(process: asyncio.subprocess.Process, stdin: str) -> Done:
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    """The first line that holds `text`."""
    assert stream is not None
    async with asyncio.timeout(60):
        while line := (await stream.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"no line with {text!r}")


@asynccontextmanager
async def new_place(
    folder: Path, files: Mapping[str, str], settings: Mapping[str, str] | None = None, **env: str
) -> AsyncIterator[Place]:
    """A place with these files by their paths, on a server with these dynamic `settings` beside our own."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "MANDATE_"))}
    async with run_private_server(extra_dynamic_config=settings) as server:
        its = {
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_CONFIG_FILE": str(folder / "none.toml"),
            "MANDATE_AGENTS": str(folder / "agents"),
            "MANDATE_FOLDER": str(folder / "state"),
        }
        yield Place(folder, server.address, await connect(address=server.address), {**kept, **its, **env})
