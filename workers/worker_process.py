"""A worker in a process of its own, which ends with the process that has started it."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mandate.activities import child_processes, private_files

STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running worker process."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ended(self) -> int:
        """Wait for the end of the process and return its exit code."""
        while (code := self.process.poll()) is None:  # noqa: ASYNC110 a thread that waits would hold the demo's end up
            await asyncio.sleep(0.1)
        return code

    def kill(self) -> None:
        """End the process without a warning, as a crashed machine would."""
        self.process.kill()
        self.process.wait()

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask the process to end, and do not wait for longer than `seconds`."""
        self.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended(), seconds)
        self.kill()

    def last_words(self) -> str:
        """Return the end of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-5:])


def start_worker(environment: Mapping[str, str], log: Path, *options: str) -> WorkerProcess:
    """Start `mandate worker` with `environment` in addition to this process's; its output goes to `log`."""
    # -P: a file of the working folder replaces no installed module, as with the program `mandate`.
    words = ["-P", "-m", "mandate.workers.main", "worker", *options]
    with private_files.open_own(log, "ab") as output:
        return WorkerProcess(child_processes.start_python(words, {**os.environ, **environment}, output), log)
