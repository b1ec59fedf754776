"""Keeper of one embedded server: alive while somebody uses it, ended when nobody does.

A process of its own, started by file name without site packages: it imports the standard library only.
Each user holds a shared lock on the file `USERS`; the lock of a process that is killed is released by the kernel.
The keeper holds `ALIVE` for its lifetime, and once nobody uses the server it holds `USERS` alone until the server is
gone, so that who comes then waits and starts another.
"""

import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, TypedDict

USERS = "server.users"
ALIVE = "server.alive"
STATE = "server.json"
LOG = "temporal.log"

READY_SECONDS = 30.0
SILENT_SECONDS = 15.0
"""After so long a server that lives has the port on which somebody listens, though it has not said so."""
STOP_SECONDS = 1.5
POLL_SECONDS = 0.2
TRIES = 5
ANOTHER_KEEPER = 3
PR_SET_PDEATHSIG = 1


class Orders(TypedDict):
    """Orders to the keeper; one JSON argument."""

    command: list[str]
    """Without ports."""
    ports: list[list[int]]
    """Pairs for clients and UI, tried in this order."""
    any_port: bool
    """True if other free ports will do."""
    ui: bool
    graceful: bool
    """True if the server may close its database file."""
    settings: dict[str, str]


class State(TypedDict, total=False):
    """The keeper's report on its server; the file `STATE`."""

    keeper: int
    pid: int
    port: int
    ui_port: int | None
    binary: str
    settings: dict[str, str]
    error: str


class StartError(Exception):
    """The server does not start; the text is for the user."""


class Abandoned(Exception):
    """The error for a server that nobody waits for any more."""


def tighten(folder: Path) -> None:
    """Make files that an older version left readable for others readable for their owner only."""
    for pattern in ("server.*", "temporal.*"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                if path.is_file() and path.stat().st_uid == os.geteuid():
                    path.chmod(0o600)


def locked(file: IO[str]) -> bool:
    """Lock `file` for this process and return whether it holds it alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_state(folder: Path) -> State:
    """Return the last word of a keeper; empty if there is none."""
    try:
        state: State = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return state


def write_state(folder: Path, state: State) -> None:
    """Replace the state in one step."""
    partial = folder / f"{STATE}.{os.getpid()}"
    partial.write_text(json.dumps(state))
    partial.replace(folder / STATE)


def free_ports(orders: Orders) -> Iterator[tuple[int, int | None]]:
    """Yield pairs of ports that nobody listens on, as far as one can tell before using them."""
    if not orders["ui"]:
        yield from ((port, None) for port, _ in orders["ports"] if bind(port))
        while orders["any_port"]:
            yield any_port(), None
    yield from ((port, ui_port) for port, ui_port in orders["ports"] if bind(port) and bind(ui_port))
    yield from ((port, any_port()) for port, _ in orders["ports"] if bind(port))
    while orders["any_port"]:
        yield any_port(), any_port()


def any_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def bind(port: int) -> bool:
    """Return whether `port` of this machine can be listened on."""
    with socket.socket() as listener, suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
        return True
    return False


def die_with(parent: int) -> Callable[[], None]:
    """Run in the new process: the kernel kills it when `parent` dies. Only Linux can."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def bequeath() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return bequeath


def start(folder: Path, orders: Orders, wanted: Callable[[], bool]) -> tuple[subprocess.Popen[bytes], State]:
    """Start the server and return it with its address, once it listens.

    Raises:
        StartError: no port is free, or the server ends or stays silent.
    """
    log = folder / LOG
    for _, (port, ui_port) in zip(range(TRIES), free_ports(orders), strict=False):
        offset = log.stat().st_size
        command = [*orders["command"], "--port", str(port)]
        command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
        try:
            server = subprocess.Popen(  # noqa: S603 the binary that was found
                command,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 this process has one thread
            )
        except OSError as error:
            raise StartError(f"the Temporal server {command[0]} cannot be started: {error.strerror}") from None
        said = partial(log_since, log, offset)
        code = wait_ready(server, port, said, wanted)
        if code is None:
            state = State(keeper=os.getpid(), pid=server.pid, port=port, ui_port=ui_port, binary=command[0])
            return server, {**state, "settings": orders["settings"]}
        if b"address already in use" not in said():
            lines = said().decode(errors="replace").splitlines()
            last = " | ".join(line.strip() for line in lines[-3:] if line.strip())[-600:]
            raise StartError(
                f"the Temporal server {command[0]} ended with code {code}: {last or 'it said nothing'} ({log})"
            )
    tried = ", ".join(str(port) for port, _ in orders["ports"]) or "any"
    raise StartError(f"the Temporal server finds no free port (tried {tried}); name one that nothing else listens on")


def log_since(log: Path, offset: int) -> bytes:
    """Return what has been written to `log` from `offset` on."""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read()


def wait_ready(
    server: subprocess.Popen[bytes], port: int, said: Callable[[], bytes], wanted: Callable[[], bool]
) -> int | None:
    """Wait until the server listens on `port`; return `None`, or the exit code of one that ended.

    That somebody listens is not enough, since it might be a stranger who was quicker, and on a busy machine it takes
    seconds until a server finds its port taken: its own banner tells that it got the port, or `SILENT_SECONDS` do.
    """
    started_at = time.monotonic()
    banner = re.compile(rb"Server:\s+\S+:%d\b" % port)
    while time.monotonic() - started_at < READY_SECONDS and wanted():
        if (code := server.poll()) is not None:
            return code
        with socket.socket() as client:
            client.settimeout(1)
            listens = client.connect_ex(("127.0.0.1", port)) == 0
        if listens and (banner.search(said()) or time.monotonic() - started_at > SILENT_SECONDS):
            return None
        time.sleep(0.02)
    server.kill()
    server.wait()
    if not wanted():
        raise Abandoned
    raise StartError(f"the Temporal server did not listen on port {port} within {READY_SECONDS:g} s")


def end_orphan(state: State) -> None:
    """Kill the server of a keeper that was killed, where the kernel did not."""
    pid, port = state.get("pid"), state.get("port")
    if pid is None or port is None:
        return
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        command = ""
    if sys.platform != "linux":
        with suppress(OSError):
            ps = ["ps", "-o", "command=", "-p", str(pid)]
            command = subprocess.run(ps, capture_output=True, text=True, check=False).stdout  # noqa: S603 fixed words
    if "start-dev" in command and f"--port {port} " in f"{command} ":
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def stop(server: subprocess.Popen[bytes], *, graceful: bool) -> None:
    """End the server within `STOP_SECONDS`."""
    if graceful:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
            return
    server.kill()
    server.wait()


def keep(folder: Path, orders: Orders, alive: IO[str]) -> None:
    """Run the server until nobody uses it, and give the keeper's place free first of all."""
    ended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with (folder / USERS).open("a") as users:
        try:
            server, state = start(folder, orders, lambda: not (ended or locked(users)))
        except StartError as error:
            write_state(folder, {"keeper": os.getpid(), "error": str(error)})
            alive.close()
            return
        except Abandoned:
            alive.close()
            return
        write_state(folder, state)
        while server.poll() is None and not (ended or locked(users)):
            time.sleep(POLL_SECONDS)
        stop(server, graceful=orders["graceful"])
        if read_state(folder).get("keeper") == os.getpid():
            (folder / STATE).unlink(missing_ok=True)
        alive.close()


def main() -> int:
    """Take the place of the keeper of a folder, and leave the work to a child that nobody waits for."""
    folder = Path(sys.argv[1])
    # The server inherits it, whose database holds all that runs have said.
    os.umask(0o077)
    tighten(folder)
    orders: Orders = json.loads(sys.argv[2])
    with (folder / ALIVE).open("a") as alive:
        deadline = time.monotonic() + 2
        # Who asks whether a keeper lives holds this lock for a moment.
        while not locked(alive):
            if time.monotonic() > deadline:
                return ANOTHER_KEEPER
            time.sleep(0.005)
        end_orphan(read_state(folder))
        (folder / STATE).unlink(missing_ok=True)
        if os.fork() == 0:
            keep(folder, orders, alive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
