"""`mandate keys`: the keys with which workers mark what runs ask for, in the store."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import BlobStore, Keys, StoreUnavailable
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.cli.output import print_table
from mandate.workers.settings import Settings


@offline_verb
async def keys(
    call: Invocation,
    *,
    new: Annotated[
        bool, typer.Option("--new", help="Make another key; all workers use it two minutes from now on.")
    ] = False,
    remove: Annotated[
        int | None,
        typer.Option(help="Number of a key whose marks count no more, two minutes from now on.", min=1),
    ] = None,
) -> int:
    """List the keys of the store's installation, make another one, or take one away.

    Workers mark each request of a run to an activity, each answer and each carried state with the newest key, and
    refuse what has no mark. The keys are in the store of MANDATE_STORE; their values are never shown.
    """
    if new and remove is not None:
        raise CliError("--new and --remove: give one of them; a new key is used two minutes after it was made")
    store = open_existing_store()
    try:
        if new:
            await store.keys()
            await store.add_key()
        if remove is not None:
            await _remove(store, remove)
        _print(call, await store.keys())
    except StoreUnavailable as error:
        raise CliError(str(error)) from None
    finally:
        await store.close()
    return 0


def open_existing_store() -> BlobStore:
    """Open the store of `MANDATE_STORE`; looking into it makes none."""
    address = Settings.from_environment().store
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).is_file():
        raise CliError(f"there is no {address}; set MANDATE_STORE to the workers' store")
    try:
        return open_store(address)
    except ValueError as error:
        raise CliError(f"MANDATE_STORE: {error}") from None


async def _remove(store: BlobStore, number: int) -> None:
    if await store.retire_key(number):
        return
    known = (await store.keys()).keys
    found = next((key for key in known if key.number == number), None)
    if found is None:
        numbers = ", ".join(str(key.number) for key in known)
        raise CliError(f"--remove {number}: there is no such key; the store has {numbers}")
    if found.retired_at is not None:
        raise CliError(f"--remove {number}: it ends at {_time(found.retired_at)} already")
    raise CliError(
        f"--remove {number}: no newer key is in use; make one with --new, which is used two minutes after that"
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _print(call: Invocation, found: Keys) -> None:
    if call.out.as_json:
        call.out.json(
            {
                "keys": [
                    {
                        "number": key.number,
                        "made_at": key.made_at.isoformat(),
                        "used_from": key.used_from.isoformat(),
                        "retired_at": key.retired_at.isoformat() if key.retired_at else None,
                    }
                    for key in found.keys
                ],
                "unmarked_until": found.unmarked_until.isoformat() if found.unmarked_until else None,
            }
        )
        return
    times = [
        (str(key.number), _time(key.made_at), _time(key.used_from), _time(key.retired_at) if key.retired_at else "")
        for key in found.keys
    ]
    print_table(call.out, times, ("key", "made", "used from", "counts until"), numbered=True)
    if found.unmarked_until is not None:
        call.out.print(f"what older workers did not mark is taken until {found.unmarked_until:%Y-%m-%d %H:%M:%S} UTC")
