"""The workers' store, opened by who only reads it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import BlobMissing, Blobs


class StoreUnusable(Exception):
    """The store here is another than the run's, or does not have all of it; the text is one sentence."""


@asynccontextmanager
async def stored(store: str, wanted: str | None) -> AsyncIterator[Blobs]:
    """Open the blobs in the store at `store`, which must have the id `wanted`.

    Raises:
        StoreUnusable: the store is another than the run's, or does not have all of it.
    """
    path = Path(store.removeprefix("sqlite:///")) if store.startswith("sqlite:///") else None
    name = store if path is not None else f"{store.partition('://')[0]}://..."
    mine = f"store {wanted}" if wanted is not None else "another store"
    if path is not None and not path.is_file():
        raise StoreUnusable(
            f"the conversation is in {mine}, and there is no {name}; set MANDATE_STORE to the workers' store"
        )
    try:
        blobs = Blobs(open_store(store))
    except ValueError as error:
        raise StoreUnusable(f"MANDATE_STORE: {error}") from None
    try:
        identity = await blobs.identity()
        if wanted is not None and identity != wanted:
            raise StoreUnusable(
                f"the conversation is in {mine}, and {name} is store {identity}; set MANDATE_STORE to it"
            )
        yield blobs
    except BlobMissing as error:
        raise StoreUnusable(f"{error}, though the run's conversation is in {mine}; set MANDATE_STORE to it") from None
    finally:
        await blobs.close()
