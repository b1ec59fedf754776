"""Processes that die on purpose: another one is always started."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fault_plan import Point
from tests.support.processes import PROJECT, Process

JOIN_SECONDS = 1.0
"""Nobody is killed while more calls come to where they are to be hurt, so that they die together."""

JOIN_AT_MOST = 5.0

SUCCESSOR_SECONDS = 60.0
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Post:
    """What the processes of one crew are."""

    kind: str
    command: Sequence[str]
    says: str
    """On stdout, once it is ready."""
    size: int
    """How many of them there are at any time."""
    environment: Callable[[str], Mapping[str, str]]
    """By the name of the process."""


@dataclass
class Crew:
    """The processes of one post, by name; each new one has a new name."""

    post: Post
    folder: Path
    members: dict[str, Process] = field(default_factory=dict)
    started: int = 0
    _asked_at: float = 0.0
    _ready: set[str] = field(default_factory=set)
    _waits: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def ready(self) -> list[str]:
        return [name for name in self.members if name in self._ready]

    @property
    def dead(self) -> int:
        return self.started - len(self.members)

    async def keep(self) -> None:
        """Replace what has died, for ever."""
        while True:
            for name, process in list(self.members.items()):
                if process.process.poll() is not None:
                    del self.members[name]
            while len(self.members) < self.post.size:
                self._start()
            for failed in [task for task in self._waits if task.done()]:
                self._waits.remove(failed)
                failed.result()
            await asyncio.sleep(0.02)

    async def complete(self) -> None:
        """Wait until all of them are ready."""
        async with asyncio.timeout(START_SECONDS):
            while len(self.ready) < self.post.size:
                await asyncio.sleep(0.02)

    async def doomed(self, name: str) -> int | None:
        """The pid of a process that may be killed now, since another one stands ready; `None` if it is dead already."""
        began = time.monotonic()
        self._asked_at = began
        while time.monotonic() < min(self._asked_at + JOIN_SECONDS, began + JOIN_AT_MOST) and name in self.members:
            await asyncio.sleep(0.02)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SUCCESSOR_SECONDS):
                while not any(other != name for other in self.ready) and name in self.members:
                    await asyncio.sleep(0.02)
        self._ready.discard(name)
        process = self.members.get(name)
        return process.pid if process is not None and process.process.poll() is None else None

    def end(self) -> None:
        for process in self.members.values():
            with contextlib.suppress(ProcessLookupError):
                process.process.kill()
            process.process.wait(10)

    def _start(self) -> None:
        self.started += 1
        name = f"{self.post.kind}-{self.started}"
        self.folder.mkdir(parents=True, exist_ok=True)
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.post.environment(name)}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.post.command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        self.members[name] = Process(process, out, err)
        self._waits.add(asyncio.create_task(self._welcome(name)))

    async def _welcome(self, name: str) -> None:
        process = self.members[name]
        while self.post.says not in process.stdout():
            code = process.process.poll()
            if code is not None:
                assert code < 0, f"{name} ended with {code}: {process.stderr()}"
                return
            await asyncio.sleep(0.02)
        self._ready.add(name)


@asynccontextmanager
async def at_work(post: Post, folder: Path) -> AsyncIterator[Crew]:
    """A complete crew; all of it is killed at the end of the block, each by its pid."""
    crew = Crew(post, folder)
    keeping = asyncio.create_task(crew.keep())
    try:
        waiting = asyncio.create_task(crew.complete())
        await asyncio.wait({keeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
        await waiting
        yield crew
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        crew.end()


def write_receiver(folder: Path, port: int, keys: Iterable[str], *, seed: int, share: float) -> Post:
    """Return the receiver of payments; it hurts that `share` of those with these keys when they first arrive."""
    dice, points = random.Random(f"{seed} points"), (Point.LOSE_REPLY, Point.REFUSE)
    hurt = {key: [dice.choice(points)] for key in keys if dice.random() < share}
    (folder / "plan.json").write_text(json.dumps(hurt))
    command = [sys.executable, "-m", "tests.support.fault_server", "--database", str(folder / "faults.db")]
    command += ["--port", str(port), "--plan", str(folder / "plan.json")]
    return Post("receiver", command, "http://", 1, lambda _: {})
