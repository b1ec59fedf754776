"""The demo's worker: a process of its own, as in real life, so that it can be killed."""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.worker_process import WorkerProcess, start_worker


class DemoWorker:
    """One worker process at a time, with `environment` beside this process's own; its output goes to `log`."""

    process: WorkerProcess

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log

    def start(self, more: Mapping[str, str]) -> None:
        self.process = start_worker({**self._environment, **more}, self._log)

    async def watch(self) -> NoReturn:
        """Raise `CliError` with the end of the log when the process ends by itself."""
        while True:
            process = self.process
            code = await process.ended()
            # The one that was killed has a successor by now.
            if process is self.process:
                raise CliError(f"the demo's worker ended with code {code}: {process.last_words()}", ENDED_OTHERWISE)

    def kill(self) -> None:
        """End the process without a warning, as a crashed machine would."""
        self.process.kill()

    async def stop(self) -> None:
        """Ask the process to end, and do not wait for long."""
        await self.process.stop()
