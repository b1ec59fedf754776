import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.sqlite import SqliteStore
from tests.support.budget_conformance import BudgetConformance
from tests.support.store_conformance import StoreConformance
from tests.support.store_writer import ROOT, numbered


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/new/folder/store.db"

    @pytest.fixture
    def other_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/other.db"

    async def corrupt(self, url: str, digest: str) -> None:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            (content,) = connection.execute("SELECT content FROM blobs WHERE digest = ?", (digest,)).fetchone()
            flipped = bytes((content[0] ^ 1, *content[1:]))
            connection.execute("UPDATE blobs SET content = ? WHERE digest = ?", (flipped, digest))
        connection.close()

    async def outdate(self, url: str) -> None:
        execute(
            url,
            "DROP TABLE claims",
            "DROP TABLE sessions",
            "DROP TABLE streams",
            "DROP TABLE followers",
            "DROP TABLE keys",
            "DROP TABLE unmarked",
            "DROP TABLE workers",
            "DROP TABLE budget_accounts",
            "DROP TABLE budget_reservations",
            "DROP TABLE results",
            "PRAGMA user_version = 0",
        )

    async def forbid_writing(self, url: str) -> None:
        # A file whose write version SQLite does not know is only read, also by root.
        with Path(url.removeprefix("sqlite:///")).open("r+b") as file:
            file.seek(18)
            file.write(b"\x03")

    async def count_kept(self, url: str) -> int:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        (count,) = connection.execute("SELECT count(*) FROM results").fetchone()
        connection.close()
        return int(count)

    async def break_claims(self, url: str) -> None:
        execute(url, "CREATE TRIGGER broken BEFORE INSERT ON claims BEGIN SELECT RAISE(ABORT, 'no more'); END")


class TestSqliteBudgets(BudgetConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/store.db"

    async def make_older(self, url: str) -> None:
        execute(url, "DROP TABLE budget_accounts", "DROP TABLE budget_reservations", "PRAGMA user_version = 3")

    async def forbid_writing(self, url: str) -> None:
        await TestSqliteStore().forbid_writing(url)


def execute(url: str, *statements: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def refusal(store: SqliteStore) -> str:
    with pytest.raises(StoreUnavailable) as raised:
        await store.identity()
    await store.close()
    return str(raised.value)


async def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one by a careless look at its size" * 9)

    sentence = f"{path} is not a SQLite database; choose another file for the store, or move this one away"
    assert await refusal(SqliteStore(path)) == sentence
    assert path.read_text().startswith("not a database")


async def test_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id)")
    connection.close()
    before = path.read_bytes()

    sentence = f"{path} is a SQLite database of another program; choose another file for the store"
    assert await refusal(SqliteStore(path)) == sentence
    assert path.read_bytes() == before


async def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    sentence = f"the store {tmp_path} cannot be opened; it must be a file that this user may read and write"
    assert await refusal(SqliteStore(tmp_path)) == sentence


async def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "store.db"

    sentence = f"the folder of the store {path} cannot be made: File exists; choose another place"
    assert await refusal(SqliteStore(path)) == sentence


async def test_store_works_once_its_place_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.mkdir()
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable):
        await store.put(dict(numbered(1)))

    path.rmdir()
    await store.put(dict(numbered(1)))

    assert await store.get([digest for digest, _ in numbered(1)]) == dict(numbered(1))
    await store.close()


async def test_write_waits_for_another_process_and_reads_do_not(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    first, second = (dict([blob]) for blob in numbered(2))
    await store.put(first)
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    waiting = asyncio.create_task(store.put(second))
    started = time.monotonic()
    read = await store.get(list(first))
    took = time.monotonic() - started

    assert read == first
    # The write would wait for ten seconds.
    assert took < 5
    assert not waiting.done()
    blocker.execute("COMMIT")
    await waiting
    blocker.close()
    assert await store.get(list(second)) == second
    await store.close()


async def test_cancelled_caller_does_not_disturb_the_next(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.identity()
    task = asyncio.create_task(store.put(dict(numbered(500))))
    await asyncio.sleep(0)
    task.cancel()

    await store.put(dict(numbered(1)))

    assert await store.get([digest for digest, _ in numbered(1)]) == dict(numbered(1))
    await store.close()


def test_store_may_be_used_by_one_event_loop_after_another(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")

    asyncio.run(store.put(dict(numbered(1))))

    assert asyncio.run(store.get([digest for digest, _ in numbered(1)])) == dict(numbered(1))
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://u:hunter2@h/db", "mysql://... is not the address of a store; it must be sqlite:///relative/file.db"),
        ("u:hunter2@h/db", "a text without '://' is not the address of a store; it must be"),
        ("", "a text without '://' is not the address of a store; it must be"),
        ("sqlite://store.db", "'sqlite://store.db' names no file; a SQLite store is sqlite:///relative/file.db"),
        ("sqlite:///", "'sqlite:///' names no file"),
        ("sqlite:////tmp/", "'sqlite:////tmp/' names no file"),
        ("sqlite:///:memory:", "a store in memory is lost with its worker; name a file"),
        ("sqlite:///a.db?mode=ro", "'sqlite:///a.db?mode=ro' has options after '?'; a SQLite store takes none"),
        ("postgresql://u:hun/ter2@h/db", "the PostgreSQL address of the store cannot be read; it has the form"),
        ("postgresql://u:hun#ter2@h/db", "the PostgreSQL address of the store cannot be read"),
        ("postgresql://u:1?ter2@h/db", "the PostgreSQL address of the store cannot be read"),
        ("postgresql://u:hunter2@h:port/db", "the PostgreSQL address of the store cannot be read"),
        ("postgresql://u:hunter2@[h/db", "the PostgreSQL address of the store cannot be read"),
    ],
)
def test_wrong_address_is_refused_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".+") as raised:
        open_store(url)

    assert str(raised.value).startswith(sentence)
    assert "hun" not in str(raised.value)
    assert "ter2" not in str(raised.value)


async def test_path_is_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    relative, absolute = open_store("sqlite:///in/store.db"), open_store("sqlite:////var/lib/store.db")

    assert isinstance(relative, SqliteStore)
    assert isinstance(absolute, SqliteStore)
    assert relative.path == tmp_path / "in" / "store.db"
    assert absolute.path == Path("/var/lib/store.db")


def test_store_in_a_file_does_not_import_the_postgresql_driver() -> None:
    program = "import sys; from mandate.activities.stores.address import open_store; open_store('sqlite:///a.db'); "

    check = subprocess.run(
        [sys.executable, "-c", f"{program}sys.exit('asyncpg' in sys.modules)"], cwd=ROOT, check=False
    )

    assert check.returncode == 0
