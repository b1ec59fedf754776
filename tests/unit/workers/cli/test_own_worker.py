"""Workers that a command may rely on: those that may still be there, and outlive it."""

import os
import socket
import subprocess
import sys

from mandate.workers.cli import own_worker
from mandate.workers.client.pollers import Poller

HOST = socket.gethostname()


def ended() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_counts_unless_it_has_ended_or_ends_with_its_command() -> None:
    identities = {
        f"{os.getpid()}@{HOST}": True,
        f"{ended()}@{HOST}": False,
        f"{os.getpid()}@elsewhere": True,
        "payments-1": True,
        f"{own_worker.PREFIX}{os.getpid()}@{HOST}": False,
    }

    assert {identity: own_worker.may_stay(Poller(identity, 0)) for identity in identities} == identities
