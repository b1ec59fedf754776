"""Files that `mandate worker --watch` looks at, and what it says of changes."""

import os
from pathlib import Path

import pytest

from mandate.workers.cli.watched_files import WatchedFiles, describe, list_changes
from mandate.workers.settings import Settings

FILES = (
    "agents/till.yaml",
    "agents/accepted/words.json",
    "plans/refund.yaml",
    "policies/limits.yaml",
    "mandate.yaml",
    "tools.py",
    "shop/books.py",
)
OTHERS = (
    "books.json",
    "notes.txt",
    "agents/.till.yaml.swp",
    "agents/notes.txt",
    ".hidden/tool.py",
    "shop/__pycache__/books.py",
    "node_modules/x/y.py",
    "env/lib/z.py",
    "state/kept.py",
    "elsewhere.yaml",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (*FILES, *OTHERS, "env/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def watched() -> WatchedFiles:
    return WatchedFiles.of(Settings.from_environment({"MANDATE_AGENTS": "agents", "MANDATE_FOLDER": "state"}))


def test_files_that_a_worker_reads_are_watched_and_no_others(project: Path) -> None:
    assert sorted(watched().read()) == sorted(project / name for name in FILES)


def test_file_of_providers_is_watched(project: Path) -> None:
    (project / "providers.yaml").touch()

    assert project / "providers.yaml" in watched().read()


def test_files_of_one_agent_are_watched_with_its_folder(project: Path) -> None:
    settings = Settings.from_environment({"MANDATE_AGENTS": "agents/till.yaml", "MANDATE_FOLDER": "state"})

    assert sorted(WatchedFiles.of(settings).read()) == sorted(project / name for name in FILES)


def test_changes_are_files_that_were_changed_added_or_taken_away(project: Path) -> None:
    files = watched()
    before = files.read()

    (project / "agents" / "till.yaml").write_text("name: till")
    os.utime(project / "tools.py", ns=(1, 1))
    (project / "shop" / "books.py").unlink()
    (project / "more.py").touch()
    (project / "books.json").write_text("{}")

    changed = list_changes(before, files.read())
    assert changed == [project / name for name in ("agents/till.yaml", "more.py", "shop/books.py", "tools.py")]
    assert describe(changed) == "agents/till.yaml, more.py, shop/books.py and 1 more"
    assert describe([Path("/elsewhere/x.py")]) == "/elsewhere/x.py"
    assert list_changes(before, before) == []
