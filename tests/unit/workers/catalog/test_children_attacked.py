"""Attacks on how agents are linked."""

from pathlib import Path

import pytest

from mandate.workers.catalog import children
from tests.unit.workers.catalog.test_children import load, write


def test_many_ways_down_to_an_agent_take_no_time_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty agents of two entries each would have a million ways."""
    links, link = list[str](), children.Family._link

    def count(*args: object) -> object:
        links.append("")
        return link(*args)

    monkeypatch.setattr(children.Family, "_link", count)
    entries = {
        f"a{number}": {
            "tools": [{"agent": f"a{number + 1}", "name": name} for name in ("one", "two")] if number < 9 else []
        }
        for number in range(10)
    }

    load(write(tmp_path, entries))

    assert len(links) <= 200
