"""Backup and restore of both databases with runs waiting, and a new worker version while runs go on."""

import asyncio
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.binary import find_binary
from mandate.workflows.contracts.run import RunStatus
from tests.support.ports import free_port
from tests.support.postgres import PASSWORD, binaries, running_postgres
from tests.support.processes import Processes, processes

TOOLS = '''
from pathlib import Path

from mandate import ToolContext, tool

@tool(effect="once", timeout="20s")
def send(to: str, context: ToolContext) -> str:
    """Send a letter."""
    with Path({journal!r}).open("a") as journal:
        journal.write(to + "\\n")
    return "sent"
'''
AGENT = """
name: letters
instructions: Send what is asked.
models: [scripted:letters.script.yaml]
tools: [{python: "letter_tools:send"}]
policy: [{id: ask, match: {tools: [send]}, verdict: ask, approvers: {users: [ann@example.com]}, expires: 24h}]
"""
SCRIPT = """
strict: false
turns:
  - call: [{send: {to: bob}}]
  - say: done
"""
PEOPLE = "people: [{name: ann@example.com}, {name: eve@example.com}]"


class Temporal:
    """Temporal's development server with its database in a file, as a process that can be killed."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Client:
        binary = await asyncio.to_thread(find_binary, lambda _: None, None)
        words = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port)]
        words += ["--db-filename", str(self.database), "--log-level", "error"]
        with self.database.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([str(binary), *words], stdout=log, stderr=log)
        async with asyncio.timeout(60):
            while True:
                try:
                    return await connect(address=self.address)
                except (RuntimeError, RPCError):
                    await asyncio.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def back_up(self, copy: Path) -> None:
        """Copy the database while the server writes to it."""
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)


def dump(store: str, file: Path) -> None:
    """Back the store up, as the page says."""
    folder = binaries()
    assert folder is not None
    subprocess.run([folder / "pg_dump", "--format=custom", f"--file={file}", store], check=True)


def load(store: str, file: Path) -> None:
    folder = binaries()
    assert folder is not None
    subprocess.run([folder / "pg_restore", "--no-owner", f"--dbname={store}", file], check=True)


def write_project(folder: Path, journal: Path) -> None:
    files = {
        "mandate.yaml": "task_queue: letters",
        "agents/letters.yaml": AGENT,
        "agents/letters.script.yaml": SCRIPT,
        "people.yaml": PEOPLE,
        "letter_tools.py": TOOLS.format(journal=str(journal)),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


async def is_waiting(started: Processes, *ids: str) -> None:
    """Wait until the runs have a request each in the inbox."""
    async with asyncio.timeout(60):
        while True:
            listed = started.mandate("inbox", "-o", "json")
            assert await listed.ended() == 0, listed.stderr()
            if all(f'"{workflow_id}' in listed.stdout() for workflow_id in ids):
                return
            await asyncio.sleep(0.2)


async def decide(started: Processes, request: str, *words: str) -> None:
    done = started.mandate(*words[:1], request, "--by", "ann@example.com", *words[1:])
    assert await done.ended() == 0, done.stdout() + done.stderr()


@pytest.mark.alone
async def test_what_was_done_after_the_backup_is_not_done_again(tmp_path: Path) -> None:
    """Temporal first, then the store, both while workers run: calls made since are in doubt, and a person is asked."""
    journal = tmp_path / "journal"
    journal.touch()
    write_project(tmp_path / "project", journal)
    temporal = Temporal(tmp_path / "temporal.db")
    async with running_postgres() as postgres:
        store = await postgres.new_database()
        client = await temporal.start()
        try:
            environment = {"TEMPORAL_ADDRESS": temporal.address, "MANDATE_FOLDER": str(tmp_path / "state")}
            with processes(tmp_path / "before", **environment, MANDATE_STORE=store) as started:
                started.cwd = tmp_path / "project"
                worker = await started.worker()
                agents = AgentClient(client, "letters")
                for workflow_id in ("asked-0", "asked-1"):
                    await agents.start("letters", "Write.", workflow_id=workflow_id, requester="eve@example.com")
                await is_waiting(started, "asked-0", "asked-1")

                temporal.back_up(tmp_path / "temporal.backup")
                # Since the backup of Temporal, one run has gone on: what it did is only in the store's backup.
                await decide(started, "asked-0:r1", "approve")
                first = await client.get_workflow_handle("asked-0").result()
                dump(store, tmp_path / "store.backup")
                worker.process.kill()

            # All is lost.
            temporal.kill()
            await postgres_drop(postgres, store)
            restored = await postgres.new_database()
            load(restored, tmp_path / "store.backup")
            (tmp_path / "restored").mkdir()
            (tmp_path / "temporal.backup").rename(tmp_path / "restored" / "temporal.db")
            temporal.database = tmp_path / "restored" / "temporal.db"
            client = await temporal.start()

            with processes(tmp_path / "after", **environment, MANDATE_STORE=restored) as started:
                started.cwd = tmp_path / "project"
                await started.worker()
                doctor = started.mandate("doctor")
                examined = await doctor.ended()
                await is_waiting(started, "asked-0", "asked-1")
                await decide(started, "asked-1:r1", "approve")
                second = await result_of(client, "asked-1")
                after_second = journal.read_text().splitlines()
                await decide(started, "asked-0:r1", "approve")
                # It was made before the loss, as the store knows and Temporal does not.
                await is_waiting(started, "asked-0:r2")
                shown = started.mandate("show", "asked-0:r2")
                await shown.ended()
                await decide(started, "asked-0:r2", "decide", "--choice", "happened", "--value", '"sent"')
                again = await result_of(client, "asked-0")
        finally:
            temporal.kill()

    assert first["status"] == "completed"
    assert examined == 0, doctor.stdout()
    assert (second["status"], again["status"]) == ("completed", "completed")
    assert after_second == ["bob", "bob"]
    assert journal.read_text().splitlines() == ["bob", "bob"]
    assert PASSWORD not in shown.stdout()


async def result_of(client: Client, workflow_id: str) -> Any:
    async with asyncio.timeout(60):
        return await client.get_workflow_handle(workflow_id).result()


async def postgres_drop(postgres: Any, store: str) -> None:
    import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415

    connection = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        await connection.execute(f"DROP DATABASE {store.rpartition('/')[2]} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.mark.alone
async def test_a_new_worker_version_takes_new_runs_and_the_old_one_ends_with_its_own(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    write_project(tmp_path / "project", journal)
    temporal = Temporal(tmp_path / "temporal.db")
    try:
        client = await temporal.start()
        binary = await asyncio.to_thread(find_binary, lambda _: None, None)
        environment = {"TEMPORAL_ADDRESS": temporal.address, "MANDATE_FOLDER": str(tmp_path / "state")}

        def set_current(build: str) -> None:
            words = ["worker", "deployment", "set-current-version", "--deployment-name", "letters", "--yes"]
            subprocess.run(
                [str(binary), *words, "--build-id", build, "--address", temporal.address],
                check=True,
                capture_output=True,
            )

        with processes(tmp_path / "commands", **environment) as started:
            started.cwd = tmp_path / "project"
            old = started.mandate("worker", "--deployment", "letters", "--build-id", "A", "--identity", "old")
            await old.said("Task queue")
            doctor = started.mandate("doctor")
            without_current = await doctor.ended()
            set_current("A")
            agents = AgentClient(client, "letters")
            await agents.start("letters", "Write.", workflow_id="early", requester="eve@example.com")
            await is_waiting(started, "early")

            new = started.mandate("worker", "--deployment", "letters", "--build-id", "B", "--identity", "new")
            await new.said("Task queue")
            set_current("B")
            await agents.start("letters", "Write.", workflow_id="late", requester="eve@example.com")
            await is_waiting(started, "late")
            await decide(started, "early:r1", "approve")
            await decide(started, "late:r1", "approve")
            results = [await result_of(client, name) for name in ("early", "late")]
            workers = {name: await identities(client, name) for name in ("early", "late")}
            old.send(signal.SIGTERM)
            code = await old.ended()
            after = started.mandate("doctor")
            examined = await after.ended()
    finally:
        temporal.kill()

    assert without_current == 1
    assert "none is the current one: no run begins" in doctor.stdout()
    assert [result["status"] for result in results] == [RunStatus.COMPLETED.value] * 2
    assert workers == {"early": {"old"}, "late": {"new"}}
    assert (code, examined) == (0, 0), after.stdout()


async def identities(client: Client, workflow_id: str) -> set[str]:
    """Who did the workflow tasks of a run."""
    events = client.get_workflow_handle(workflow_id).fetch_history_events()
    return {
        event.workflow_task_completed_event_attributes.identity
        async for event in events
        if event.HasField("workflow_task_completed_event_attributes")
    }
