"""`mandate init`: what it makes, and that it makes all of it or nothing."""

import json
from pathlib import Path

import pytest

from mandate.workers.cli.init import FILES, SOURCE
from mandate.workers.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANDATE_USER", 'jo "j" o@example.com')
    return tmp_path


def init(*words: str) -> int:
    """Return the exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["init", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_all_files_are_made_and_the_next_commands_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = init("new/shop")

    told = capsys.readouterr()
    assert code == 0
    assert {name: (folder / "new/shop" / name).read_text() for name in FILES} == {
        name: (SOURCE / name).read_text().replace("you@example.com", r"jo \"j\" o@example.com") for name in FILES
    }
    assert [line.split()[0] for line in told.out.splitlines()[: len(FILES)]] == [f"new/shop/{name}" for name in FILES]
    assert told.out.splitlines()[len(FILES) :] == [
        "",
        'people.yaml has you as jo "j" o@example.com. Next:',
        "  cd new/shop",
        "  mandate validate",
        '  mandate run refunds "Order 81 arrived broken."',
        "It wants to refund 120 EUR, and waits for you. In another terminal, in the same folder:",
        "  mandate inbox",
        "  mandate approve 1",
    ]
    assert told.err == ""


def test_shipped_files_are_those_that_are_made() -> None:
    shipped = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.*") if path.parent.name != "__pycache__"}

    assert shipped == set(FILES)


def test_json_tells_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = init("-o", "json")

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "files": list(FILES),
        "agent": "refunds",
        "person": 'jo "j" o@example.com',
        "commands": ["mandate validate", 'mandate run refunds "Order 81 arrived broken."'],
        "answers": ["mandate inbox", "mandate approve 1"],
    }


@pytest.mark.parametrize("taken", list(FILES))
def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str], taken: str) -> None:
    path = folder / "shop" / taken
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = files_in(folder)

    code = init("shop")

    assert code == 2
    assert capsys.readouterr().err == (
        f"error: the folder 'shop' has {taken} already, and nothing is overwritten; "
        "name a new folder, for example `mandate init my-project`\n"
    )
    assert (files_in(folder), path.read_text()) == (before, "mine")


@pytest.mark.parametrize(("taken", "before"), [("shop", ["shop"]), ("shop/policies", ["shop", "shop/policies"])])
def test_what_cannot_be_made_leaves_nothing_behind(
    folder: Path, capsys: pytest.CaptureFixture[str], taken: str, before: list[str]
) -> None:
    (folder / taken).parent.mkdir(exist_ok=True)
    (folder / taken).write_text("a file, and no folder")

    code = init("shop")

    assert code == 2
    assert capsys.readouterr().err == "error: 'shop' cannot hold a project: Not a directory; nothing was made\n"
    assert files_in(folder) == before


def test_a_variable_that_wins_over_the_new_file_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANDATE_AGENTS", "elsewhere")

    code = init()

    assert code == 0
    assert capsys.readouterr().err == (
        "MANDATE_AGENTS is set, and wins over mandate.yaml: unset it to use the project's own\n"
    )
