"""Commands as one types them in the shell that started this process."""

import re
import shlex
import shutil
import sys
from pathlib import Path


def own(program: str, *, is_elsewhere: bool = False) -> str:
    """Return what starts `program`, which is `mandate` or `temporal agent`, wherever it is installed.

    With `is_elsewhere` it is typed in another folder than this one.
    """
    needed = ("temporal", "temporal-agent") if program == "temporal agent" else (program,)
    if all(map(shutil.which, needed)):
        return program
    python = Path(sys.executable)
    script = python.with_name("mandate")
    write = _write_absolute if is_elsewhere else typed
    return write(script) if script.is_file() else f"{write(python)} -m mandate.workers.main"


def python() -> str:
    """Return what starts the interpreter of this process, in any folder."""
    return _write_absolute(Path(sys.executable))


def _write_absolute(path: Path) -> str:
    return shlex.quote(str(path.absolute()))


def temporal(binary: Path | None) -> str:
    """Return what starts Temporal's CLI; `binary` is the one that is known, if any is."""
    return "temporal" if binary is None or shutil.which("temporal") else typed(binary)


def broken(command: str, columns: int) -> str:
    """Return `command` after two blanks, on as many lines as `columns` demand; as a shell takes it."""
    lines = [""]
    # A quoted word is one word, whatever it holds, and an option stays with its value.
    for word in re.findall(r"(?:--?[\w-]+ +)?(?:'[^']*'|\S)+", command):
        if lines[-1] and len(lines[-1]) + len(word) > columns - 7:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "  " + " \\\n    ".join(lines)


def typed(path: Path) -> str:
    """Return `path` from the working directory if it is below it, else absolute; quoted where a shell needs it."""
    absolute, here = path.absolute(), Path.cwd()
    if not absolute.is_relative_to(here):
        return shlex.quote(str(absolute))
    below = str(absolute.relative_to(here))
    # Without a slash a shell would look for it on PATH.
    return shlex.quote(below if "/" in below else f"./{below}")
