"""The embedded Temporal server: one a folder, shared by all processes that use it, gone when the last of them is.

The process `workers/dev_server/keeper.py` owns the server; who uses the server holds a lock that the keeper watches.
"""

import asyncio
import contextlib
import importlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from mandate.activities import private_files
from mandate.workers.dev_server import keeper
from mandate.workers.dev_server import lease as dev_server_lease
from mandate.workers.dev_server.binary import Progress, Search, ServerError, find_binary

DATABASE = "temporal.db"
"""File of a folder's server, with its runs."""
PORT = 7233
UI_OFFSET = 1000
NAMESPACE = "default"
RETENTION = timedelta(days=30)
"""Time for which closed runs are kept."""
READY_SECONDS = 30.0

TUNING: Mapping[str, str] = {
    # A server with one shard reads its queues 20 times a second by default: 100 ms for each activity in a row.
    "history.transferProcessorMaxPollRPS": "1000",
    "history.timerProcessorMaxPollRPS": "1000",
    "history.visibilityProcessorMaxPollRPS": "1000",
    # Timers (heartbeats, retries, sticky queues) fire up to a second late by default.
    "history.timerProcessorMaxTimeShift": '"50ms"',
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "system.enableActivityEagerExecution": "true",
    "frontend.enableCancelWorkerPollsOnShutdown": "true",
    # Ten updates of one run by default, and an eleventh costs those the work that was done for them.
    "history.maxInFlightUpdates": "1000",
}
"""Dynamic configuration of every embedded server; values are JSON."""


@dataclass(frozen=True, slots=True)
class DevServer:
    """A running embedded server."""

    address: str
    ui_url: str | None
    """`None` when it runs without a Web UI."""
    binary: Path
    """The Temporal CLI that it runs from; good for commands too."""
    log: Path
    pid: int
    namespace: str = NAMESPACE


@dataclass(frozen=True, slots=True)
class ServerLease:
    """A share in a server, which runs while anybody holds one; the death of this process gives it back."""

    server: DevServer
    share: IO[str] = field(repr=False)

    def close(self) -> None:
        """Give the share back; the last one ends the server within two seconds."""
        self.share.close()

    def __enter__(self) -> DevServer:
        return self.server

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def share_dev_server(
    folder: Path,
    *,
    on_progress: Progress,
    port: int | None = None,
    ui_port: int | None = None,
    ui: bool = True,
    extra_dynamic_config: Mapping[str, str] | None = None,
    search: Search | None = None,
) -> ServerLease:
    """Share the server of `folder`, which is started if it does not run.

    Args:
        folder: keeps database, log and lock files; made if missing.
        on_progress: is told in one line what takes long; called in this event loop.
        port: exactly this one. Without it 7233 if free, else another.
        ui_port: of the Web UI, exactly this one. Without it `port` + 1000 or another.
        ui: with the Web UI. Has no say in a server that runs already.
        extra_dynamic_config: values are JSON. Has no say in a server that runs already.
        search: where the binary is looked for, if not where the environment says.

    Raises:
        ServerError: folder, port or binary cannot be used, or the server does not start.
    """
    config = {**TUNING, **(extra_dynamic_config or {})}
    folder = private_folder(folder)
    orders = keeper.Orders(
        command=["server", "start-dev", "--db-filename", str(folder / DATABASE), *flags(config)],
        ports=[[port or PORT + n, ui_port or (port or PORT + n) + UI_OFFSET] for n in range(1 if port else 5)],
        any_port=port is None,
        ui=ui,
        graceful=True,
        settings=dict(config),
    )
    lease = await lease_server(folder, orders, search=search, on_progress=on_progress)
    if port and lease.server.address != f"127.0.0.1:{port}":
        lease.close()
        raise ServerError(
            f"the server of {str(folder)!r} runs already, on {lease.server.address} and not on port {port}"
        )
    if ui_port and ui and lease.server.ui_url != f"http://127.0.0.1:{ui_port}":
        lease.close()
        found = lease.server.ui_url or "nowhere"
        raise ServerError(f"the Web UI of the server of {str(folder)!r} is at {found} and not on port {ui_port}")
    return lease


@contextlib.asynccontextmanager
async def run_private_server(
    *,
    ui: bool = False,
    extra_dynamic_config: Mapping[str, str] | None = None,
    search: Search | None = None,
) -> AsyncIterator[DevServer]:
    """Run a new server in memory on free ports until the end of the block or of this process.

    Raises:
        ServerError: see `share_dev_server`.
    """
    config = {**TUNING, **(extra_dynamic_config or {})}
    command = ["server", "start-dev", *flags(config)]
    with tempfile.TemporaryDirectory(prefix="mandate-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        orders = keeper.Orders(command=command, ports=[], any_port=True, ui=ui, graceful=False, settings=dict(config))
        with await lease_server(folder, orders, search=search, on_progress=lambda _: None) as server:
            yield server
        await dev_server_lease.gone(folder)


def flags(config: Mapping[str, str]) -> list[str]:
    """Return the options of `temporal server start-dev` that do not name a place."""
    dynamic = [part for key, value in config.items() for part in ("--dynamic-config-value", f"{key}={value}")]
    return ["--ip", "127.0.0.1", "--log-level", "warn", *dynamic]


async def lease_server(
    folder: Path, orders: keeper.Orders, *, search: Search | None, on_progress: Progress
) -> ServerLease:
    """Join the server of `folder`, or start it; of several processes at once, one starts it."""
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        loop.call_soon_threadsafe(on_progress, line)

    async def binary() -> Path:
        return await asyncio.to_thread(find_binary, tell, search)

    try:
        # The import takes as long as the server, so one happens during the other; it also makes exits clean.
        (state, share), _ = await asyncio.gather(
            dev_server_lease.join(folder, orders, binary),
            asyncio.to_thread(importlib.import_module, "mandate.workers.client.client"),
        )
    except OSError as error:
        raise ServerError(unusable(folder, error)) from None
    lease = ServerLease(server=server_of(folder, state), share=share)
    try:
        await answers(folder, lease.server)
    except BaseException:
        lease.close()
        raise
    lacking = [f"{key}={value}" for key, value in orders["settings"].items() if state["settings"].get(key) != value]
    if lacking:
        on_progress(f"the Temporal server runs already, without {', '.join(lacking)}")
    return lease


def private_folder(folder: Path) -> Path:
    """Make `folder` and return its absolute path; only its owner may read what runs have said."""
    try:
        private_files.claim_folder(folder)
        return folder.resolve()
    except OSError as error:
        raise ServerError(unusable(folder, error)) from None


def unusable(folder: Path, error: OSError) -> str:
    """Return the sentence for a folder that cannot be written."""
    why = error.strerror or error
    return f"the folder {str(folder)!r} cannot keep a server: {why}; name another, or set MANDATE_FOLDER"


def server_of(folder: Path, state: keeper.State) -> DevServer:
    """Return the facts that users of the server need."""
    ui_port = state["ui_port"]
    return DevServer(
        address=f"127.0.0.1:{state['port']}",
        ui_url=f"http://127.0.0.1:{ui_port}" if ui_port else None,
        binary=Path(state["binary"]),
        log=folder / keeper.LOG,
        pid=state["pid"],
    )


async def answers(folder: Path, server: DevServer) -> None:
    """Return once `server` answers and keeps closed runs for `RETENTION`."""
    retention = Duration()
    retention.FromTimedelta(RETENTION)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            client = await ServiceClient.connect(ConnectConfig(target_host=server.address))
            service = client.workflow_service
            found = await service.describe_namespace(DescribeNamespaceRequest(namespace=server.namespace))
            if found.config.workflow_execution_retention_ttl != retention:
                config = NamespaceConfig(workflow_execution_retention_ttl=retention)
                await service.update_namespace(UpdateNamespaceRequest(namespace=server.namespace, config=config))
            return
        except (RPCError, RuntimeError) as error:
            if time.monotonic() > deadline or not dev_server_lease.keeper_lives(folder):
                raise ServerError(f"the Temporal server on {server.address} does not answer: {error}") from None
            await asyncio.sleep(0.02)
