"""The worker of one command, so that a project can be tried in one terminal."""

import asyncio
import os
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.client.pollers import Poller, list_pollers
from mandate.workers.worker_process import WorkerProcess, start_worker

LOG = "worker.log"
PREFIX = "mandate-run-"
"""Begins the identity of such a worker: it ends with its command, so no other command relies on it."""

STOP_SECONDS = 35.0
"""More than a stopping worker lets activities finish."""
POLL_SECONDS = 0.05


@asynccontextmanager
async def serving(call: Invocation, connection: Connection, task_queue: str) -> AsyncIterator[None]:
    """Serve `task_queue` while the block runs, in a project on its local server where no worker does.

    Raises:
        CliError: the worker does not start; the text is what it says.
    """
    if connection.server is None or connection.settings.project is None or await _is_served(connection, task_queue):
        yield
        return
    identity = f"{PREFIX}{os.getpid()}@{socket.gethostname()}"
    log = connection.settings.folder / LOG
    log.unlink(missing_ok=True)
    told = {
        "TEMPORAL_ADDRESS": connection.address,
        "TEMPORAL_NAMESPACE": connection.client.namespace,
        "MANDATE_TASK_QUEUE": task_queue,
    }
    worker = start_worker(told, log, "--identity", identity)
    watching = None
    try:
        await _wait_until_it_polls(connection, task_queue, identity, worker)
        call.out.note(
            f"started a worker, which ends with this command; `{call.program} worker` serves until you stop it; "
            f"its log is {shlex.quote(str(log))}"
        )
        watching = asyncio.create_task(_tell_end(call, worker))
        yield
    finally:
        if watching is not None:
            watching.cancel()
        await worker.stop(STOP_SECONDS)


async def _is_served(connection: Connection, task_queue: str) -> bool:
    found = await list_pollers(connection.client, task_queue)
    return any(map(may_stay, found))


def may_stay(poller: Poller) -> bool:
    """Tell whether a worker may be there, and is not one that ends with its command."""
    return not poller.is_gone and not poller.identity.startswith(PREFIX)


async def _wait_until_it_polls(connection: Connection, task_queue: str, identity: str, worker: WorkerProcess) -> None:
    while identity not in {poller.identity for poller in await list_pollers(connection.client, task_queue)}:
        if worker.process.poll() is not None:
            raise CliError(f"the worker of this command did not start:\n{worker.last_words()}")
        await asyncio.sleep(POLL_SECONDS)


async def _tell_end(call: Invocation, worker: WorkerProcess) -> None:
    code = await worker.ended()
    call.out.note(f"the worker of this command ended with code {code}; its log is {shlex.quote(str(worker.log))}")
