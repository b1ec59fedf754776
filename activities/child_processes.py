"""Child processes that must not outlive this one, each the leader of a process group."""

import os
import signal
from contextlib import suppress

_groups: set[int] = set()


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
