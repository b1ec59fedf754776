"""What every test may use: a real Temporal server for the session, and a client of it."""

import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest
from temporalio.client import Client

# Importing it also keeps the session, and every process that imports it, from aborting at exit.
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer, run_private_server

FOLDERS = {"integration": "starts servers", "acceptance": "acts as a user does, with real processes"}
ALONE = "measures how long something is waited for, or needs the default port: no other test may run beside it"
CLUSTER = "needs Temporal's cluster server, which is built with Go, and PostgreSQL; leave it out with -m 'not cluster'"
LOOPBACK = ("127.0.0.1", "localhost")
OURS = ("MANDATE_", "TEMPORAL_", "OPENAI_", "ANTHROPIC_", "VLLM_")


def _apart() -> None:
    """No test, and no process that a test starts, sees a developer's settings, keys or proxy."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):
        known = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys((*known, *LOOPBACK)))


_apart()

# Nothing is asserted on seconds: how long an example takes says what else the machine does. `deploy/test.sh` tries more
# examples than whoever runs a file again and again.
hypothesis.settings.register_profile("mandate", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile("mandate")


def pytest_configure(config: pytest.Config) -> None:
    for folder, meaning in FOLDERS.items():
        config.addinivalue_line("markers", f"{folder}: {meaning}; set for all tests of that folder")
    config.addinivalue_line("markers", f"alone: {ALONE}")
    config.addinivalue_line("markers", f"cluster: {CLUSTER}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        if folder in FOLDERS:
            item.add_marker(folder)
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, int]:
    """Order the files for processes that share them.

    Unit tests come last: their files are short, so all processes end at about the same time. The others are mixed,
    always in the same way: those that start many processes have similar names, and should not all run at once.
    """
    file = item.nodeid.partition("::")[0]
    return not any(map(item.get_closest_marker, FOLDERS)), zlib.crc32(file.encode())


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[DevServer]:
    """A private server, in memory, gone with the session."""
    async with run_private_server() as server:
        yield server


@pytest.fixture(scope="session")
async def client(temporal: DevServer) -> Client:
    return await connect(address=temporal.address)
