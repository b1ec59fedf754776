"""The Temporal server binary that the embedded server runs: found, or fetched once and then kept in a cache."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from activities import files
from workers import server_sources
from workers.server_sources import Unavailable
from workers.settings import Settings

VERSION = "1.8.2"
"""Release of the Temporal CLI, server included, that is fetched when none is found; `deploy/temporal-cli` builds it."""

OLDEST = (1, 8)
"""A `temporal` on PATH before this release lacks features that runs rely on."""

DOWNLOADS = "https://temporal.download/cli"

REMEDY = (
    "Install the Temporal CLI 1.8 or newer (https://docs.temporal.io/cli), "
    "or set TEMPORAL_ADDRESS to a Temporal server that runs."
)

Progress = Callable[[str], None]
"""Is told in one line what takes long; may be called from another thread."""


class ServerError(Exception):
    """The embedded server cannot be had; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where the binary is looked for."""

    cache: Path
    path: str
    """Folders separated by `:`, searched for `temporal`; a `PATH`."""
    module: Path | None
    """Folder of the Go module that builds the binary; `None` in an installation without it."""
    downloads: str = DOWNLOADS

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Search":
        """The places that `PATH` and `XDG_CACHE_HOME` name, and the checkout this package is in."""
        caches = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        module = Path(__file__).parent.parent / "deploy" / "temporal-cli"
        return cls(
            cache=caches / "mandate",
            path=environ.get("PATH", os.defpath),
            module=module if (module / "go.mod").is_file() else None,
        )

    @property
    def cached(self) -> Path:
        """The file that is kept, there or not."""
        return self.cache / f"temporal-{VERSION}"


def ensure_binary(on_progress: Progress, search: Search | None = None) -> Path:
    """The binary from PATH or the cache; else it is downloaded, else built, into the cache.

    Of several processes at once, one fetches and the others wait. Blocks for minutes when it builds.

    Raises:
        ServerError: names everything that was tried and what the user can do.
    """
    search = search or Search.of(Settings.from_environment().environment)
    tried: list[str] = []
    try:
        installed = on_path(search.path)
    except Unavailable as reason:
        tried.append(str(reason))
        on_progress(f"skipping the installed Temporal CLI: {reason}")
    else:
        if installed is not None:
            return installed
        tried.append("`temporal` is not on PATH")
    files.tighten(search.cached)
    if os.access(search.cached, os.X_OK):
        return search.cached
    try:
        with fetching(search, on_progress):
            if os.access(search.cached, os.X_OK):
                return search.cached
            return fetch(search, tried, on_progress)
    except OSError as error:
        why = error.strerror or error
        raise ServerError(f"the cache {str(search.cache)!r} cannot be used: {why}; set XDG_CACHE_HOME") from None


def on_path(path: str) -> Path | None:
    """`temporal` of `path`, or `None` if there is none.

    Raises:
        Unavailable: it is too old, or does not say its version.
    """
    found = shutil.which("temporal", path=path)
    if found is None:
        return None
    version = version_of(Path(found))
    if version < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise Unavailable(f"{found} is version {'.'.join(map(str, version))}, and {needed} or newer is needed")
    return Path(found)


def version_of(binary: Path) -> tuple[int, int, int]:
    """What `binary --version` says.

    Raises:
        Unavailable: it does not run, or says something else.
    """
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 the binary we are to run
    except OSError as error:
        raise Unavailable(f"{binary} does not run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{binary} does not say its version within 20 s") from None
    match = re.match(r"temporal version v?(\d+)\.(\d+)\.(\d+)", said.stdout)
    if match is None:
        raise Unavailable(f"{binary} does not say its version, but {(said.stdout or said.stderr).strip()[:200]!r}")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def fetch(search: Search, tried: list[str], on_progress: Progress) -> Path:
    """Downloads or builds the binary and moves it, whole and tried out, to its place in the cache."""
    for leftover in search.cache.glob(f"{search.cached.name}.partial-*"):
        leftover.unlink()
    partial = search.cache / f"{search.cached.name}.partial-{os.getpid()}"

    def download() -> None:
        server_sources.download(search.downloads, VERSION, partial, on_progress)

    def build() -> None:
        server_sources.build(search.module, VERSION, partial, on_progress)

    for obtain in (download, build):
        try:
            obtain()
            partial.chmod(0o700)
            version_of(partial)
            return partial.replace(search.cached)
        except Unavailable as reason:
            tried.append(str(reason))
        finally:
            partial.unlink(missing_ok=True)
    steps = "\n".join(f"  - {reason}" for reason in tried)
    raise ServerError(f"no Temporal server was found, and none could be fetched:\n{steps}\n{REMEDY}")


@contextlib.contextmanager
def fetching(search: Search, on_progress: Progress) -> Iterator[None]:
    """Held by the one process that fetches."""
    files.claim_folder(search.cache)
    with files.open_own(search.cache / f"{search.cached.name}.lock") as lock:
        told_at = None
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if told_at is None or time.monotonic() - told_at > 15:
                    on_progress("waiting for another process that fetches the Temporal server")
                    told_at = time.monotonic()
                time.sleep(0.2)
        yield


def main() -> int:
    """Prints where the binary is, fetching it first if need be; progress goes to standard error."""
    try:
        sys.stdout.write(f"{ensure_binary(lambda line: print(line, file=sys.stderr, flush=True))}\n")  # noqa: T201 a program
    except ServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
