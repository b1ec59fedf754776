"""The demo's worker: a process of its own, as in real life, so that it can be killed."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from mandate.activities import child_processes, private_files
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError

STOP_SECONDS = 5.0


class DemoWorker:
    """One worker process at a time, with `environment` beside this process's own; its output goes to `log`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._log = log

    def start(self, more: Mapping[str, str]) -> None:
        with private_files.open_own(self._log, "ab") as log:
            words = ["-m", "mandate.workers.main", "worker"]
            self.process = child_processes.start_python(words, {**self._environment, **more}, log)

    async def watch(self) -> NoReturn:
        """Raise `CliError` with the end of the log when the process ends by itself."""
        while (code := self.process.poll()) is None:  # noqa: ASYNC110 a waiting thread would hold the demo's end up
            await asyncio.sleep(0.1)
        end = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise CliError(f"the demo's worker ended with code {code}: {end}", ENDED_OTHERWISE)

    def kill(self) -> None:
        """End the process without a warning, as a crashed machine would."""
        self.process.kill()
        self.process.wait()

    async def stop(self) -> None:
        """Ask the process to end, and do not wait for long."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        self.kill()
