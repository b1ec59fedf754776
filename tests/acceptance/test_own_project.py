"""Projects of users: the wheel in an environment of its own, their folders, their programs, their type checker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from uuid import uuid4

import pytest

from mandate.workers.dev_server.server import DevServer
from tests.support.processes import PROJECT, Process, children, lives

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
REQUESTER = "eve@example.com"


@dataclass(frozen=True)
class Wheel:
    """What was built from the checkout."""

    path: Path
    sdist: Path

    def files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.path) as packed:
            return {name: packed.read(name) for name in packed.namelist()}


def build(source: Path, target: str, folder: Path) -> Path:
    """Return the one distribution that hatch makes of `source`."""
    run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], source)
    return next(folder.glob("*.whl" if target == "wheel" else "*.tar.gz"))


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Return the output of a command that has to succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    folder = tmp_path_factory.mktemp("built")
    return Wheel(build(PROJECT, "wheel", folder), build(PROJECT, "sdist", folder))


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel and its dependencies, and nothing of the checkout."""

    programs: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHONUNBUFFERED": "1",
            "MANDATE_USER": REQUESTER,
        }

    @property
    def python(self) -> Path:
        return self.programs / "python"

    def mandate(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / "mandate", *words],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, folder: Path, name: str, *command: str) -> Process:
        """Start a program that goes on; its output is kept in `home`."""
        out, err = self.home / f"{name}.out", self.home / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [self.programs / command[0], *command[1:]],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return Process(process, out, err)


@pytest.fixture(scope="module")
def installed(wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("user")
    run([sys.executable, "-m", "venv", "--without-pip", "env"], folder)
    programs = folder / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel.path)], folder)
    own = run(
        [str(programs / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder
    ).strip()
    # The dependencies are those of the checkout. Its own .pth files, and so its folders, are not read from here.
    (Path(own) / "dependencies.pth").write_text(f"{SITE_PACKAGES}\n")
    (programs / "temporal").symlink_to(Path(sys.executable).parent / "temporal")
    return Installed(programs, folder)


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """Programs that are ended, each by its pid, after the test."""
    found: list[Process] = []
    yield found
    for each in found:
        if each.process.poll() is None:
            each.process.terminate()
        try:
            each.process.wait(40)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait(10)


def test_the_wheel_has_one_name_and_is_the_same_from_the_sdist(wheel: Wheel, tmp_path: Path) -> None:
    with tarfile.open(wheel.sdist) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = next(tmp_path.glob("mandate_agents-*"))

    again = Wheel(build(unpacked, "wheel", tmp_path / "again"), wheel.sdist)

    tracked = run(["git", "ls-files", "workflows", "activities", "workers"], PROJECT).split()
    files = wheel.files()
    assert {name.partition("/")[0] for name in files} == {"mandate", "mandate_agents-0.1.0.dist-info"}
    assert {f"mandate/{name}" for name in tracked if (PROJECT / name).is_file()} <= set(files)
    assert {"mandate/__init__.py", "mandate/py.typed"} <= set(files)
    assert files["mandate_agents-0.1.0.dist-info/licenses/deploy/LICENSE"].startswith(b"MIT License\n")
    assert again.files() == files


def test_the_page_of_a_run_is_rendered_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    code = (
        "from datetime import UTC, datetime; from mandate.workers.converter import data_converter;"
        "from mandate.workers.history.picture import Picture; from mandate.workers.history.record import Record;"
        "from mandate.workers.history.run_history import RunHistory; from mandate.workers.pages import run_page;"
        "from mandate.workers.history.timeline import Timeline;"
        "record = Record('shop-1', 'r', 'running', RunHistory(data_converter()), people=());"
        "print(run_page.__file__);"
        "print(run_page.render_run(Picture(record, Timeline(), datetime.now(UTC)), program='mandate'))"
    )

    found = run([str(installed.python), "-c", code], tmp_path, installed.environment)

    assert found.startswith(str(installed.home))
    assert "<h1><bdi>shop-1</bdi>" in found
    assert "prefers-color-scheme: dark" in found


def test_nothing_of_the_checkout_is_imported(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u; import mandate; print(mandate.__file__, *map(u.find_spec, ('workers', 'tests')))"
    )

    found = run([str(installed.python), "-c", code], tmp_path, installed.environment).split()

    assert Path(found[0]).is_relative_to(installed.home)
    assert found[1:] == ["None", "None"]


@pytest.mark.parametrize("options", [(), ("--team",)])
def test_the_demos_run_from_the_wheel(installed: Installed, tmp_path: Path, options: tuple[str, ...]) -> None:
    shown = installed.mandate(tmp_path, "demo", *options, "--fast", "--yes", "-o", "json")

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["status"] == "completed"


async def test_a_new_project_runs_as_it_is(installed: Installed, started: list[Process], tmp_path: Path) -> None:
    made = installed.mandate(tmp_path, "init", "shop", "-o", "json")
    shop = tmp_path / "shop"

    checked = installed.mandate(shop, "validate")
    # From a folder below: everything is found beside mandate.yaml.
    (shop / "notes").mkdir()
    running = installed.start(shop / "notes", "run", "mandate", "run", "refunds", "Order 81 broke.", "--id", "r81")
    started.append(running)
    await running.said("asks finance")
    before = sorted(shop.glob("refunds/*"))
    listed = await asyncio.to_thread(installed.mandate, shop, "inbox")
    approved = await asyncio.to_thread(installed.mandate, shop, "approve", "1")
    code = await running.ended()

    assert made.returncode == 0, made.stderr
    assert checked.returncode == 0, checked.stderr
    assert "2 rules, 3 examples: 3 of 3 as written" in checked.stdout
    assert "issue_refund order=81 amount=120.0?" in listed.stdout
    assert approved.returncode == 0, approved.stderr
    assert before == []
    assert code == 0, running.stderr()
    assert "Order 81: 120.0 EUR refunded." in running.stdout()
    assert [json.loads(file.read_text()) for file in shop.glob("refunds/*")] == [{"order": 81, "amount": 120.0}]


async def test_the_worker_of_a_run_is_there_where_none_polls_and_ends_with_it(
    installed: Installed, started: list[Process], tmp_path: Path
) -> None:
    installed.mandate(tmp_path, "init")
    running = installed.start(tmp_path, "left", "mandate", "run", "refunds", "Order 81 broke.", "--id", "left")
    started.append(running)
    await running.said("asks finance")
    own = children(running.pid)
    running.send(signal.SIGINT)
    left = await running.ended()
    worker = installed.start(tmp_path, "serving", "mandate", "worker")
    started.append(worker)
    await worker.said("Task queue")

    served = await asyncio.to_thread(installed.mandate, tmp_path, "run", "refunds", "Order 82 broke.")
    shown = await asyncio.to_thread(installed.mandate, tmp_path, "inbox", "-o", "json")

    assert (len(own), [lives(pid) for pid in own], left) == (1, [False], 130)
    assert "left running; come back with `mandate show left --follow`" in running.stderr()
    assert served.returncode == 0, served.stderr
    assert "Order 82: 20.0 EUR refunded." in served.stdout
    assert "started a worker" not in served.stderr
    assert [request["workflow_id"] for request in json.loads(shown.stdout)["requests"]] == ["left"]


async def test_a_worker_that_cannot_start_ends_the_command_before_a_run_begins(
    installed: Installed, tmp_path: Path
) -> None:
    installed.mandate(tmp_path, "init")
    with (tmp_path / "agents/refunds.yaml").open("a") as agent:
        agent.write("colour: red\n")

    done = await asyncio.to_thread(installed.mandate, tmp_path, "run", "refunds", "Order 82 broke.")

    assert (done.returncode, done.stdout) == (2, "")
    assert "error: the worker of this command did not start:\nagents/refunds.yaml:" in done.stderr
    assert "colour: is not a key that is known here" in done.stderr


def test_faults_of_the_project_file_end_commands_before_they_begin(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "mandate.yaml").write_text("task_queu: x\nopenai_api_key: hunter2\n")

    said = [installed.mandate(tmp_path, *words) for words in (["validate"], ["worker"], ["run", "a", "b"], ["inbox"])]
    as_json = installed.mandate(tmp_path, "validate", "-o", "json")

    first, second = said[0].stderr.splitlines()
    assert first.startswith("mandate.yaml:1:1: task_queu: is not a key that is known here; did you mean 'task_queue'?")
    assert second == (
        "mandate.yaml:2:1: openai_api_key: is a secret, and secrets are never in this file; "
        "set the variable OPENAI_API_KEY"
    )
    assert {(done.returncode, done.stdout, done.stderr) for done in said} == {(2, "", said[0].stderr)}
    assert as_json.returncode == 2
    assert json.loads(as_json.stderr)["faults"] == [first, second]


AGENT = """
name: books
instructions: Add what you are asked to add.
models: [scripted:books.script.yaml]
tools:
  - python: activities.my:add
  - python: activities.my:write_down
policy:
  - {id: writes, match: {tools: [write_down]}, verdict: ask, approvers: {groups: [clerks]}}
requester: anyone
"""

SCRIPT = """
turns:
  - call: [{add: {left: 40, right: 2}}]
  - call: [{write_down: {text: "40 + 2 = ${add}"}}]
  - say: Wrote it down.
"""

TOOLS = """
from pathlib import Path

from mandate import NotDone, ToolContext, check, tool
from workflows.names import FILE


@tool(effect="read")
def add(left: int, right: int) -> int:
    \"\"\"Add two numbers.\"\"\"
    return left + right


@tool(effect="keyed")
async def write_down(text: str, context: ToolContext) -> str:
    \"\"\"Write a line.\"\"\"
    if not text:
        raise NotDone("there is nothing to write")
    (Path(__file__).parents[1] / FILE).write_text(text)
    return f"attempt {context.attempt}"


@tool
def ping(host: str) -> bool:
    \"\"\"Call a host.\"\"\"
    return bool(host)


@check
def is_short(result: str) -> bool:
    return len(result) < 100
"""

CLIENT = """
import asyncio
import sys

from mandate import AgentClient, Decision, connect


async def main(text: str) -> None:
    client = AgentClient(await connect())
    run = await client.start("books", text, requester="eve@example.com")
    while not (found := [waiting for waiting in (await client.inbox()).runs if waiting.workflow_id == run.id]):
        await asyncio.sleep(0.1)
    asked = found[0].requests[0]
    decision = Decision(request=asked.id, digest=asked.digest, choice="approve", by="ann@example.com")
    receipt = await client.decide(run.id, decision)
    result = await run.result()
    print(receipt.status, result.status, result.output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""

USES = """
from typing import assert_type

from activities.my import add, is_short, ping, write_down
from mandate import AgentClient, ToolContext, connect

assert_type(add(1, 2), int)
assert_type(ping("a"), bool)
assert_type(is_short("a"), bool)

add("1", 2)  # type: ignore[arg-type]
ping(1)  # type: ignore[arg-type]
write_down()  # type: ignore[call-arg, unused-coroutine]
is_short()  # type: ignore[call-arg]


async def read(workflow_id: str) -> str:
    assert_type(await write_down("a", context=ToolContext.for_tests()), str)
    client = AgentClient(await connect(), 7)  # type: ignore[arg-type]
    result = await client.handle(workflow_id).result()
    steps: str = result.usage.model_calls  # type: ignore[assignment]
    return f"{result.status} {steps}"
"""


@pytest.fixture
def own(tmp_path: Path, temporal: DevServer) -> Path:
    """A project whose folders are called as those of the package, with all that it says in `mandate.yaml`."""
    files = {
        "mandate.yaml": f"""
            temporal_address: {temporal.address}
            task_queue: own-{uuid4().hex[:8]}
            agents: conf/agents
        """,
        "people.yaml": """
            people:
              - {name: eve@example.com}
              - {name: ann@example.com, groups: [clerks]}
        """,
        "conf/agents/books.yaml": AGENT,
        "conf/agents/books.script.yaml": SCRIPT,
        "activities/__init__.py": "",
        "activities/my.py": TOOLS,
        "workflows/names.py": 'FILE = "written.txt"\n',
        "workers/__init__.py": "",
        "workers/client.py": CLIENT,
        "workers/uses.py": USES,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(content).lstrip())
    return tmp_path


async def test_own_folders_may_have_the_names_of_the_package(
    installed: Installed, started: list[Process], own: Path
) -> None:
    worker = installed.start(own / "workers", "worker", "mandate", "worker")
    started.append(worker)
    await worker.said("Task queue")

    client = installed.start(own, "client", "python", "-m", "workers.client", "40 and 2")
    started.append(client)
    code = await client.ended()
    shown = await asyncio.to_thread(installed.mandate, own / "activities", "validate", "-o", "json")

    assert code == 0, client.stderr() + worker.stderr()
    assert client.stdout().split(maxsplit=2) == ["approved", "completed", "Wrote it down.\n"]
    assert (own / "written.txt").read_text() == "40 + 2 = 42"
    assert (shown.returncode, json.loads(shown.stdout)["agents"][0]["name"]) == (0, "books")


def test_files_of_users_are_typed(installed: Installed, own: Path) -> None:
    installed.mandate(own, "init", "shop")

    environment = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    checker = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={own / 'cache'}"]
    for folder, files in ((own, ["workers/uses.py", "workers/client.py"]), (own / "shop", ["tools.py"])):
        said = run([*checker, f"--python-executable={installed.python}", *files], folder, environment)

        assert said == f"Success: no issues found in {len(files)} source file{'s' * (len(files) > 1)}\n"
