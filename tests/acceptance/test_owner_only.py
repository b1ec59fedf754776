"""What Mandate writes is for its owner only: whatever the umask says, and though somebody made it looser."""

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mandate.activities import private_files
from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import share_dev_server
from tests.support.agents import Site
from tests.support.demo import facts_of, npx
from tests.support.people import asked, write_people
from tests.support.processes import PROJECT, processes


@pytest.fixture(params=["000", "022"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of this process and of all that a test starts."""
    before = os.umask(int(request.param, 8))
    yield int(request.param, 8)
    os.umask(before)


def open_to_others(*folders: Path) -> dict[str, str]:
    """What others may read or write below `folders`, with its mode."""
    found = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode & 0o077 and not path.is_symlink():
                found[str(path)] = oct(mode)
    return found


def loosen(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


async def test_a_demo_leaves_nothing_to_others_and_tightens_what_is_there(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "deep" / "state"
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(state), **npx(tmp_path, "exit 1")) as started:
        await facts_of(started.mandate("demo", "--fast", "--yes", "-o", "json"))
        first = open_to_others(tmp_path / "deep")
        made = {path.name for path in state.rglob("*")}
        loosen(state)
        await facts_of(started.mandate("demo", "--fast", "--yes", "-o", "json"))
        second = open_to_others(state)

    assert first == {}
    assert {"temporal.db", "temporal.log", "store.db", "server.users", "shop.db", "worker.log", "lock"} <= made
    assert second == {}


async def test_server_worker_inbox_and_editor_leave_nothing_to_others(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, written = tmp_path / "state", tmp_path / "tmp"
    written.mkdir()
    people = write_people(tmp_path)
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import os, pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text().replace('120.0', '80.0')\n"
        "pathlib.Path(f'{path}~').write_text(path.read_text())\n"
        # As many editors do: a new file in place of the old one.
        "path.unlink()\n"
        "path.write_text(text)\n"
        f"pathlib.Path({str(tmp_path / 'modes')!r}).write_text(oct(path.stat().st_mode & 0o777))\n"
    )
    with await share_dev_server(state, on_progress=lambda _: None, ui=False) as server:
        client = await connect(address=server.address)
        site = Site(tmp_path, client, "agents", {"MANDATE_PEOPLE": str(people)})
        site.write("asks", [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}], policy=[])
        settings = {
            "MANDATE_FOLDER": str(state), "MANDATE_AGENTS": str(tmp_path / "agents"), "MANDATE_PEOPLE": str(people),
            "MANDATE_USER": "ann@example.com", "TMPDIR": str(written), "PYTHONPATH": str(PROJECT),
            "EDITOR": shlex.join([sys.executable, str(editor)]), "TEMPORAL_ADDRESS": server.address,
        }  # fmt: skip
        with processes(tmp_path / "processes", **settings) as started:
            await started.worker()
            handle = await AgentClient(client, "agents").start(
                "asks", "go", workflow_id="run", requester="bob@example.com"
            )
            await asked(handle)
            # Lists of runs lag behind.
            for _ in range(20):
                inbox = started.mandate("inbox")
                assert await inbox.ended() == 0, inbox.stderr()
                if "run:r1" in inbox.stdout():
                    break
            kept = open_to_others(written)
            approved = started.mandate("approve", "1", "--edit")
            assert await approved.ended() == 0, approved.stderr()
            assert await started.mandate("validate", str(tmp_path / "agents")).ended() == 0
            assert (await handle.result()).status == "completed"
            found = open_to_others(state)

    written.chmod(0o700)
    assert (state / "inbox.json").exists()
    assert (state / "store.db").exists()
    assert found == {}
    assert kept == {str(written): oct(0o777 & ~umask)}
    assert (tmp_path / "modes").read_text() == "0o600"
    assert open_to_others(written) == {}


async def test_a_store_that_others_could_read_is_theirs_no_more(tmp_path: Path, umask: int) -> None:
    address = f"sqlite:///{tmp_path / 'new' / 'deeper' / 'store.db'}"
    tmp_path.chmod(0o755)
    for _ in range(2):
        blobs = Blobs(open_store(address))
        digest = await blobs.put(b"what a run has said")
        found = open_to_others(tmp_path / "new")
        assert {path.name for path in (tmp_path / "new" / "deeper").iterdir()} >= {"store.db", "store.db-wal"}
        await blobs.close()

        assert found == {}
        loosen(tmp_path / "new" / "deeper")
        (tmp_path / "new" / "deeper").chmod(0o700)
    assert digest
    # A folder that somebody else has made may hold more than ours.
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_keys_that_the_example_makes_are_their_owners(tmp_path: Path, umask: int) -> None:
    keys = [str(tmp_path / name) for name in ("issuer.pem", "jwks.json")]

    program = [sys.executable, "-m", "mandate.workers.examples.sign_decision"]
    subprocess.run([*program, "--key", keys[0], "--make-key", "--jwks", keys[1]], cwd=PROJECT, check=True)

    assert [stat.S_IMODE(Path(key).stat().st_mode) for key in keys] == [0o600, 0o600]
    assert json.loads(Path(keys[1]).read_text())["keys"]


def test_folders_that_hold_more_than_ours_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working, shared, own = tmp_path / "a" / "working", tmp_path / "shared", tmp_path / "own"
    for folder, mode in ((working, 0o755), (shared, 0o1777), (own, 0o755)):
        folder.mkdir(parents=True)
        folder.chmod(mode)
    working.parent.chmod(0o755)
    monkeypatch.chdir(working)

    for folder in (working, working.parent, shared, own):
        private_files.claim_folder(folder)

    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (working, working.parent, shared, own)]
    assert modes == [0o755, 0o755, 0o1777, 0o700]
