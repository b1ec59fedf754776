"""One fake provider for a module of tests, and the real adapters of the three protocols on it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import ADAPTERS, Adapter


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeProvider) -> FakeProvider:
    server.reset()
    return server


@pytest.fixture(scope="module")
async def adapters(server: FakeProvider) -> AsyncIterator[dict[str, Adapter]]:
    made = {protocol: make(server.url) for protocol, make in ADAPTERS.items()}
    yield made
    for adapter in made.values():
        await adapter.close()
