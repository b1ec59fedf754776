"""A real Temporal cluster: its services in one process, their data and our store in one PostgreSQL of their own."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.service import ConnectConfig, RPCError, ServiceClient

from tests.support import server_build
from tests.support.ports import free_port
from tests.support.postgres import PASSWORD, PostgresServer, give_up, running_postgres
from tests.support.processes import MANDATE, PROJECT
from tests.support.server_build import NoServer, ServerBinaries

NAMESPACE = "default"
SHARDS = 4
START_SECONDS = 60.0

USER = "mandate"
STORE = "mandate"
"""Database of our store."""
DATABASES = {"temporal": "temporal", "temporal_visibility": "visibility"}
"""Databases of Temporal, each with the name of its schema."""

SERVICES = ("FRONTEND", "HISTORY", "MATCHING", "WORKER")
INTERNAL = "INTERNAL_FRONTEND"

CONNECTIONS = {"max_connections": "200"}
"""Each worker has up to ten, the cluster up to thirty for each service."""

TUNING: Mapping[str, Any] = {
    "history.transferProcessorMaxPollRPS": 1000,
    "history.timerProcessorMaxPollRPS": 1000,
    "history.visibilityProcessorMaxPollRPS": 1000,
    "history.timerProcessorMaxTimeShift": "50ms",
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    "frontend.enableCancelWorkerPollsOnShutdown": True,
    "history.maxInFlightUpdates": 1000,
}
"""Dynamic configuration, as the page *Sizing* recommends it."""


@dataclass
class Cluster:
    """Temporal's server and its PostgreSQL, each of which may be killed and started again."""

    binaries: ServerBinaries
    postgres: PostgresServer
    folder: Path
    config: Mapping[str, Any] = field(default_factory=lambda: TUNING)
    database_port: int = 0
    """Where Temporal finds PostgreSQL, if not on its own port."""
    shards: int = SHARDS
    """Of the history service, for ever."""
    authorizer: str = ""
    """Of Temporal's server: `default` refuses everybody who has no token."""
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['FRONTEND_GRPC_PORT']}"

    @property
    def store(self) -> str:
        """The address of our store."""
        return self.postgres.dsn(STORE)

    @property
    def pid(self) -> int:
        """Of Temporal's server."""
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        return (self.folder / "temporal.log").read_text(errors="replace")

    async def make_databases(self) -> None:
        """Make Temporal's databases with its own tool, and an empty one for our store."""
        place = ("--plugin", "postgres12", "--ep", "127.0.0.1", "-p", str(self.postgres.port), "-u", USER)
        for name, schema in DATABASES.items():
            for words in (("create",), ("setup-schema", "-v", "0.0"), _update(schema)):
                await self._run(str(self.binaries.sql_tool), *place, "--db", name, *words, SQL_PASSWORD=PASSWORD)
        await self.postgres.create_database(STORE)

    async def start(self) -> None:
        """Start Temporal's server, and wait until it answers."""
        if not self.ports:
            self.ports = {
                f"{service}_{kind}_PORT": free_port() for service in SERVICES for kind in ("GRPC", "MEMBERSHIP")
            }
            self.ports["FRONTEND_HTTP_PORT"] = free_port()
        config = self.folder / "dynamic.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({key: [{"value": value}] for key, value in self.config.items()}))
        with (self.folder / "temporal.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binaries.server), "--allow-no-auth", "start"],
                cwd=self.folder,
                env={**os.environ, **self._environment(config)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await self.answers()

    async def answers(self) -> None:
        """Wait until Temporal's server answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client = await ServiceClient.connect(ConnectConfig(target_host=self.address))
                if await client.check_health(timeout=None):
                    return
            except (RPCError, RuntimeError):
                pass
            is_late = time.monotonic() > deadline
            if is_late or (self.process is not None and self.process.poll() is not None):
                raise RuntimeError(f"Temporal's server does not start: {self.log()[-2000:]}")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End Temporal's server with SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def set_up(self, *words: str) -> dict[str, Any]:
        """Make the namespace and our search attributes, as an operator does; return what was said."""
        command = (*MANDATE, "setup-namespace", "-n", NAMESPACE, "-o", "json", *words)
        said: dict[str, Any] = json.loads(await self._run(*command, TEMPORAL_ADDRESS=self.address))
        return said

    def _environment(self, config: Path) -> dict[str, str]:
        return {
            "DB": "postgres12",
            "POSTGRES_SEEDS": "127.0.0.1",
            "DB_PORT": str(self.database_port or self.postgres.port),
            "POSTGRES_USER": USER,
            "POSTGRES_PWD": PASSWORD,
            "DBNAME": "temporal",
            "VISIBILITY_DBNAME": "temporal_visibility",
            "NUM_HISTORY_SHARDS": str(self.shards),
            "BIND_ON_IP": "127.0.0.1",
            "TEMPORAL_BROADCAST_ADDRESS": "127.0.0.1",
            "DYNAMIC_CONFIG_FILE_PATH": str(config),
            "LOG_LEVEL": "warn",
            **(self._guard() if self.authorizer else {}),
            **{name: str(port) for name, port in self.ports.items()},
        }

    def _guard(self) -> dict[str, str]:
        """Return settings with which the server asks who calls; its own parts then have a frontend for themselves."""
        services = (*SERVICES, INTERNAL.replace("_", "-"))
        return {
            "TEMPORAL_AUTH_AUTHORIZER": self.authorizer,
            "TEMPORAL_AUTH_CLAIM_MAPPER": self.authorizer,
            "USE_INTERNAL_FRONTEND": "true",
            "TEMPORAL_SERVICES": ",".join(services).lower(),
            **{f"{INTERNAL}_{kind}_PORT": str(free_port()) for kind in ("GRPC", "MEMBERSHIP", "HTTP")},
        }

    async def _run(self, *command: str, **environment: str) -> str:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, cwd=PROJECT, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
        )
        out, err = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {out.decode()}{err.decode()}")
        return out.decode()


def _update(schema: str) -> tuple[str, ...]:
    return ("update-schema", "--schema-name", f"postgresql/v12/{schema}")


@asynccontextmanager
async def running_cluster(
    *,
    config: Mapping[str, Any] | None = None,
    postgres: Mapping[str, str] | None = None,
    data: Path | None = None,
    tuned: bool = True,
    shards: int = SHARDS,
) -> AsyncIterator[Cluster]:
    """A cluster with its namespace and search attributes, gone after the block.

    Args:
        config: dynamic configuration beside that of `tuned`.
        postgres: settings of PostgreSQL.
        data: folder of PostgreSQL's data, where it matters.
        tuned: with `TUNING`, or with the defaults of the server.
        shards: of the history service.

    Skips without Go or PostgreSQL, and fails on CI.
    """
    try:
        binaries = await asyncio.to_thread(server_build.build)
    except NoServer as error:
        give_up(str(error))
    place = Path(tempfile.mkdtemp(prefix="mandate-cluster-"))
    async with running_postgres({**CONNECTIONS, **(postgres or {})}, data=data) as database:
        settings = {**(TUNING if tuned else {}), **(config or {})}
        cluster = Cluster(binaries, database, place, settings, shards=shards)
        try:
            await cluster.make_databases()
            await cluster.start()
            await cluster.set_up()
            yield cluster
        finally:
            await cluster.kill()
            shutil.rmtree(place, ignore_errors=True)


async def _show() -> None:
    """Run a cluster until Ctrl-C, for looking at it by hand."""
    async with running_cluster() as cluster:
        sys.stdout.write(f"export TEMPORAL_ADDRESS={cluster.address} MANDATE_STORE={cluster.store}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_show())
