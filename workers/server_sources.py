"""Two ways to get a Temporal server binary that is not on the machine: Temporal's downloads, and a build with Go."""

import json
import platform
import queue
import re
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, TypeVar

from activities import files

T = TypeVar("T")

PACKAGE = "github.com/temporalio/cli/cmd/temporal"
OLDEST_GO = (1, 26)
LOOKUP_SECONDS = 5.0
"""Without internet nobody waits longer than this for the download to be given up."""
STALL_SECONDS = 20.0
TELL_SECONDS = 10.0
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Unavailable(Exception):
    """One way to get the binary does not work here; the text is one sentence without a full stop."""


def download(base: str, version: str, target: Path, on_progress: Callable[[str], None]) -> None:
    """Writes the released binary of this platform to `target`.

    Raises:
        Unavailable: no network, no such release, or a broken archive.
    """
    machine = ARCHITECTURES.get(platform.machine().lower())
    if machine is None or sys.platform not in {"linux", "darwin"}:
        raise Unavailable(f"there is no download for {sys.platform} on {platform.machine()}")
    query = urllib.parse.urlencode({"arch": machine, "platform": sys.platform, "format": "tar.gz"})
    lookup = f"{base}/v{version}?{query}"
    try:
        release = json.loads(within(LOOKUP_SECONDS, lambda: get(lookup, LOOKUP_SECONDS).read(65536)))
        archive_url, name = str(release["archiveUrl"]), str(release["fileToExtract"])
        on_progress(f"downloading the Temporal server {version}")
        with get(archive_url, STALL_SECONDS) as response:
            extract(response, name, target, on_progress)
    except (OSError, HTTPException, EOFError, zlib.error, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        host = urllib.parse.urlsplit(base).hostname
        raise Unavailable(f"the download from {host} failed: {said_by(error)}") from None


def get(url: str, timeout_seconds: float) -> HTTPResponse:
    """An open response; only https, or plain http to this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise ValueError(f"{url!r} is not an https address")
    response: HTTPResponse = urllib.request.urlopen(url, timeout=timeout_seconds)  # noqa: S310 the scheme is checked
    return response


def within(seconds: float, action: Callable[[], T]) -> T:
    """What `action` returns or raises; `TimeoutError` when it is late.

    A name look-up ignores socket timeouts, so the action gets a thread that is left behind when it is late.
    """
    outcome: queue.Queue[T | Exception] = queue.Queue()

    def run() -> None:
        try:
            outcome.put(action())
        except Exception as error:  # noqa: BLE001 raised again by the caller's thread
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        answer = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def extract(archive: IO[bytes], name: str, target: Path, on_progress: Callable[[str], None]) -> None:
    """Writes the one file `name` of a tar.gz stream to `target`; nothing else of it touches the disk."""
    with tarfile.open(fileobj=archive, mode="r|gz") as members:
        for member in members:
            content = members.extractfile(member) if member.isfile() and Path(member.name).name == name else None
            if content is None:
                continue
            with files.open_own(target, "wb") as file:
                told_at = time.monotonic()
                while block := content.read(1 << 20):
                    file.write(block)
                    if time.monotonic() - told_at > TELL_SECONDS:
                        told_at = time.monotonic()
                        on_progress(f"downloading the Temporal server: {file.tell() >> 20} of {member.size >> 20} MB")
            return
    raise ValueError(f"the archive has no file {name!r}")


def said_by(error: Exception) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    if isinstance(error, KeyError):
        return f"the answer has no {error}"
    return str(error) or type(error).__name__


def build(module: Path | None, version: str, target: Path, on_progress: Callable[[str], None]) -> None:
    """Compiles the binary from the Go module at `module`; takes two to six minutes on two cores.

    Raises:
        Unavailable: no module, no Go, Go too old, or the build failed.
    """
    if module is None:
        raise Unavailable("it cannot be built, because this installation lacks the folder deploy/temporal-cli")
    check_go(module)
    on_progress("the Temporal server is not on this machine: building it with Go, once; this takes some minutes")
    started_at = time.monotonic()

    def fetched(lines: int) -> str:
        return f"fetching the sources of the Temporal server: {lines} modules, {time.monotonic() - started_at:.0f} s"

    packages = go(module, ["list", "-deps", PACKAGE], fetched, on_progress)
    total = len(packages.splitlines())

    def compiled(lines: int) -> str:
        return f"building the Temporal server: {lines} of {total} packages, {time.monotonic() - started_at:.0f} s"

    flags = f"-s -w -X github.com/temporalio/cli/internal/temporalcli.Version={version}"
    go(module, ["build", "-v", "-trimpath", "-ldflags", flags, "-o", str(target), PACKAGE], compiled, on_progress)


def check_go(module: Path) -> None:
    """Raises `Unavailable` unless a Go is there that is new enough, or that may fetch a newer one for this module."""
    needed = ".".join(map(str, OLDEST_GO))
    try:
        said = subprocess.run(["go", "version"], cwd=module, capture_output=True, text=True, check=False)  # noqa: S607 the user's Go
    except OSError:
        raise Unavailable(f"it cannot be built, because Go {needed} or newer is not on PATH") from None
    match = re.search(r"\bgo(\d+)\.(\d+)", said.stdout)
    if match is None:
        raise Unavailable(
            f"it cannot be built, because `go version` says {(said.stdout + said.stderr).strip()[:200]!r}"
        )
    if tuple(map(int, match.groups())) < OLDEST_GO:
        raise Unavailable(f"it cannot be built with {match.group()}; Go {needed} or newer is needed")


def go(module: Path, arguments: list[str], line: Callable[[int], str], on_progress: Callable[[str], None]) -> str:
    """Standard output of one `go` command; every line that it writes on standard error counts as progress."""
    command = ["env", "CGO_ENABLED=0", "go", *arguments]
    done: list[str] = []
    finished = threading.Event()

    def tell() -> None:
        while not finished.wait(TELL_SECONDS):
            on_progress(line(len(done)))

    with subprocess.Popen(  # noqa: S603 fixed arguments
        command, cwd=module, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018 for the type checker
        output: queue.Queue[str] = queue.Queue()
        stdout = process.stdout
        threading.Thread(target=lambda: output.put(stdout.read()), daemon=True).start()
        threading.Thread(target=tell, daemon=True).start()
        try:
            done.extend(process.stderr)
        except BaseException:
            process.kill()
            raise
        finally:
            finished.set()
    if process.returncode != 0:
        last = " | ".join(text.strip() for text in done[-3:])
        raise Unavailable(f"building it with Go failed: {last or f'exit code {process.returncode}'}")
    return output.get()
