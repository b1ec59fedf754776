import asyncio
from collections.abc import AsyncIterator

import asyncpg  # type: ignore[import-untyped]
import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.postgres import PostgresStore
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from tests.support.budget_conformance import BudgetConformance
from tests.support.budget_spender import CALL, lines
from tests.support.postgres import PASSWORD, PostgresServer, running_postgres
from tests.support.store_conformance import StoreConformance
from tests.support.store_writer import numbered


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[PostgresServer]:
    async with running_postgres() as server:
        yield server


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    async def url(self, postgres: PostgresServer) -> str:
        return await postgres.new_database()

    @pytest.fixture
    async def other_url(self, postgres: PostgresServer) -> str:
        return await postgres.new_database()

    async def corrupt(self, url: str, digest: str) -> None:
        flip = "UPDATE mandate_blobs SET content = set_byte(content, 0, get_byte(content, 0) # 1) WHERE digest = $1"
        await execute(url, flip, digest)

    async def outdate(self, url: str) -> None:
        await execute(url, "DROP TABLE mandate_claims, mandate_keys, mandate_unmarked, mandate_workers")
        await execute(
            url, "DROP TABLE mandate_budget_accounts, mandate_budget_reservations, mandate_results, mandate_sessions"
        )

    async def forbid_writing(self, url: str) -> None:
        await execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")

    async def count_kept(self, url: str) -> int:
        connection = await asyncpg.connect(url)
        count = await connection.fetchval("SELECT count(*) FROM mandate_results")
        await connection.close()
        return int(count)

    async def break_claims(self, url: str) -> None:
        await execute(url, "ALTER TABLE mandate_claims ADD CHECK (key = '')")


class TestPostgresBudgets(BudgetConformance):
    @pytest.fixture
    async def url(self, postgres: PostgresServer) -> str:
        return await postgres.new_database()

    async def make_older(self, url: str) -> None:
        await execute(url, "DROP TABLE mandate_budget_accounts, mandate_budget_reservations")

    async def forbid_writing(self, url: str) -> None:
        await TestPostgresStore().forbid_writing(url)


async def execute(url: str, statement: str, *arguments: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *arguments)
    await connection.close()


async def backends(postgres: PostgresServer, database: str, *, count: int = 1, waiting_for: str = "%") -> None:
    """Returns when a database has so many connections, of those that wait for such a thing."""
    connection = await asyncpg.connect(postgres.dsn("postgres"))
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND coalesce(wait_event_type, '') LIKE $2"
    async with asyncio.timeout(30):
        while await connection.fetchval(query, database, waiting_for) != count:
            await asyncio.sleep(0.02)
    await connection.close()


async def test_store_works_again_after_its_connections_were_cut(postgres: PostgresServer) -> None:
    url = await postgres.new_database()
    store = PostgresStore(url)
    await store.put(dict(numbered(2)))
    name = url.rpartition("/")[2]

    await execute(
        postgres.dsn("postgres"), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
    )
    # The store sees the end of its connections in its own time.
    await backends(postgres, name, count=0)
    await asyncio.sleep(0.1)

    assert await store.get([digest for digest, _ in numbered(2)]) == dict(numbered(2))
    await store.close()


async def test_stopped_server_is_unavailable_and_used_again_when_it_is_back(postgres: PostgresServer) -> None:
    store = PostgresStore(await postgres.new_database())
    identity = await store.identity()

    await postgres.stop()
    with pytest.raises(StoreUnavailable, match=r"^the store postgresql://127\.0\.0\.1:\d+/store\d+ did not answer: "):
        await store.put(dict(numbered(1)))
    await postgres.start()
    await store.put(dict(numbered(1)))

    assert await store.identity() == identity
    assert await store.get([digest for digest, _ in numbered(1)]) == dict(numbered(1))
    await store.close()


async def test_connection_lost_in_a_call_is_unavailable(postgres: PostgresServer) -> None:
    url = await postgres.new_database()
    store = PostgresStore(url)
    await store.identity()
    blocker = await asyncpg.connect(url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("LOCK TABLE mandate_blobs")

    waiting = asyncio.create_task(store.put(dict(numbered(1))))
    await backends(postgres, url.rpartition("/")[2], waiting_for="Lock")
    await blocker.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    with pytest.raises(StoreUnavailable, match="did not answer: "):
        await waiting
    await transaction.rollback()
    await blocker.close()
    await store.put(dict(numbered(1)))
    await store.close()


@pytest.mark.parametrize("password", ["wrong-word-1", "wrong%2Fword%402"])
async def test_wrong_password_is_said_and_not_shown(postgres: PostgresServer, password: str) -> None:
    store = open_store(postgres.dsn("postgres", password))

    with pytest.raises(StoreUnavailable, match='password authentication failed for user "mandate"') as raised:
        await store.identity()

    assert "word-1" not in f"{raised.value!s}{store!r}{raised.value.__cause__}"
    assert "word@2" not in f"{raised.value!s}{store!r}{raised.value.__cause__}"
    await store.close()


async def test_missing_database_is_named(postgres: PostgresServer) -> None:
    store = PostgresStore(postgres.dsn("nowhere"))

    with pytest.raises(StoreUnavailable, match='database "nowhere" does not exist') as raised:
        await store.identity()

    assert PASSWORD not in str(raised.value)
    await store.close()


async def test_user_who_may_not_create_tables_uses_those_that_are_there(postgres: PostgresServer) -> None:
    url = await postgres.new_database()
    await execute(url, "CREATE ROLE writer LOGIN PASSWORD 'writer'")
    narrow = url.replace(f"mandate:{PASSWORD}", "writer:writer")
    refused, owner, writer = PostgresStore(narrow), PostgresStore(url), PostgresStore(narrow)

    with pytest.raises(StoreUnavailable, match="permission denied for schema public"):
        await refused.identity()
    identity = await owner.identity()
    await execute(url, "GRANT SELECT, INSERT ON mandate_blobs, mandate_store TO writer")

    assert await writer.identity() == identity
    await writer.put(dict(numbered(1)))
    for store in (refused, owner, writer):
        await store.close()


async def test_rights_that_the_page_names_are_enough_for_budgets(postgres: PostgresServer) -> None:
    url = await postgres.new_database()
    await execute(url, "CREATE ROLE spender LOGIN PASSWORD 'spender'")
    owner, spender = PostgresStore(url), PostgresStore(url.replace(f"mandate:{PASSWORD}", "spender:spender"))
    await owner.identity()
    tables = "mandate_budget_accounts, mandate_budget_reservations"
    await execute(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO spender")

    reserved = await spender.reserve("r1", lines(), CALL)
    settled = await spender.settle("r1", CALL)

    assert reserved.full is None
    assert [balance.spent for balance in settled] == [CALL, CALL]
    for store in (owner, spender):
        await store.close()


async def test_conversation_is_read_back_by_another_worker(postgres: PostgresServer) -> None:
    url = await postgres.new_database()
    stores = [PostgresStore(url) for _ in range(2)]
    mine, theirs = (TranscriptLog(Blobs(store)) for store in stores)
    chain = await mine.start("a" * 43, told("message 0"))
    for number in range(1, 40):
        chain = await mine.append(chain, "a" * 43, (told(f"message {number}"),))

    loaded = await theirs.load(chain.head)

    assert list(loaded.conversation) == list(chain.conversation) == [told(f"message {number}") for number in range(40)]
    for store in stores:
        await store.close()


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))
