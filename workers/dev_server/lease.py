"""Lease of the server of a folder, whose keeper is started for it; by locks on files, which end with the process."""

import asyncio
import contextlib
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO

from mandate.activities import private_files
from mandate.workers.dev_server import keeper
from mandate.workers.dev_server.binary import ServerError
from mandate.workflows.rules import quantities

TURN_SECONDS = 120.0
"""Seconds that one process waits for another that starts or stops the server."""
STARTS = 3


async def join(
    folder: Path, orders: keeper.Orders, binary: Callable[[], Awaitable[Path]]
) -> tuple[keeper.State, IO[str]]:
    """Join the server of `folder`, started if need be; return it with the open file whose lock keeps it alive.

    Of several processes at once, one starts it. `binary` is called only by the one that does.

    Raises:
        ServerError: the server does not start.
        OSError: the folder cannot be used.
    """
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as turn:
        turn.enter_context(await locked(folder / "server.turn", fcntl.LOCK_EX))
        users = undo.enter_context(await locked(folder / keeper.USERS, fcntl.LOCK_SH))
        for _ in range(STARTS):
            if not keeper_lives(folder):
                await spawn(folder, orders, await binary())
            state = await last_word(folder)
            if error := state.get("error"):
                raise ServerError(error)
            if "port" in state:
                undo.pop_all()
                return state, users
        raise ServerError(f"the Temporal server does not start; see {folder / keeper.LOG}")


async def locked(path: Path, kind: int) -> IO[str]:
    """Open `path` and lock it."""
    file = private_files.open_own(path)
    deadline = time.monotonic() + TURN_SECONDS
    try:
        while not try_lock(file, kind):
            if time.monotonic() > deadline:
                raise ServerError(
                    f"another process has held {str(path)!r} for {quantities.write_seconds(TURN_SECONDS)}; "
                    "end it and try again"
                )
            await asyncio.sleep(0.02)
    except BaseException:
        file.close()
        raise
    return file


def try_lock(file: IO[str], kind: int) -> bool:
    """Try to take a lock of `kind` on `file`, and return whether this process holds it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def keeper_lives(folder: Path) -> bool:
    """Return whether the server of `folder` runs, starts or stops."""
    try:
        with (folder / keeper.ALIVE).open() as alive:
            return not try_lock(alive, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


async def spawn(folder: Path, orders: keeper.Orders, binary: Path) -> None:
    """Start a keeper, apart from this process: no terminal, no signals, no open files in common."""
    orders = {**orders, "command": [str(binary), *orders["command"]]}
    with log_file(folder) as output:
        process = subprocess.Popen(  # noqa: S603, ASYNC220 our own program, which leaves itself behind at once
            [sys.executable, "-I", "-S", keeper.__file__, str(folder), json.dumps(orders)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    code = await asyncio.to_thread(process.wait)
    if code not in {0, keeper.ANOTHER_KEEPER}:
        raise ServerError(f"the keeper of the Temporal server ended with code {code}; see {folder / keeper.LOG}")


@contextlib.contextmanager
def log_file(folder: Path) -> Iterator[IO[bytes]]:
    """Open a new log; the one before it is kept beside it."""
    log = folder / keeper.LOG
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    private_files.tighten(log.with_suffix(".log.1"))
    with private_files.open_own(log, "ab") as file:
        yield file


async def last_word(folder: Path) -> keeper.State:
    """Return the keeper's word once the server listens or fails; empty if the keeper went without one."""
    while True:
        lives = keeper_lives(folder)
        state = keeper.read_state(folder)
        if state or not lives:
            return state
        await asyncio.sleep(0.01)


async def gone(folder: Path) -> None:
    """Wait until the server of `folder` has ended."""
    while keeper_lives(folder):  # noqa: ASYNC110 another process tells it
        await asyncio.sleep(0.02)
