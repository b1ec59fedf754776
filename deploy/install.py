"""Installs this checkout and its pinned dependencies with pip, and tells how far it is.

`.venv/bin/python deploy/install.py [EXTRA]`: into the environment of this interpreter, from where pip is configured to
look. Needs the standard library alone.
"""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TextIO

PROJECT = Path(__file__).parents[1]
CONSTRAINTS = PROJECT / "deploy" / "constraints.txt"

BUILD = ("hatchling", "editables")
"""Without build isolation the build backend is pinned like everything else, and not fetched a second time."""

SOURCES = ("workflows", "activities", "workers")

EVERY_SECONDS = 1.0
STILL_SECONDS = 5.0
"""After that long the same step is told again, for those who read lines."""

_STARTED = re.compile(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")
_SIZE = re.compile(r"\s+Downloading \S+ (\([\d.]+ [kMG]?B\))")
_INSTALLED = "Installing collected packages: "


class Progress:
    """Progress of pip, by the lines that it prints and by what it has installed."""

    def __init__(self, total: int, count_installed: Callable[[], int]) -> None:
        self._total = total
        self._count_installed = count_installed
        self._found: list[str] = []
        self._size = ""
        self._names: list[str] = []
        self._before = 0

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        if started := _STARTED.match(line.strip()):
            name = started[1].lower()
            if name not in self._found:
                self._found.append(name)
                self._size = ""
        elif size := _SIZE.match(line):
            self._size = f" {size[1]}"
        elif line.startswith(_INSTALLED):
            self._before = self._count_installed()
            self._names = line.removeprefix(_INSTALLED).strip().split(", ")

    def __str__(self) -> str:
        if self._names:
            done = min(max(self._count_installed() - self._before, 0), len(self._names) - 1)
            return f"installing {done + 1} of {len(self._names)}: {self._names[done]}"
        if self._found:
            count = len(self._found)
            return f"downloading {count} of {max(self._total, count)}: {self._found[-1]}{self._size}"
        return "looking for packages"


def main(arguments: Sequence[str]) -> int:
    """Install; the exit code is pip's."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*BUILD, *project["dependencies"]]
    for extra in arguments:
        wanted += project["optional-dependencies"][extra]
    progress = Progress(count_pinned(with_tests=bool(arguments)), count_distributions)
    # pip compiles one file after the other.
    code = run_pip(progress.read, progress, "--no-compile", "--constraint", str(CONSTRAINTS), *wanted)
    if code == 0:
        step = "installing this checkout"
        code = run_pip(lambda _: None, step, "--no-deps", "--no-build-isolation", "--editable", str(PROJECT))
    if code == 0:
        # Where the environment forbids Python to write bytecode, every start would compile all of it.
        folders = (sysconfig.get_path("purelib"), *SOURCES)
        command = (sys.executable, "-m", "compileall", "-qq", "-j", "0", *folders)
        # Some packages have files that no Python can compile.
        run(lambda _: None, "compiling, so that the first start is quick", command)
    return code


def count_pinned(*, with_tests: bool) -> int:
    """Count the packages that there will be about: a platform may need some more, or do without some."""
    lines = CONSTRAINTS.read_text().splitlines()
    end = len(lines) if with_tests else lines.index("# To test:")
    return sum("==" in line for line in lines[:end])


def count_distributions() -> int:
    """Count what is installed in this environment."""
    return sum(1 for _ in metadata.distributions())


def run_pip(read: Callable[[str], None], step: object, *words: str) -> int:
    """Run `pip install`; what it says is printed only when it fails."""
    pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        read(line)

    code = run(keep, step, (*pip, *words))
    if code:
        sys.stderr.writelines(lines)
        where = f"`{sys.executable} -m pip config list` shows where it looks"
        sys.stderr.write(f"error: pip ended with exit code {code}; what it said is above, and {where}\n")
    return code


def run(read: Callable[[str], None], step: object, command: Sequence[str]) -> int:
    """Run a command and tell every second which step it is at; `read` gets what it prints."""
    told = Teller(sys.stderr)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(  # noqa: S603 - Python itself, with pip
        command,
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    output = process.stdout
    reader = threading.Thread(target=lambda: [read(line) for line in output], daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            told.tell(str(step))
            reader.join(EVERY_SECONDS)
        reader.join()
    finally:
        told.end()
        # Ctrl-C reaches it too, other signals do not.
        process.terminate()
    return process.wait()


class Teller:
    """Steps on one line of a terminal, each on a line of its own elsewhere."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._is_terminal = stream.isatty()
        self._step = ""
        self._since = self._told = now()

    def tell(self, step: str) -> None:
        """Write the step, or how long it has taken so far."""
        now = self._now()
        if step != self._step:
            self._step, self._since = step, now
        elif now - self._told < (EVERY_SECONDS if self._is_terminal else STILL_SECONDS):
            return
        self._told = now
        seconds = int(now - self._since)
        text = f"  {step}{f', {seconds} s' if seconds >= STILL_SECONDS else ''}"
        self._stream.write(f"\r{text}\033[K" if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave an empty line to what comes next."""
        if self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
