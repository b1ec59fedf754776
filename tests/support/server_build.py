"""Temporal's cluster server and its schema tool, built from their Go module and kept for the next time.

    python tests/support/server_build.py

builds them, if they are not there yet, and prints their folder. It needs Go and the module proxy, and nothing beyond
the standard library of Python, so that a build can begin before there is an environment.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.32.0"
"""Of the server that is in the embedded one too; a test holds them together."""

BUILD_SECONDS = 1500
"""Longest build: beside all tests, and with modules that have to be downloaded first."""

MODULE = "go.temporal.io/server"

PROGRAMS = {
    f"{MODULE}/cmd/server": ("server", "temporal-server"),
    f"{MODULE}/cmd/tools/sql": ("sql", "temporal-sql-tool"),
}
"""Packages, with the names that Go gives to their programs and that Temporal's releases give them."""


class NoServer(Exception):
    """There is no server, and none can be built; the sentence says why."""


@dataclass(frozen=True, slots=True)
class ServerBinaries:
    """The two programs of a cluster."""

    folder: Path

    @property
    def server(self) -> Path:
        """`temporal-server`: all services of a cluster in one process, or one of them."""
        return self.folder / "temporal-server"

    @property
    def sql_tool(self) -> Path:
        """`temporal-sql-tool`: makes the databases; it carries the schema."""
        return self.folder / "temporal-sql-tool"

    @property
    def is_complete(self) -> bool:
        return self.server.is_file() and self.sql_tool.is_file()


def kept() -> ServerBinaries:
    """Return where the programs are kept: a folder of the user's cache, by version and platform."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    system = f"{platform.system()}-{platform.machine()}".lower()
    return ServerBinaries(cache / "mandate" / f"temporal-server-{VERSION}-{system}")


def build() -> ServerBinaries:
    """Return the programs, built first if need be; of several processes at once, one builds and the others wait.

    Raises:
        NoServer: Go is missing, or the build fails.
    """
    binaries = kept()
    if binaries.is_complete:
        return binaries
    go = shutil.which("go")
    if go is None:
        raise NoServer("Go is not installed, and builds Temporal's server (https://go.dev/dl)")
    binaries.folder.mkdir(parents=True, exist_ok=True)
    with (binaries.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binaries.is_complete:
            _install(go, binaries.folder)
    return binaries


def _install(go: str, folder: Path) -> None:
    made = folder / "bin"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(made)}
    packages = [f"{package}@v{VERSION}" for package in PROGRAMS]
    command = [go, "install", "-trimpath", "-ldflags", "-s -w", *packages]
    # The module alone says which versions of others it is built with: no file of ours can differ.
    try:
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NoServer(f"Temporal's server {VERSION} could not be built within {BUILD_SECONDS} s") from None
    if ran.returncode != 0:
        last = ran.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise NoServer(f"Temporal's server {VERSION} cannot be built: {last[0]}")
    for program, name in PROGRAMS.values():
        (made / program).replace(folder / name)
    made.rmdir()


if __name__ == "__main__":
    try:
        print(build().folder)
    except NoServer as error:
        sys.exit(str(error))
