"""`mandate cache`: what is kept, and its removal."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mandate.activities.stores.address import open_store
from tests.integration.cli.test_keys_cli import typed
from tests.support.store_conformance import kept
from tests.support.store_writer import key


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three results of two tools, and one that has expired."""
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("MANDATE_STORE", url)

    async def fill() -> None:
        opened = open_store(url)
        await opened.keep(key(0), kept("search", size=1500), timedelta(minutes=10))
        await opened.keep(key(1), kept("lookup"), timedelta(minutes=10))
        await opened.keep(key(2), kept("lookup", "orders"), timedelta(minutes=10))
        await opened.keep(key(3), kept("old"), timedelta(microseconds=1))
        await opened.cached(key(1))
        await opened.close()

    asyncio.run(fill())
    return url


def left(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    code, out, _ = typed(capsys, "cache", "-o", "json")
    assert code == 0
    return {one["tool"]: one["entries"] for one in json.loads(out)["tools"]}


def test_what_is_kept_is_listed_by_tool(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "cache")

    assert (code, err) == (0, "")
    head, lookup, search = (line.split() for line in out.splitlines())
    assert head == ["tool", "results", "bytes", "oldest", "hits"]
    assert (lookup[:3], lookup[-3:]) == (["lookup", "2", "40"], ["s", "ago", "1"])
    assert (search[:3], search[-3:]) == (["search", "1", "1,500"], ["s", "ago", "0"])


def test_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "cache", "--agent", "orders", "-o", "json")

    (one,) = json.loads(out)["tools"]
    age = datetime.now(UTC) - datetime.fromisoformat(one.pop("oldest"))
    assert code == 0
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert one == {"tool": "lookup", "entries": 1, "bytes": 20, "hits": 0}


@pytest.mark.parametrize(
    ("words", "cleared", "says", "rest"),
    [
        ((), 3, "clear 3 results of lookup, search\n", {}),
        (("--tool", "lookup"), 2, "clear 2 results of lookup\n", {"search": 1}),
        (("--tool", "lookup", "--agent", "orders"), 1, "clear 1 result of lookup\n", {"lookup": 1, "search": 1}),
        (("--tool", "none"), 0, "", {"lookup": 2, "search": 1}),
    ],
)
def test_what_was_cleared_is_gone(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], cleared: int, says: str, rest: dict[str, int]
) -> None:
    code, out, err = typed(capsys, "cache", "clear", *words, "--yes", "-o", "json")

    assert (code, json.loads(out), err) == (0, {"cleared": cleared}, says)
    assert left(capsys) == rest


def test_clearing_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, "cache", "clear", "--tool", "lookup", "-y")[:2] == (0, "cleared 2 results\n")
    assert typed(capsys, "cache", "clear", "--tool", "search", "-y")[:2] == (0, "cleared 1 result\n")
    assert typed(capsys, "cache", "clear") == (0, "no results are kept\n", "")
    assert typed(capsys, "cache") == (0, "no results are kept\n", "")


def test_nothing_is_cleared_where_nobody_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "cache", "clear")

    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "error: nobody can be asked whether to clear 3 results; add --yes"
    assert left(capsys) == {"lookup": 2, "search": 1}


def test_nothing_is_cleared_when_the_person_says_no(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "n\n", raising=False)

    code, out, err = typed(capsys, "cache", "clear")

    assert (code, out) == (1, "")
    assert err.endswith("error: nothing was cleared\n")
    assert left(capsys) == {"lookup": 2, "search": 1}


def test_another_word_than_clear_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "cache", "clean")

    assert (code, out) == (2, "")
    assert err == "error: Invalid value for 'action': 'clean' is not one of 'clear'; see `mandate cache --help`\n"


def test_store_is_not_made_by_looking_for_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MANDATE_STORE", f"sqlite:///{tmp_path}/none.db")

    code, out, err = typed(capsys, "cache", "clear", "--yes")

    assert (code, out) == (2, "")
    assert err == f"error: there is no sqlite:///{tmp_path}/none.db; set MANDATE_STORE to the workers' store\n"
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("action", [("clear", "--yes"), ()])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--tool", "none"), "no results of 'none' are kept; there are results of lookup, search"),
        (("--agent", "none"), "no results of runs of 'none' are kept; there are results of lookup, search"),
        (
            ("--tool", "search", "--agent", "orders"),
            "no results of 'search' of runs of 'orders' are kept; there are results of lookup, search",
        ),
    ],
)
def test_nothing_of_what_was_chosen_is_told_beside_what_there_is(
    capsys: pytest.CaptureFixture[str], action: tuple[str, ...], words: tuple[str, ...], line: str
) -> None:
    assert typed(capsys, "cache", *action, *words) == (0, f"{line}\n", "")
    assert left(capsys) == {"lookup": 2, "search": 1}
