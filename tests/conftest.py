"""What every test may use: a real Temporal server for the session, and a client of it."""

import os
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from workers.client import connect
from workers.dev_server import DevServer, run_private_server

os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[DevServer]:
    """A private server, in memory, gone with the session."""
    async with run_private_server() as server:
        yield server


@pytest.fixture(scope="session")
async def client(temporal: DevServer) -> Client:
    return await connect(address=temporal.address)
