import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from mandate.workers.dev_server import keeper as dev_server_keeper
from mandate.workers.dev_server import lease
from mandate.workers.dev_server.binary import Search, ServerError
from mandate.workers.dev_server.server import ServerLease, run_private_server, share_dev_server

USER = """
import asyncio, sys
from pathlib import Path
from mandate.workers.dev_server.server import share_dev_server

async def main():
    lease = await share_dev_server(Path(sys.argv[1]), on_progress=lambda line: None, ui=False)
    print(lease.server.pid, lease.server.address, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    lease.close()

asyncio.run(main())
"""


class User:
    """A process that uses the server of a folder until it is told to end."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def server(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        pid, address = self.process.stdout.readline().split()
        return int(pid), address

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate("\n", timeout=60)


@pytest.fixture
def users(tmp_path: Path) -> Iterator[list[User]]:
    started: list[User] = []
    yield started
    for user in started:
        if user.process.poll() is None:
            user.process.kill()
        user.process.communicate(timeout=60)


async def share(folder: Path, **options: object) -> ServerLease:
    return await share_dev_server(folder, **({"on_progress": lambda line: None, "ui": False} | options))


def lives(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def until_gone(pid: int) -> None:
    """Returns when the process has ended; how long that takes says what else the machine does."""
    deadline = time.monotonic() + 30
    while lives(pid):
        assert time.monotonic() < deadline, "the server is still there"
        await asyncio.sleep(0.02)


def listener() -> socket.socket:
    stranger = socket.socket()
    stranger.bind(("127.0.0.1", 0))
    stranger.listen()
    return stranger


async def test_five_processes_at_once_share_one_server(tmp_path: Path, users: list[User]) -> None:
    users += [User(tmp_path / "state") for _ in range(5)]

    servers = {user.server() for user in users}

    assert len(servers) == 1
    pid, _ = servers.pop()
    for user in users[:4]:
        user.end()
    await asyncio.sleep(1)
    assert lives(pid)
    users[4].end()
    await until_gone(pid)


async def test_server_is_gone_two_seconds_after_its_last_user_was_killed(tmp_path: Path, users: list[User]) -> None:
    users += [User(tmp_path), User(tmp_path)]
    pid, _ = users[0].server()
    users[1].server()

    users[0].process.kill()
    await asyncio.sleep(1)
    assert lives(pid)
    users[1].process.kill()

    assert dev_server_keeper.POLL_SECONDS + dev_server_keeper.STOP_SECONDS < 2
    await until_gone(pid)


async def test_who_comes_while_the_server_stops_gets_another(tmp_path: Path) -> None:
    with await share(tmp_path) as first:
        # It does nothing any more, so that it takes as long to stop as it may.
        os.kill(first.pid, signal.SIGSTOP)
    with (tmp_path / dev_server_keeper.USERS).open() as users:
        while lease.try_lock(users, fcntl.LOCK_SH):
            fcntl.flock(users, fcntl.LOCK_UN)
            await asyncio.sleep(0.01)
    assert lives(first.pid)

    with await share(tmp_path) as second:
        assert not lives(first.pid)
        assert await (await Client.connect(second.address)).service_client.check_health()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_to_one_user_leaves_the_server_to_the_other(
    tmp_path: Path, users: list[User], number: signal.Signals
) -> None:
    users += [User(tmp_path), User(tmp_path)]
    pid, address = users[0].server()
    users[1].server()

    users[0].process.send_signal(number)
    users[0].process.communicate(timeout=60)
    await asyncio.sleep(0.5)

    assert lives(pid)
    assert await (await Client.connect(address)).service_client.check_health()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    with await share(tmp_path) as server:
        keeper = dev_server_keeper.read_state(tmp_path)["keeper"]

        groups = {os.getpgid(pid) for pid in (server.pid, keeper)}

        assert os.getpgid(0) not in groups


async def test_server_has_none_of_its_users_files(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file, await share(tmp_path) as server:
        os.set_inheritable(file.fileno(), False)
        mine = {str(tmp_path / name) for name in ("open", dev_server_keeper.USERS, "server.turn")}
        keeper = dev_server_keeper.read_state(tmp_path)["keeper"]

        def files(pid: int) -> set[str]:
            found = set()
            for link in Path(f"/proc/{pid}/fd").iterdir():
                # The server opens and closes files of its own all the time.
                with contextlib.suppress(FileNotFoundError):
                    found.add(str(link.readlink()))
            return found

        assert not mine & files(server.pid)
        assert mine & files(keeper) == {str(tmp_path / dev_server_keeper.USERS)}
        for pid in (server.pid, keeper):
            assert {Path(f"/proc/{pid}/fd/{n}").readlink() for n in (1, 2)} == {server.log}


async def test_server_dies_with_its_keeper_and_is_started_again(tmp_path: Path) -> None:
    first = await share(tmp_path)
    os.kill(dev_server_keeper.read_state(tmp_path)["keeper"], signal.SIGKILL)

    await until_gone(first.server.pid)
    with first, await share(tmp_path) as second:
        assert second.pid != first.server.pid


async def test_server_that_crashed_is_started_again(tmp_path: Path) -> None:
    with await share(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
        await lease.gone(tmp_path)

        with await share(tmp_path) as second:
            assert second.pid != first.pid


@pytest.mark.parametrize(
    "stale",
    [
        "not json",
        json.dumps({"keeper": 1, "pid": 1, "port": 9, "ui_port": None, "binary": "x", "settings": {}}),
        json.dumps({"keeper": 1, "error": "an old error"}),
    ],
)
async def test_files_of_a_machine_that_crashed_do_no_harm(tmp_path: Path, stale: str) -> None:
    (tmp_path / dev_server_keeper.STATE).write_text(stale)
    for name in (dev_server_keeper.ALIVE, dev_server_keeper.USERS, "server.turn"):
        (tmp_path / name).touch()

    with await share(tmp_path) as server:
        assert await (await Client.connect(server.address)).service_client.check_health()


async def test_orphan_of_a_killed_keeper_is_ended(tmp_path: Path) -> None:
    with listener() as taken:
        port = taken.getsockname()[1]
    program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    orphan = subprocess.Popen([*program, "start-dev", "--port", str(port)], stdout=subprocess.PIPE)
    bystander = subprocess.Popen([*program, "--port", str(port)], stdout=subprocess.PIPE)
    try:
        for process in (bystander, orphan):
            # The kernel does not tell a program's arguments before it has loaded all of it.
            assert process.stdout is not None
            process.stdout.readline()
            dev_server_keeper.end_orphan({"pid": process.pid, "port": port})

        assert orphan.wait(30) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.communicate()


async def test_runs_are_kept_over_a_restart_and_for_thirty_days(tmp_path: Path) -> None:
    with await share(tmp_path) as first:
        client = await Client.connect(first.address)
        started = await client.start_workflow("Nothing", id="kept", task_queue="nobody")
    await lease.gone(tmp_path)

    with await share(tmp_path) as second:
        client = await Client.connect(second.address)
        found = await client.get_workflow_handle("kept").describe()
        request = DescribeNamespaceRequest(namespace=second.namespace)
        namespace = await client.workflow_service.describe_namespace(request)

    assert found.run_id == started.result_run_id
    assert namespace.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=30)


async def test_taken_port_is_refused_when_it_was_asked_for(tmp_path: Path) -> None:
    with listener() as stranger:
        port = stranger.getsockname()[1]

        with pytest.raises(ServerError) as caught:
            await share(tmp_path, port=port)

    assert str(caught.value) == (
        f"the Temporal server finds no free port (tried {port}); name one that nothing else listens on"
    )


async def test_taken_preferred_port_is_avoided(tmp_path: Path) -> None:
    orders = dev_server_keeper.Orders(command=[], ports=[], any_port=True, ui=True, graceful=True, settings={})
    with listener() as stranger:
        port = stranger.getsockname()[1]
        pairs = dev_server_keeper.free_ports({**orders, "ports": [[port, port + 1]]})

        found = next(pairs)

    assert port not in found


async def test_stranger_who_was_quicker_is_not_taken_for_the_server(tmp_path: Path) -> None:
    """The port is taken between the look and the start: the stranger listens, our process has not said that it does."""
    with listener() as stranger:
        port = stranger.getsockname()[1]
        loser = subprocess.Popen(["sh", "-c", "sleep 3.5; exit 1"])

        code = dev_server_keeper.wait_ready(loser, port, lambda: b"bind: address already in use", lambda: True)

    assert code == 1


async def test_two_folders_have_two_servers(tmp_path: Path) -> None:
    with await share(tmp_path / "a") as a, await share(tmp_path / "b", ui=True) as b:
        assert a.address != b.address
        assert a.ui_url is None
        assert b.ui_url is not None
        _, port = b.ui_url.rsplit(":", 1)
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()


async def test_other_port_or_settings_than_those_of_the_running_server_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    with await share(tmp_path) as server:
        with await share(tmp_path, extra_dynamic_config={"a.b": "1"}, on_progress=told.append) as same:
            assert same.pid == server.pid
        with pytest.raises(ServerError) as caught:
            await share(tmp_path, port=1)

    assert told == ["the Temporal server runs already, without a.b=1"]
    assert str(caught.value) == f"the server of {str(tmp_path)!r} runs already, on {server.address} and not on port 1"


async def test_binary_that_dies_is_quoted(tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "temporal"
    binary.parent.mkdir()
    version = "[ $1 = server ] || { echo temporal version 1.9.0; exit; }"
    binary.write_text(f"#!/bin/sh\n{version}\necho no disk >&2\necho giving up\nexit 3\n")
    binary.chmod(0o755)
    search = Search(path=f"{binary.parent}:/usr/bin:/bin", beside=tmp_path)

    with pytest.raises(ServerError) as caught:
        await share(tmp_path / "state", search=search)

    log = tmp_path / "state" / "temporal.log"
    assert str(caught.value) == f"the Temporal server {binary} ended with code 3: no disk | giving up ({log})"


async def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ServerError) as caught:
        await share(tmp_path / "file" / "state")

    assert str(caught.value) == (
        f"the folder '{tmp_path}/file/state' cannot keep a server: Not a directory; name another, or set MANDATE_FOLDER"
    )


async def test_private_server_takes_settings_and_ends_with_its_block() -> None:
    settings = {"limit.historyCount.suggestContinueAsNew": "50"}

    async with run_private_server(extra_dynamic_config=settings) as server:
        command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
        assert await (await Client.connect(server.address)).service_client.check_health()

    assert "limit.historyCount.suggestContinueAsNew=50" in command
    assert "--db-filename" not in command
    assert not lives(server.pid)
    assert not server.log.parent.exists()
