"""What acceptance tests share."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.outages import DISK_MEGABYTES, Place, open_place
from tests.support.demo import npx
from tests.support.processes import Processes, processes
from tests.support.small_disk import NoDisk, small_disk


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    """Processes with a state folder of their own; `npx` fails, so that nothing is downloaded."""
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path / "state"), **npx(tmp_path, "exit 1")) as made:
        yield made


@pytest.fixture(scope="session")
async def cluster_place() -> AsyncIterator[Place]:
    """A cluster for all tests that want one, whose ways can be cut; its PostgreSQL is on a disk that can be filled.

    Without the right to mount, it has no disk.
    """
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(DISK_MEGABYTES))
        except NoDisk:
            disk = None
        async with open_place(disk) as opened:
            yield opened
