"""Address of a store, and the store that it means."""

from mandate.activities.stores.base import BlobStore
from mandate.activities.stores.sqlite import SqliteStore

_FORMS = "sqlite:///relative/file.db, sqlite:////absolute/file.db or postgresql://user:password@host:port/database"


def open_store(url: str) -> BlobStore:
    """Return the store at `url`; nothing is opened or made before its first call.

    Raises:
        ValueError: no address of a store, in one sentence that never repeats a password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator:
        return _sqlite(rest)
    if scheme == "postgresql" and separator:
        from mandate.activities.stores.postgres import PostgresStore  # noqa: PLC0415 - asyncpg only for PostgreSQL

        return PostgresStore(url)
    shown = f"{scheme}://..." if separator else "a text without '://'"
    raise ValueError(f"{shown} is not the address of a store; it must be {_FORMS}")


def _sqlite(rest: str) -> BlobStore:
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path.endswith("/"):
        raise ValueError(f"{f'sqlite://{rest}'!r} names no file; a SQLite store is sqlite:///relative/file.db")
    if path.startswith(":memory:"):
        raise ValueError("a store in memory is lost with its worker; name a file, for example sqlite:///mandate.db")
    if "?" in path:
        raise ValueError(f"{f'sqlite://{rest}'!r} has options after '?'; a SQLite store takes none")
    return SqliteStore(path)
