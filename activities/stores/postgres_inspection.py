"""Inspection of a store in PostgreSQL, in a transaction that can only read."""

import asyncio

import asyncpg  # type: ignore[import-untyped]

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.inspection import StoreState, list_missing
from mandate.activities.stores.postgres import TABLES, PostgresStore

_STATE = """
SELECT now() AS now, pg_is_in_recovery() AS is_replica, current_setting('transaction_read_only') = 'on' AS is_read_only,
    (SELECT count(*) FROM unnest($1::text[]) AS made WHERE to_regclass(made) IS NOT NULL) AS tables,
    to_regclass('mandate_store') IS NOT NULL AS is_made,
    has_schema_privilege(current_schema(), 'CREATE') AS may_create
"""
_USED = """
SELECT (SELECT identity FROM mandate_store) AS identity,
    has_table_privilege('mandate_blobs', 'SELECT') AND has_table_privilege('mandate_blobs', 'INSERT') AS may_insert,
    has_table_privilege('mandate_workers', 'UPDATE') AND has_table_privilege('mandate_workers', 'DELETE') AS may_update
"""
_KEYS = "SELECT count(*) FROM mandate_keys WHERE retired_at IS NULL"


async def inspect(url: str, seconds: float) -> StoreState:
    """Look at the store at `url`; see `inspection.inspect_store`."""
    store = PostgresStore(url)
    try:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(url, timeout=seconds, command_timeout=seconds)
            try:
                return await _look(connection, store.name)
            finally:
                connection.terminate()
    except TimeoutError:
        raise StoreUnavailable(f"the store {store.name} did not answer within {seconds:g} s") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailable(f"the store {store.name} did not answer: {store.explain(error)}") from error


async def _look(connection: asyncpg.Connection, name: str) -> StoreState:
    state = await connection.fetchrow(_STATE, TABLES)
    if state["is_replica"] or state["is_read_only"]:
        why = "it is a replica, or read-only for the user of the address"
        return StoreState(name, is_shared=True, obstacle=why, now=state["now"])
    is_whole = state["tables"] == len(TABLES)
    if not state["is_made"]:
        obstacle = list_missing([("create tables", state["may_create"])])
        return StoreState(name, is_shared=True, obstacle=obstacle, now=state["now"])
    used = await connection.fetchrow(_USED) if is_whole else None
    rights = [("create the tables of this version", is_whole or state["may_create"])]
    if used is not None:
        rights += [("read and insert", used["may_insert"]), ("update and delete", used["may_update"])]
    return StoreState(
        name,
        is_shared=True,
        identity=used["identity"] if used else await connection.fetchval("SELECT identity FROM mandate_store"),
        is_older=not is_whole,
        keys=await connection.fetchval(_KEYS) if is_whole else 0,
        obstacle=list_missing(rights),
        now=state["now"],
    )
