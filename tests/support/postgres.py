"""A real PostgreSQL server on a loopback port, from the binaries that are installed here."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.support.certificates import Issued
from tests.support.ports import free_port

PASSWORD = "pg-secret-word"
START_SECONDS = 30.0


def binaries() -> Path | None:
    """Folder of the newest `postgres` of this machine, or `None`."""
    packaged = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(packaged, key=lambda path: float(path.parts[-3]), default=None)
    found = newest or shutil.which("postgres")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """One server with its data in `folder`; `stop` and `start` it as often as a test needs."""

    def __init__(self, folder: Path, port: int, tls: Issued | None = None) -> None:
        self._folder = folder
        self._tls = tls
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def dsn(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://mandate:{password}@127.0.0.1:{self._port}/{database}"

    async def new_database(self) -> str:
        """Address of a database that nobody has used."""
        self._databases += 1
        name = f"store{self._databases}"
        connection = await asyncpg.connect(self.dsn("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return self.dsn(name)

    def initialize(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        data = ["-D", str(self._folder / "data"), "--no-sync", "--no-locale", "-E", "UTF8"]
        access = ["-U", "mandate", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        self._run("initdb", *data, *access).wait()
        if self._tls is not None:
            self._demand_tls(self._tls)

    def _demand_tls(self, own: Issued) -> None:
        """Take connections of other databases than `postgres` with TLS only."""
        data = self._folder / "data"
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
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "ssl": "off" if self._tls is None else "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = self._run("postgres", "-D", str(self._folder / "data"), "-p", str(self._port), *options)
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                await (await asyncpg.connect(self.dsn("postgres"))).close()
                return
            except (OSError, asyncpg.PostgresError):
                is_late = asyncio.get_running_loop().time() > deadline
                if is_late or self._process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()}") from None
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Drop all connections and end the server."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait)

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


@asynccontextmanager
async def running_postgres(tls: Issued | None = None) -> AsyncIterator[PostgresServer]:
    """A server for the tests of a session; with `tls` it has this certificate, and demands TLS.

    Skips without PostgreSQL, and fails on CI: there it has to be installed.
    """
    if binaries() is None:
        sentence = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    folder = Path(tempfile.mkdtemp(prefix="mandate-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = PostgresServer(folder, free_port(), tls)
    try:
        await asyncio.to_thread(server.initialize)
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
