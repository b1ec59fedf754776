"""The demo's own folder with a new shop, the agent's files and the worker's log; and the MCP server of its rules."""

import contextlib
import fcntl
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mandate.activities import private_files
from mandate.activities.documents import read_document
from mandate.activities.toolbox.mcp.handshake import starts_server
from mandate.workers.cli.errors import CliError
from mandate.workers.dev_server.lease import try_lock
from mandate.workers.examples.shop_data import RULES, create_shop
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.people import normalize_name

AGENT = "shop"
REQUESTER = "support@coffee.example"
"""The person who starts the run, and may therefore not decide on what it asks."""
FINANCE = "finance@coffee.example"
"""The person who answers at the terminal, unless they have said who they are: nobody's own address is needed here."""
PACE = "400ms"
"""Time that the scripted model takes to answer, so that a person can read along."""
SHIPPED, FILESYSTEM = "the one that ships with the demo", "the filesystem server, through npx"
_NPX = ("-y", "@modelcontextprotocol/server-filesystem@2026.8.31", str(RULES.absolute()))
_SERVERS = {
    SHIPPED: ["python", "-m", "mandate.workers.examples.shop_rules_server"],
    FILESYSTEM: ["npx", "--offline", *_NPX],
}
"""Commands of the MCP servers from which the agent can read the return rules."""


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """A folder that one demo uses at a time; `is_new` for the first demo with this state folder."""

    path: Path
    is_new: bool

    @property
    def shop(self) -> Path:
        return self.path / "shop.db"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell a worker of the files here."""
        files = {name.upper(): f"{name}.yaml" for name in ("budgets", "channels", "people")}
        files |= {"AGENTS": "agents", "PLANS": "plans", "POLICIES": "policies", "DEMO_SHOP": self.shop.name}
        return {f"MANDATE_{name}": str(self.path / file) for name, file in files.items()}


@contextlib.contextmanager
def claim_folder(state: Path) -> Iterator[DemoFolder]:
    """Hold a folder below `state` that no other demo uses at the moment: `demo`, or `demo-2`, `demo-3`, ..."""
    for number in itertools.count(1):
        path = state / ("demo" if number == 1 else f"demo-{number}")
        is_new = not path.exists()
        private_files.claim_folder(path)
        with private_files.open_own(path / "lock") as lock:
            if try_lock(lock, fcntl.LOCK_EX):
                yield DemoFolder(path.absolute(), is_new)
                return


def agent_files() -> Path:
    """Return the folder with the agent files of the demo: of the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "deploy" / "agents", package / "examples" / "agents"):
        if (folder / "shop.yaml").is_file():
            return folder
    raise CliError("the demo's agent file, deploy/agents/shop.yaml, is not here; run it from a clone of the project")


def prepare(folder: DemoFolder, *, model: str, rules: str, is_paced: bool, person: str) -> None:
    """Write a shop as on its first day, its agent with `model` and `rules`, and `person` as its finance."""
    source, agents = agent_files(), folder.path / "agents"
    create_shop(folder.shop)
    folder.log.unlink(missing_ok=True)
    shutil.rmtree(agents, ignore_errors=True)
    private_files.make_folder(agents)
    for file in source.glob("shop*.script.yaml"):
        script = file.read_text(encoding="utf-8")
        private_files.write_own(agents / file.name, f"delay: {PACE}\n{script}" if is_paced else script)
    write_surroundings(folder, person)
    agent = read_document(source / "shop.yaml").value
    assert isinstance(agent, dict)
    assert isinstance(agent["tools"], list)
    assert isinstance(agent["models"], list)
    for tool in agent["tools"]:
        if isinstance(tool, dict) and isinstance(server := tool.get("mcp"), dict):
            # Of the server in the file, which is not always the one that the demo can start.
            tool.pop("accepted", None)
            server["command"] = [*_SERVERS[rules]]
    # After a script comes the one that goes on where it does not.
    agent["models"] = [model, *(agent["models"][1:] if model.startswith("scripted:") else [])]
    _write(agents / "shop.yaml", agent)


def write_surroundings(folder: DemoFolder, person: str) -> None:
    """Write the people of the demo, `person` as its finance, and files that keep it apart from the working folder."""
    people: list[JsonValue] = [{"name": REQUESTER}] if normalize_name(person) != normalize_name(REQUESTER) else []
    _write(folder.path / "people.yaml", {"people": [*people, {"name": person, "groups": ["finance"]}]})
    # Nobody outside is to hear of a demo, whatever channels there are.
    _write(folder.path / "channels.yaml", {"channels": [{"name": "log", "kind": "log"}]})
    # Nor is it to use up a budget of the folder that it is started in, or to read the plans and policies there.
    _write(folder.path / "budgets.yaml", {"budgets": []})
    for name in ("plans", "policies"):
        private_files.make_folder(folder.path / name)
        private_files.tighten(folder.path / name)


def _write(path: Path, value: JsonObject) -> None:
    # JSON is YAML.
    private_files.write_own(path, f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")


async def find_rules_server(*, may_download: bool) -> str:
    """Return the filesystem server if npx can start it, from its cache or, with `may_download`, npm; else our own."""
    reach = "--prefer-offline" if may_download else "--offline"
    return FILESYSTEM if shutil.which("npx") and await starts_server(("npx", reach, *_NPX)) else SHIPPED
