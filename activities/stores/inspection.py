"""Inspection of a store: what is there, without making or changing anything."""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class StoreState:
    """State of a store as a worker would meet it."""

    name: str
    """Its address without user, password and options."""
    is_shared: bool
    """True if workers of many machines can use it."""
    identity: str | None = None
    """`None` for a store that no worker has used."""
    is_older: bool = False
    """True if the next worker adds tables of a newer version to it."""
    keys: int = 0
    """Keys of the installation that are in use."""
    obstacle: str | None = None
    """Why a worker could not use it though it answers; `None` for nothing."""
    now: datetime | None = None
    """Time of its clock, where it has one of its own."""


async def inspect_store(url: str, seconds: float) -> StoreState:
    """Look at the store at `url`, for at most `seconds`.

    Raises:
        ValueError: see `open_store`.
        StoreUnavailable: it does not answer, or is no store of ours.
    """
    store = open_store(url)
    if isinstance(store, SqliteStore):
        return await asyncio.to_thread(_inspect_sqlite, store.path, url)
    from mandate.activities.stores import postgres_inspection  # noqa: PLC0415 - asyncpg only for PostgreSQL

    return await postgres_inspection.inspect(url, seconds)


def _inspect_sqlite(path: Path, url: str) -> StoreState:
    nearest = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        return StoreState(url, is_shared=False, obstacle=f"the folder {str(nearest)!r} cannot be written")
    if not path.exists():
        return StoreState(url, is_shared=False)
    if not os.access(path, os.W_OK):
        return StoreState(url, is_shared=False, obstacle="the file cannot be written")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "store" not in tables:
                if tables:
                    raise StoreUnavailable(f"{url} is the database of another program")
                return StoreState(url, is_shared=False)
            row = connection.execute("SELECT identity FROM store").fetchone()
            asked = "SELECT count(*) FROM keys WHERE retired_at IS NULL"
            keys = connection.execute(asked).fetchone()[0] if "keys" in tables else 0
            return StoreState(url, is_shared=False, identity=row[0] if row else None, keys=keys)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{url} cannot be read: {error}") from error


def list_missing(rights: Sequence[tuple[str, bool]]) -> str | None:
    """Return the sentence for rights that are missing; `None` if there are all."""
    missing = [name for name, is_there in rights if not is_there]
    return f"the user of the address may not {', '.join(missing)}" if missing else None
