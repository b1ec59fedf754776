"""Child processes that must not outlive this one, each the leader of a process group."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

_groups: set[int] = set()

# A function run after a fork might find locks of other threads.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start_python(
    words: Sequence[str], environment: Mapping[str, str] | None = None, log: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start this interpreter with `words`; on Linux it ends with this process, however that ends.

    Environment and output are those of this process where none are given.
    """
    return subprocess.Popen(  # noqa: S603 our own program
        [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=dict(environment) if environment is not None else None,
        start_new_session=True,
    )


def register(group: int) -> None:
    """Have the group of this leader killed if the process ends before `release`."""
    _groups.add(group)


def release(group: int) -> None:
    """Forget a group that is gone; its number may be given to others."""
    _groups.discard(group)


def is_alive(group: int) -> bool:
    """Return whether any process of the group is left; one of another user counts."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(group: int, number: signal.Signals) -> None:
    """Signal all of the group that is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_all() -> None:
    """Kill what is left of every group: for a process that ends without waiting for anything."""
    while _groups:
        send(_groups.pop(), signal.SIGKILL)
