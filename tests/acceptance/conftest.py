"""What acceptance tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demo import npx
from tests.support.processes import Processes, processes


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    """Processes with a state folder of their own; `npx` fails, so that nothing is downloaded."""
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path / "state"), **npx(tmp_path, "exit 1")) as made:
        yield made
