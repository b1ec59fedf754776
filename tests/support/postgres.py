"""A real PostgreSQL server on a loopback port, from the binaries that are installed here."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.support.certificates import Issued
from tests.support.ports import free_port
from tests.support.processes import children, lives

PASSWORD = "pg-secret-word"
START_SECONDS = 30.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
}
"""What is lost without `fsync` is lost with the machine, not with the process."""


def binaries() -> Path | None:
    """Folder of the newest `postgres` of this machine, or `None`."""
    packaged = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(packaged, key=lambda path: float(path.parts[-3]), default=None)
    found = newest or shutil.which("postgres")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """One server with its files in `folder`; `stop` and `start` it as often as a test needs."""

    def __init__(
        self,
        folder: Path,
        port: int,
        settings: Mapping[str, str] | None = None,
        *,
        data: Path | None = None,
        tls: Issued | None = None,
    ) -> None:
        """Take settings of `postgresql.conf` that differ from `SETTINGS`, and another folder for the data alone."""
        self._folder = folder
        self._data = data or folder / "data"
        self._tls = tls
        self._port = port
        self._settings = {**SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int | None:
        """Of the process that all others are children of; `None` when it has ended."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def dsn(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://mandate:{password}@127.0.0.1:{self._port}/{database}"

    async def new_database(self) -> str:
        """Address of a database that nobody has used."""
        self._databases += 1
        name = f"store{self._databases}"
        await self.create_database(name)
        return self.dsn(name)

    async def create_database(self, name: str) -> None:
        await self.execute(f"CREATE DATABASE {name}")

    async def execute(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.dsn(database), timeout=START_SECONDS)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def initialize(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        data = ["-D", str(self._data), "--no-sync", "--no-locale", "-E", "UTF8"]
        access = ["-U", "mandate", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        self._run("initdb", *data, *access).wait()
        if self._tls is not None:
            self._demand_tls(self._tls)

    def _demand_tls(self, own: Issued) -> None:
        """Take connections of other databases than `postgres` with TLS only."""
        data = self._data
        for name, file in (("server.crt", own.certificate), ("server.key", own.key)):
            path = data / name
            path.write_bytes(file.read_bytes())
            path.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres", "postgres")
        (data / "pg_hba.conf").write_text(
            "host postgres all 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )

    async def is_encrypted(self, database: str) -> bool:
        """Whether all connections to a database, of which there are some, use TLS."""
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = $1"
            return bool(await connection.fetchval(asked, database))
        finally:
            await connection.close()

    async def start(self) -> None:
        settings = {**self._settings, "ssl": "off" if self._tls is None else "on"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = self._run("postgres", "-D", str(self._data), "-p", str(self._port), *options)
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                await (await asyncpg.connect(self.dsn("postgres"))).close()
                return
            except (OSError, asyncpg.PostgresError):
                is_late = asyncio.get_running_loop().time() > deadline
                if is_late or self._process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start: {self.log()}") from None
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Drop all connections and end the server."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait)

    async def kill(self) -> None:
        """End the server with SIGKILL, and wait for its children, which notice by themselves and end."""
        process, self._process = self._process, None
        if process is None:
            return
        below = children(process.pid)
        process.kill()
        await asyncio.to_thread(process.wait)
        while any(map(lives, below)):
            await asyncio.sleep(0.02)

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        folder = binaries()
        assert folder is not None
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(  # type: ignore[call-overload, no-any-return]  # mypy cannot pair **owner with it
                [str(folder / program), *arguments], stdout=log, stderr=log, cwd=self._folder, **_owner()
            )


def _owner() -> dict[str, object]:
    """PostgreSQL refuses to run as root: the account that it is then run under."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def give_up(sentence: str) -> NoReturn:
    """Skip a test for want of a program, and fail it on CI: there it has to be installed."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@asynccontextmanager
async def running_postgres(
    settings: Mapping[str, str] | None = None, *, data: Path | None = None, tls: Issued | None = None
) -> AsyncIterator[PostgresServer]:
    """A server with its data in `data`, which is empty, or in a folder that is gone after the block.

    With `tls` it has this certificate, and demands TLS.

    Skips without PostgreSQL, and fails on CI.
    """
    if binaries() is None:
        give_up("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="mandate-postgres-"))
    if os.geteuid() == 0:
        for owned in (folder, *([data] if data is not None else [])):
            shutil.chown(owned, "postgres", "postgres")
    server = PostgresServer(folder, free_port(), settings, data=data, tls=tls)
    try:
        await asyncio.to_thread(server.initialize)
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
