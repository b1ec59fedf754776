"""What every test may use: a real Temporal server for the session, and a client of it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest
from temporalio.client import Client

# Importing it also keeps the session, and every process that imports it, from aborting at exit.
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer, run_private_server

FOLDERS = {"integration": "starts servers", "acceptance": "acts as a user does, with real processes"}
MARKERS = {
    "alone": "measures how long something is waited for: no other test may run beside it",
    "long": "takes long: of several processes that share the tests, one begins with it",
}
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

# Nothing is asserted on seconds: how long an example takes says what else the machine does.
hypothesis.settings.register_profile("mandate", deadline=None)
hypothesis.settings.load_profile("mandate")


def pytest_configure(config: pytest.Config) -> None:
    for folder, meaning in FOLDERS.items():
        config.addinivalue_line("markers", f"{folder}: {meaning}; set for all tests of that folder")
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        if folder in FOLDERS:
            item.add_marker(folder)
    if hasattr(config, "workerinput"):
        # One of several processes: none is to be left with much to do when the others are done.
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, bool, bool]:
    """Order the longest first: those with the marker, then acceptance tests, then integration tests."""
    long, acceptance, integration = map(item.get_closest_marker, ("long", "acceptance", "integration"))
    return long is None, acceptance is None, integration is None


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[DevServer]:
    """A private server, in memory, gone with the session."""
    async with run_private_server() as server:
        yield server


@pytest.fixture(scope="session")
async def client(temporal: DevServer) -> Client:
    return await connect(address=temporal.address)
