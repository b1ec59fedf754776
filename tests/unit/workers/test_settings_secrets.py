"""Secrets of settings that are files, as orchestrators mount them."""

from pathlib import Path

import pytest

from mandate.workers.project import SettingsError
from mandate.workers.settings import SECRETS, Settings

WORD = "pg-secret-word"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "secrets"
    made.mkdir()
    return made


def read(folder: Path, **variables: str) -> Settings:
    return Settings.from_environment({"MANDATE_SECRETS": str(folder), **variables})


def test_secrets_come_from_files(folder: Path) -> None:
    for name in SECRETS:
        (folder / name).write_text(f"{name.lower()}\n")

    found = read(folder)

    assert found.store == "mandate_store"
    assert [found.providers[name].api_key for name in ("openai", "anthropic", "vllm")] == [
        "openai_api_key",
        "anthropic_api_key",
        "vllm_api_key",
    ]
    assert found.environment["TEMPORAL_API_KEY"] == "temporal_api_key"
    assert "temporal_api_key" not in repr(found)


def test_a_variable_wins_and_an_empty_one_does_not(folder: Path) -> None:
    (folder / "OPENAI_API_KEY").write_text("of the file")
    (folder / "MANDATE_STORE").write_text("postgresql://of.the.file/store")

    found = read(folder, OPENAI_API_KEY="of the variable", MANDATE_STORE="")

    assert (found.providers["openai"].api_key, found.store) == ("of the variable", "postgresql://of.the.file/store")


def test_files_as_kubernetes_mounts_them(folder: Path) -> None:
    (folder / "..1").mkdir()
    (folder / "..1" / "OPENAI_API_KEY").write_text("k")
    (folder / "..data").symlink_to("..1")
    (folder / "OPENAI_API_KEY").symlink_to("..data/OPENAI_API_KEY")

    assert read(folder).providers["openai"].api_key == "k"


def test_other_secrets_stay_in_their_files(folder: Path) -> None:
    """They are looked up each time, so that a changed file counts without a new start."""
    (folder / "OPENAI_API_KEY").write_text(WORD)

    assert "OPENAI_API_KEY" not in read(folder).environment


def test_a_secret_that_cannot_be_read_is_refused_without_its_value(folder: Path) -> None:
    (folder / "OPENAI_API_KEY").write_bytes(b"\xff" + WORD.encode())
    (folder / "MANDATE_STORE").mkdir()

    with pytest.raises(SettingsError) as refused:
        read(folder)

    assert str(refused.value).splitlines() == [
        f"{folder}/MANDATE_STORE: the secret cannot be read: Is a directory",
        f"{folder}/OPENAI_API_KEY: the secret cannot be read: it is not UTF-8 text",
    ]


def test_without_the_folder_there_are_none(folder: Path) -> None:
    assert read(folder / "nowhere").store == "sqlite:///.mandate/store.db"
