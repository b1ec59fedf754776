"""Real `mandate` processes for tests, none of which outlives its test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
MANDATE = (sys.executable, "-m", "mandate.workers.main")


@dataclass
class Process:
    """One `mandate ...` and what it says."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def said(self, words: str, seconds: float = 60.0) -> None:
        """Wait until it has said `words` on stdout."""
        deadline = time.monotonic() + seconds
        while words not in self.stdout():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.stderr()}"
            assert time.monotonic() < deadline, f"never said {words!r}: {self.stdout()} {self.stderr()}"
            await asyncio.sleep(0.02)

    async def ended(self, seconds: float = 90.0) -> int:
        """Its exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still runs: {self.stdout()} {self.stderr()}"
            await asyncio.sleep(0.02)
        return code


@dataclass
class Processes:
    """Starts processes; their output goes to files in `folder`."""

    folder: Path
    environment: Mapping[str, str]
    started: list[Process] = field(default_factory=list)
    cwd: Path = PROJECT

    def mandate(self, *words: str, **environment: str) -> Process:
        """`mandate WORDS` in the folder `cwd`, the project's if nothing else is said."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(self.started)}-{words[0]}"
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [*MANDATE, *words],
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment, **environment},
                start_new_session=True,
            )
        self.started.append(Process(process, out, err))
        return self.started[-1]

    async def worker(self, **environment: str) -> Process:
        """A worker that polls."""
        worker = self.mandate("worker", **environment)
        await worker.said("Task queue")
        return worker


@contextlib.contextmanager
def processes(folder: Path, **environment: str) -> Iterator[Processes]:
    """Processes that are killed, each by its pid, at the end of the block."""
    started = Processes(folder, environment)
    try:
        yield started
    finally:
        for each in started.started:
            if each.process.poll() is None:
                each.process.kill()
            each.process.wait(10)


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found
