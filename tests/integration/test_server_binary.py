import fcntl
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from workers import server_sources
from workers.server_binary import REMEDY, VERSION, Search, ServerError, ensure_binary, on_path, version_of
from workers.server_sources import Unavailable

TOOLS = "/usr/bin:/bin"
NOWHERE = "http://127.0.0.1:9/cli"
SAYS_VERSION = f"#!/bin/sh\necho 'temporal version {VERSION} (Server 1.31.2, UI 2.50.1)'\n"


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    folder.mkdir(exist_ok=True)
    (folder / "go.mod").write_text("module example\n")
    return folder


def fake_go(folder: Path, *, version: str = "go1.26.8", build: str = "exit 0") -> None:
    """A `go` that counts its builds in the file `builds` and writes a good binary to the place after `-o`."""
    program(
        folder / "go",
        f"""#!/bin/sh
case "$1" in
version) echo "go version {version} linux/amd64" ;;
list) echo "go: downloading example v1" >&2; echo one; echo two; echo three ;;
build)
    echo one >> {folder}/builds
    while [ "$1" != -o ]; do shift; done
    cp {folder}/good "$2"
    echo one >&2; echo two >&2
    {build} ;;
esac
""",
    )
    program(folder / "good", SAYS_VERSION)


def search(tmp_path: Path, **places: object) -> Search:
    values = {"cache": tmp_path / "cache", "path": TOOLS, "module": None, "downloads": NOWHERE} | places
    return Search(**values)


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
    assert version_of(program(tmp_path / "temporal", f"#!/bin/sh\necho '{says}'\n")) == version


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

    with pytest.raises(Unavailable) as caught:
        version_of(binary)

    assert str(caught.value) == sentence.format(binary=binary)


def test_installed_binary_comes_before_the_cache(tmp_path: Path) -> None:
    installed = program(tmp_path / "bin" / "temporal", SAYS_VERSION)
    program(tmp_path / "cache" / f"temporal-{VERSION}", SAYS_VERSION)

    assert ensure_binary(print, search(tmp_path, path=f"{tmp_path}/bin:{TOOLS}")) == installed


def test_installed_binary_that_is_too_old_is_skipped_with_a_note(tmp_path: Path) -> None:
    installed = program(tmp_path / "bin" / "temporal", "#!/bin/sh\necho temporal version 1.7.3\n")
    cached = program(tmp_path / "cache" / f"temporal-{VERSION}", SAYS_VERSION)
    notes: list[str] = []

    assert ensure_binary(notes.append, search(tmp_path, path=f"{tmp_path}/bin:{TOOLS}")) == cached
    assert notes == [f"skipping the installed Temporal CLI: {installed} is version 1.7.3, and 1.8 or newer is needed"]


def test_no_binary_on_an_empty_path() -> None:
    assert on_path("/nowhere") is None


def test_places_come_from_the_environment(tmp_path: Path) -> None:
    found = Search.of({"XDG_CACHE_HOME": str(tmp_path), "PATH": "/a:/b"})

    assert (found.cached, found.path) == (tmp_path / "mandate" / f"temporal-{VERSION}", "/a:/b")


def test_everything_tried_is_said_in_one_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ServerError) as caught:
        ensure_binary(print, search(tmp_path, path=str(tmp_path / "empty")))

    assert str(caught.value).splitlines() == [
        "no Temporal server was found, and none could be fetched:",
        "  - `temporal` is not on PATH",
        "  - the download from 127.0.0.1 failed: Connection refused",
        "  - it cannot be built, because this installation lacks the folder deploy/temporal-cli",
        REMEDY,
    ]


def test_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(ServerError) as caught:
        ensure_binary(print, search(tmp_path))

    assert str(caught.value) == f"the cache '{tmp_path}/cache' cannot be used: File exists; set XDG_CACHE_HOME"


# Downloads


class Releases:
    """A download service on loopback."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                status, body = owner.answers.get(self.path.partition("?")[0], (404, b"no such release"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def offer(self, archive: bytes, *, url: str | None = None) -> None:
        about = {"archiveUrl": url or f"{self.url}/archive.tar.gz", "fileToExtract": "temporal"}
        self.answers[f"/cli/v{VERSION}"] = (200, json.dumps(about).encode())
        self.answers["/archive.tar.gz"] = (200, archive)


@pytest.fixture
def releases() -> Iterator[Releases]:
    service = Releases()
    yield service
    service.server.shutdown()
    service.server.server_close()


def archive(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            members.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_download_is_unpacked_into_the_cache(tmp_path: Path, releases: Releases) -> None:
    releases.offer(archive(LICENSE="MIT", temporal=SAYS_VERSION))
    places = search(tmp_path, downloads=f"{releases.url}/cli")

    assert ensure_binary(print, places) == places.cached
    assert places.cached.read_text() == SAYS_VERSION
    assert sorted(file.name for file in places.cache.iterdir()) == [places.cached.name, f"{places.cached.name}.lock"]
    assert "platform=" in releases.asked[0]
    assert "format=tar.gz" in releases.asked[0]


def test_second_time_nothing_is_downloaded(tmp_path: Path, releases: Releases) -> None:
    releases.offer(archive(temporal=SAYS_VERSION))
    places = search(tmp_path, downloads=f"{releases.url}/cli")
    ensure_binary(print, places)
    asked = len(releases.asked)

    ensure_binary(print, places)

    assert len(releases.asked) == asked


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "the download from 127.0.0.1 failed: not a gzip file"),
        (archive(temporal=SAYS_VERSION * 999)[:-40], "the download from 127.0.0.1 failed: "),
        (archive(LICENSE="MIT"), "the download from 127.0.0.1 failed: the archive has no file 'temporal'"),
        (archive(temporal="#!/bin/sh\nexit 1\n"), "does not say its version"),
    ],
)
def test_broken_download_leaves_nothing_in_the_cache(
    tmp_path: Path, releases: Releases, body: bytes, reason: str
) -> None:
    releases.offer(body)
    places = search(tmp_path, downloads=f"{releases.url}/cli")

    with pytest.raises(ServerError) as caught:
        ensure_binary(print, places)

    assert reason in str(caught.value)
    assert [file.name for file in places.cache.iterdir()] == [f"{places.cached.name}.lock"]


def test_missing_release_is_said(tmp_path: Path, releases: Releases) -> None:
    with pytest.raises(Unavailable) as caught:
        server_sources.download(f"{releases.url}/cli", VERSION, tmp_path / "temporal", print)

    assert str(caught.value) == "the download from 127.0.0.1 failed: status 404"


def test_archive_comes_over_https_only(tmp_path: Path, releases: Releases) -> None:
    releases.offer(b"", url="http://example.com/archive.tar.gz")

    with pytest.raises(Unavailable, match=r"'http://example.com/archive.tar.gz' is not an https address"):
        server_sources.download(f"{releases.url}/cli", VERSION, tmp_path / "temporal", print)


def test_name_look_up_that_hangs_is_given_up() -> None:
    started_at = time.monotonic()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        server_sources.within(0.05, lambda: time.sleep(30))

    assert time.monotonic() - started_at < 10


# Builds


def test_offline_the_binary_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path / "go")
    monkeypatch.setenv("PATH", f"{tmp_path}/go:{TOOLS}")
    places = search(tmp_path, module=module(tmp_path))
    told: list[str] = []

    assert ensure_binary(told.append, places) == places.cached
    assert told == ["the Temporal server is not on this machine: building it with Go, once; this takes some minutes"]


def test_build_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path / "go", build=f"while [ ! -e {tmp_path}/told ]; do sleep 0.05; done")
    monkeypatch.setenv("PATH", f"{tmp_path}/go:{TOOLS}")
    monkeypatch.setattr(server_sources, "TELL_SECONDS", 0.1)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if " 2 of 3 " in line:
            (tmp_path / "told").touch()

    ensure_binary(tell, search(tmp_path, module=module(tmp_path)))

    assert re.fullmatch(r"building the Temporal server: 2 of 3 packages, \d+ s", told[-1])


@pytest.mark.parametrize(
    ("version", "build", "reason"),
    [
        ("go1.25.1", "exit 0", "it cannot be built with go1.25; Go 1.26 or newer is needed"),
        ("gc1", "exit 0", "it cannot be built, because `go version` says 'go version gc1 linux/amd64'"),
        ("go1.26", "echo no space left >&2; exit 1", "building it with Go failed: one | two | no space left"),
        ("devel go1.27-abc", "exit 2", "building it with Go failed: one | two"),
    ],
)
def test_why_it_cannot_be_built_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, build: str, reason: str
) -> None:
    fake_go(tmp_path / "go", version=version, build=build)
    monkeypatch.setenv("PATH", f"{tmp_path}/go:{TOOLS}")
    places = search(tmp_path, module=module(tmp_path))

    with pytest.raises(ServerError) as caught:
        ensure_binary(print, places)

    assert f"  - {reason}\n" in str(caught.value)
    assert not list(places.cache.glob("*.partial-*"))


def test_without_go_the_needed_version_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerError, match=r"because Go 1\.26 or newer is not on PATH"):
        ensure_binary(print, search(tmp_path, path=str(tmp_path), module=module(tmp_path)))


def test_two_processes_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path / "go", build="sleep 0.5")
    monkeypatch.setenv("PATH", f"{tmp_path}/go:{TOOLS}")
    code = (
        "import sys; from pathlib import Path; from workers.server_binary import Search, ensure_binary;"
        f"print(ensure_binary(lambda line: None, Search(cache=Path({str(tmp_path / 'cache')!r}), path={TOOLS!r},"
        f" module=Path({str(module(tmp_path))!r}), downloads={NOWHERE!r})))"
    )

    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0].strip() for process in both}

    assert said == {str(tmp_path / "cache" / f"temporal-{VERSION}")}
    assert (tmp_path / "go" / "builds").read_text() == "one\n"


def test_who_waits_for_another_process_is_told(tmp_path: Path) -> None:
    places = search(tmp_path)
    places.cache.mkdir()
    told: list[str] = []
    with (places.cache / f"{places.cached.name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=ensure_binary, args=(told.append, places))
        waiting.start()
        while not told:
            time.sleep(0.01)
        program(places.cached, SAYS_VERSION)

    waiting.join(30)
    assert not waiting.is_alive()
    assert told == ["waiting for another process that fetches the Temporal server"]


def test_leftovers_of_a_killed_build_are_removed(tmp_path: Path, releases: Releases) -> None:
    releases.offer(archive(temporal=SAYS_VERSION))
    places = search(tmp_path, downloads=f"{releases.url}/cli")
    program(places.cache / f"{places.cached.name}.partial-1", "half")

    ensure_binary(print, places)

    assert not list(places.cache.glob("*.partial-*"))
