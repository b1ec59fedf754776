"""Setup of the demo: a folder of its own with a new shop, the agent's files and the logs of its workers."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mandate.activities import private_files
from mandate.activities.documents import read_document
from mandate.workers.cli.errors import CliError
from mandate.workers.dev_server.lease import try_lock
from mandate.workers.examples.shop_data import RULES, create_shop
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.people import normalize_name
from pydantic import JsonValue

AGENT = "shop"
GROUP = "finance"
"""People whom the agent asks."""
REQUESTER = "support@coffee.example"
"""The person who starts the run, and may therefore not decide on what it asks."""

PACE = "400ms"
"""Time that the scripted model takes to answer, so that a person can read along."""

PACKAGE = "@modelcontextprotocol/server-filesystem@2026.8.31"
CHECK_SECONDS = 5.0
"""Time that the search for the filesystem MCP server may hold the demo up."""

_HELLO: JsonObject = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "mandate", "version": "1"},
    },
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A demo's own folder."""

    folder: Path
    is_new: bool
    """Nobody has seen the demo with this state folder before."""

    @property
    def shop(self) -> Path:
        return self.folder / "shop.db"

    @property
    def agents(self) -> Path:
        return self.folder / "agents"

    @property
    def people(self) -> Path:
        return self.folder / "people.yaml"

    @property
    def channels(self) -> Path:
        return self.folder / "channels.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"


@dataclass(frozen=True, slots=True)
class RulesServer:
    """The MCP server from which the agent reads the return rules."""

    name: str
    command: tuple[str, ...]


SHIPPED = RulesServer(
    "the one that ships with the demo", ("python", "-m", "mandate.workers.examples.shop_rules_server")
)
FILESYSTEM = RulesServer(
    "the filesystem server, through npx", ("npx", "--offline", "-y", PACKAGE, str(RULES.absolute()))
)


def shipped_agents() -> Path:
    """Return the folder with the agent files of the demo: of the checkout, or inside the installed package."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "deploy" / "agents", package / "examples" / "agents"):
        if (folder / "shop.yaml").is_file():
            return folder
    raise CliError("the demo's agent file, deploy/agents/shop.yaml, is not here; run it from a clone of the project")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Stage]:
    """Make a folder below `folder` that no other demo uses at the moment: `demo`, or `demo-2`, `demo-3`, ..."""
    number = 1
    while True:
        own = folder / ("demo" if number == 1 else f"demo-{number}")
        is_new = not own.exists()
        private_files.claim_folder(own)
        with private_files.open_own(own / "lock") as lock:
            if try_lock(lock, fcntl.LOCK_EX):
                yield Stage(own.absolute(), is_new)
                return
        number += 1


def prepare(stage: Stage, source: Path, *, model: str, rules: RulesServer, paced: bool, person: str) -> None:
    """Write a shop as on its first day, the agent of `source` with `model` and `rules`, and `person` as its finance."""
    create_shop(stage.shop)
    stage.log.unlink(missing_ok=True)
    shutil.rmtree(stage.agents, ignore_errors=True)
    private_files.make_folder(stage.agents)
    for file in source.glob("shop*.script.yaml"):
        script = file.read_text(encoding="utf-8")
        private_files.write_own(stage.agents / file.name, f"delay: {PACE}\n{script}" if paced else script)
    asks: list[JsonValue] = [{"name": REQUESTER}] if normalize_name(person) != normalize_name(REQUESTER) else []
    _write(stage.people, {"people": [*asks, {"name": person, "groups": [GROUP]}]})
    # Nobody outside is to hear of a demo, whatever channels there are.
    _write(stage.channels, {"channels": [{"name": "log", "kind": "log"}]})
    agent = read_document(source / "shop.yaml").value
    assert isinstance(agent, dict)
    tools = agent["tools"]
    assert isinstance(tools, list)
    for tool in tools:
        if isinstance(tool, dict) and isinstance(server := tool.get("mcp"), dict):
            # Of the server in the file, which is not always the one that the demo can start.
            tool.pop("accepted", None)
            server["command"] = list(rules.command)
    # After a script comes the one that goes on where it does not.
    following = agent["models"] if model.startswith("scripted:") else []
    assert isinstance(following, list)
    _write(stage.agents / "shop.yaml", agent | {"models": [model, *following[1:]]})


def _write(path: Path, value: JsonObject) -> None:
    # JSON is YAML.
    private_files.write_own(path, f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")


async def find_rules_server(*, may_download: bool) -> RulesServer:
    """Return the filesystem server if npx can start it, cached or with `may_download` from npm; else ours.

    Takes as long as npx does; the caller sets the limit by cancelling.
    """
    if shutil.which("npx") is None:
        return SHIPPED
    reach = "--prefer-offline" if may_download else "--offline"
    # The few variables that MCP servers are given: what works here works in the worker.
    known = {
        name: os.environ[name] for name in ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER") if name in os.environ
    }
    return FILESYSTEM if await _answers(["npx", reach, "-y", PACKAGE, str(RULES.absolute())], known) else SHIPPED


async def _answers(command: list[str], environment: Mapping[str, str]) -> bool:
    """Return whether `command` starts an MCP server over stdio."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(_HELLO).encode() + b"\n")
            await process.stdin.drain()
        return b'"result"' in await process.stdout.readline()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
