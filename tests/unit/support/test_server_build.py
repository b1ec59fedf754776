"""The cluster's server: the version of the embedded one, and one sentence where it cannot be built."""

import subprocess
from pathlib import Path

import pytest

from mandate.workers.dev_server.binary import find_binary
from tests.support import server_build
from tests.support.server_build import NoServer


def test_it_is_the_version_of_the_embedded_server() -> None:
    said = subprocess.run([find_binary(lambda _: None), "--version"], capture_output=True, text=True, check=True)

    assert f"(Server {server_build.VERSION}," in said.stdout


def test_it_is_kept_by_version_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    binaries = server_build.kept()

    assert binaries.folder.parent == tmp_path / "mandate"
    assert binaries.folder.name.startswith(f"temporal-server-{server_build.VERSION}-")
    assert not binaries.is_complete


def test_without_go_there_is_one_sentence_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoServer) as refused:
        server_build.build()

    assert str(refused.value) == "Go is not installed, and builds Temporal's server (https://go.dev/dl)"
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_says_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho first >&2\necho 'the module is not there' >&2\nexit 1\n")
    go.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(NoServer) as refused:
        server_build.build()

    assert str(refused.value) == f"Temporal's server {server_build.VERSION} cannot be built: the module is not there"
