"""`mandate worker --watch`: a worker process for each state of the files, the last good one always serving."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mandate.activities import child_processes
from mandate.workers.cli import watched_files
from mandate.workers.cli.errors import DONE
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.signals import stop_signals
from mandate.workers.cli.watched_files import Stamps, WatchedFiles
from mandate.workers.settings import Settings

LOOK_SECONDS = 0.3
"""Between two looks at the files; a change is taken up once they were the same at two looks."""

STOP_SECONDS = 35.0
"""More than a worker that is stopped lets calls finish; those of a worker that was replaced have longer."""


async def watch(call: Invocation, settings: Settings) -> int:
    """Serve with the files as they are, again and again; return the exit code.

    Each state of the files has a process of its own, so that modules of tools are read anew. It takes the place of the
    one before once it serves; if it does not start, the one before goes on.
    """
    with tempfile.TemporaryDirectory(prefix="mandate-watch-") as folder:
        supervisor = _Supervisor(call, WatchedFiles.of(settings), Path(folder))
        with stop_signals(supervisor.tell_stop) as stopped:
            code = await supervisor.run(stopped)
            await supervisor.stop()
        return code


@dataclass(slots=True)
class _Child:
    """A worker process, and the file that it makes once it serves."""

    process: subprocess.Popen[bytes]
    sign: Path

    @property
    def is_serving(self) -> bool:
        return self.sign.exists()

    @property
    def code(self) -> int | None:
        """Exit code; `None` while it runs."""
        return self.process.poll()

    def end(self) -> None:
        """Ask the process to end; it lets calls finish the first time, and waits for nothing the second time."""
        with suppress(ProcessLookupError):
            self.process.terminate()


@dataclass(slots=True)
class _Supervisor:
    call: Invocation
    files: WatchedFiles
    folder: Path
    serving: _Child | None = None
    replaced: list[_Child] = field(default_factory=list)
    """Workers that finish the calls that they have in hand."""
    _started: int = 0

    def tell_stop(self) -> None:
        self.call.out.note("stopping; a second signal does not wait for calls in hand")

    async def run(self, stopped: asyncio.Event) -> int:
        stamps = self.files.read()
        fresh: _Child | None = self._start()
        while not stopped.is_set():
            await _sleep(stopped)
            if fresh is not None and fresh.is_serving:
                self._replace(fresh)
                fresh = None
            elif fresh is not None and fresh.code is not None:
                if self.serving is None:
                    return fresh.code
                self._tell_kept(fresh.code)
                fresh = None
            self._look_after()
            now = self.files.read()
            if not (changed := watched_files.list_changes(stamps, now)):
                continue
            stamps = await self._settled(now, stopped)
            if fresh is not None and fresh.is_serving:
                # It came to serve since the last look: the next one may not start.
                self._replace(fresh)
            elif fresh is not None:
                # It reads files that are out of date by now.
                await self._give_up(fresh)
            self.call.out.note(f"{watched_files.describe(changed)} changed; starting a worker with the files of now")
            fresh = self._start()
        if fresh is not None:
            self.replaced.append(fresh)
        return DONE

    async def _settled(self, stamps: Stamps, stopped: asyncio.Event) -> Stamps:
        """Wait until the files stay as they are: editors and checkouts write several."""
        while not stopped.is_set():
            await _sleep(stopped)
            now = self.files.read()
            if now == stamps:
                break
            stamps = now
        return stamps

    def _start(self) -> _Child:
        self._started += 1
        sign = self.folder / str(self._started)
        words = [word for word in sys.argv[1:] if word != "--watch"]
        # -P: a file of the working folder replaces no installed module, as with the program `mandate`.
        process = child_processes.start_python(["-P", "-m", "mandate.workers.main", *words, "--sign", str(sign)])
        child_processes.register(process.pid)
        return _Child(process, sign)

    def _replace(self, fresh: _Child) -> None:
        if self.serving is not None and self.serving.code is None:
            self.serving.end()
            self.replaced.append(self.serving)
            self.call.out.note(
                "the worker with the new files serves; the one before begins nothing more and finishes its calls"
            )
        self.serving = fresh

    def _tell_kept(self, code: int) -> None:
        assert self.serving is not None
        goes_on = "the one before goes on" if self.serving.code is None else "no worker serves"
        self.call.out.note(
            f"the worker with the new files did not start (exit code {code}); {goes_on} until the files change again"
        )

    def _look_after(self) -> None:
        """Forget processes that have ended, and tell of the one that serves if it has."""
        for child in [child for child in self.replaced if child.code is not None]:
            child_processes.release(child.process.pid)
            self.replaced.remove(child)
        if self.serving is not None and self.serving.code is not None and self.serving.is_serving:
            self.serving.sign.unlink()
            self.call.out.note(f"the worker ended with code {self.serving.code}; it starts anew when a file changes")

    async def _give_up(self, fresh: _Child) -> None:
        fresh.end()
        await _ended([fresh], LOOK_SECONDS)
        fresh.process.kill()
        fresh.process.wait()
        child_processes.release(fresh.process.pid)

    async def stop(self) -> None:
        """End all workers: first those that serve begin nothing more, then what takes too long is cut off and told."""
        if self.serving is not None:
            self.serving.end()
            self.replaced.append(self.serving)
        left = await _ended(self.replaced, STOP_SECONDS)
        if left:
            self.call.out.note("a worker still had calls in hand and was ended; their effect says what becomes of them")
        for child in left:
            child_processes.send(child.process.pid, signal.SIGKILL)
            child.process.wait()


async def _ended(children: Sequence[_Child], seconds: float) -> list[_Child]:
    """Wait until all have ended, and return those that have not within `seconds`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := [child for child in children if child.code is None]) and loop.time() < until:  # noqa: ASYNC110 processes tell nobody
        await asyncio.sleep(0.05)
    return left


async def _sleep(stopped: asyncio.Event) -> None:
    """Sleep until the next look at the files, or until it is to stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)
