"""Files that are replaced: whole or as they were, with the mode that they had."""

import stat
from pathlib import Path

import pytest

from mandate.activities import private_files


def test_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    own, users = tmp_path / "own.json", tmp_path / "agent.yaml"
    users.write_text("before")
    users.chmod(0o644)

    private_files.replace(own, b"{}")
    private_files.replace(users, b"after")

    assert (own.read_bytes(), stat.S_IMODE(own.stat().st_mode)) == (b"{}", 0o600)
    assert (users.read_bytes(), stat.S_IMODE(users.stat().st_mode)) == (b"after", 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.yaml", "own.json"]


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    there, link = tmp_path / "there.yaml", tmp_path / "link.yaml"
    there.write_text("before")
    link.symlink_to(there)

    private_files.replace(link, b"after")

    assert link.is_symlink()
    assert there.read_text() == "after"


def test_what_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()

    with pytest.raises(OSError, match="taken"):
        private_files.replace(taken, b"after")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
