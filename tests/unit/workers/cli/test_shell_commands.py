from pathlib import Path

import pytest

from mandate.workers.cli import shell_commands


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ("project", ".venv/bin/mandate"),
        ("project/.venv/bin", "./mandate"),
        ("", "project/.venv/bin/mandate"),
    ],
)
def test_path_below_the_working_directory_is_typed_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, words: str
) -> None:
    script = tmp_path / "project" / ".venv" / "bin" / "mandate"
    script.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / below)

    assert shell_commands.typed(script) == words


def test_long_command_is_broken_between_its_words_as_a_shell_takes_it() -> None:
    command = "'/my agents/mandate' show shop-1234 --address 127.0.0.1:7233"

    assert shell_commands.broken(command, 80) == f"  {command}"
    assert shell_commands.broken(command, 44) == (
        "  '/my agents/mandate' show shop-1234 \\\n    --address 127.0.0.1:7233"
    )


def test_option_stays_with_its_value() -> None:
    command = "mandate approve shop-1234:r1 --address 127.0.0.1:7233 --by ann@example.com"

    assert shell_commands.broken(command, 70) == (
        "  mandate approve shop-1234:r1 --address 127.0.0.1:7233 \\\n    --by ann@example.com"
    )


def test_path_elsewhere_is_typed_whole_and_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    assert shell_commands.typed(tmp_path / "my agents" / "mandate") == f"'{tmp_path}/my agents/mandate'"


def test_program_that_is_on_path_is_typed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mandate", "temporal", "temporal-agent"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert shell_commands.own("mandate") == "mandate"
    assert shell_commands.own("temporal agent") == "temporal agent"
    assert shell_commands.temporal(Path("/cache/temporal-1.8.2")) == "temporal"


def test_program_that_is_not_on_path_is_typed_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    python = tmp_path / "bin" / "python"
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.chdir(tmp_path)

    assert shell_commands.own("mandate") == "bin/python -m mandate.workers.main"
    python.parent.mkdir()
    python.with_name("mandate").touch()
    assert shell_commands.own("mandate") == shell_commands.own("temporal agent") == "bin/mandate"
    assert shell_commands.temporal(tmp_path / "temporal-1.8.2") == "./temporal-1.8.2"
    assert shell_commands.temporal(None) == "temporal"


def test_command_for_another_folder_is_typed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.with_name("mandate").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", str(python))

    assert shell_commands.own("mandate") == ".venv/bin/mandate"
    assert shell_commands.own("mandate", is_elsewhere=True) == str(python.with_name("mandate"))
    assert shell_commands.python() == str(python)
