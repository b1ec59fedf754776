"""Secrets are found in the environment or a folder, and are shown nowhere."""

from pathlib import Path

import pytest

from mandate.workers.secrets import Secrets, names

VALUE = "s3cr3t-271828"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "FILED").write_text(f"{VALUE}\n")
    (tmp_path / "BOTH").write_text("of the file")
    (tmp_path / "EMPTY").write_text("\n")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe\x00")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("plain", "plain"),
        ("Bearer ${secret:TOKEN}", "Bearer of the environment"),
        ("${secret:FILED}", VALUE),
        ("${secret:BOTH}", "first"),
        ("${secret:TOKEN}:${secret:FILED}:${secret:TOKEN}", f"of the environment:{VALUE}:of the environment"),
        ("${secret:NESTED}", "${secret:TOKEN}"),
        ("$secret:TOKEN {secret:TOKEN} ${TOKEN}", "$secret:TOKEN {secret:TOKEN} ${TOKEN}"),
    ],
)
def test_secret_is_put_in_place(text: str, resolved: str, folder: Path) -> None:
    secrets = Secrets({"TOKEN": "of the environment", "BOTH": "first", "NESTED": "${secret:TOKEN}"}, folder)

    assert secrets(text) == resolved


@pytest.mark.parametrize("name", ["ABSENT", "EMPTY", "BLANK"])
def test_missing_secret_is_named(name: str, folder: Path) -> None:
    secrets = Secrets({"BLANK": "", "TOKEN": VALUE}, folder)

    with pytest.raises(LookupError) as missing:
        secrets(f"${{secret:TOKEN}} ${{secret:{name}}}")

    assert missing.value.args == (f"secret {name!r} is neither in the environment nor in {folder}",)


def test_secret_that_is_no_text_is_named_with_the_place(folder: Path) -> None:
    with pytest.raises(LookupError) as unreadable:
        Secrets({}, folder)("${secret:BINARY}")

    assert unreadable.value.args == (f"secret 'BINARY' in {folder} is not UTF-8 text: line 1, column 1",)


def test_secret_of_the_environment_that_is_no_text_is_named() -> None:
    with pytest.raises(LookupError) as unreadable:
        Secrets({"RAW": "caf\udce9"})("${secret:RAW}")

    assert unreadable.value.args == ("secret 'RAW' in the environment is not UTF-8 text",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_mark_of_the_encoding_is_no_part_of_a_secret(encoding: str, folder: Path) -> None:
    (folder / "MARKED").write_bytes("s3cret\r\n".encode(encoding))

    assert Secrets({}, folder)("${secret:MARKED}") == "s3cret"


def test_missing_secret_without_a_folder_is_named() -> None:
    with pytest.raises(LookupError) as missing:
        Secrets({})("${secret:ABSENT}")

    assert missing.value.args == ("secret 'ABSENT' is not in the environment, and there is no folder of secrets",)


def test_all_missing_secrets_are_found_at_once(folder: Path) -> None:
    texts = ["${secret:B} ${secret:FILED}", "none", "${secret:A}", "${secret:B}"]

    assert Secrets({}, folder).missing(texts) == ("B", "A")


@pytest.mark.parametrize("text", ["${secret:}", "${secret:A", "${secret:../etc/passwd}", "${secret:A} ${secret: B}"])
def test_misspelt_secret_is_refused(text: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="a secret is written '\\$\\{secret:NAME\\}'"):
        names(text)
    with pytest.raises(ValueError, match="a secret is written"):
        Secrets({"A": VALUE}, folder)(text)


def test_secret_read_again_is_the_rotated_one(folder: Path) -> None:
    secrets = Secrets({}, folder)
    before = secrets("${secret:FILED}")

    (folder / "FILED").write_text("rotated\r\n")

    assert (before, secrets("${secret:FILED}")) == (VALUE, "rotated")


def test_representation_shows_nothing(folder: Path) -> None:
    assert repr(Secrets({"TOKEN": VALUE}, folder)) == "Secrets()"
