"""Check of the store of the workers."""

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.inspection import StoreState, inspect_store
from mandate.workers.doctor.findings import Finding
from mandate.workers.fleet import Peer, find_place, list_peers

CHECK = "store"


async def look_at_store(url: str, seconds: float) -> tuple[StoreState | None, Finding]:
    """Return the state of the store, `None` for one that does not answer, and the finding."""
    try:
        state = await inspect_store(url, seconds)
    except ValueError as error:
        return None, Finding(CHECK, "fail", f"MANDATE_STORE: {error}", "set it to an address of that form")
    except StoreUnavailable as error:
        return None, Finding(CHECK, "fail", str(error), "start it, or set MANDATE_STORE to the workers' store")
    return state, _judge(state)


def _judge(state: StoreState) -> Finding:
    if state.obstacle is not None:
        advice = "grant it, or name another store with MANDATE_STORE"
        return Finding(CHECK, "fail", f"{state.name}: {state.obstacle}", advice)
    if state.identity is None:
        return Finding(CHECK, "ok", f"{state.name} is not made yet; the first worker makes it")
    if state.is_older:
        return Finding(CHECK, "ok", f"{state.name} is store {state.identity}; the next worker adds tables to it")
    return Finding(CHECK, "ok", f"{state.name} is store {state.identity}")


def warn_of_one_machine(state: StoreState, finding: Finding, address: str) -> Finding:
    """Warn of a store of one machine beside a server that is elsewhere."""
    if state.is_shared or finding.status != "ok":
        return finding
    advice = "set MANDATE_STORE to postgresql://... if workers run on other machines too"
    return Finding(CHECK, "warn", f"{finding.found}; it serves one machine, and Temporal is at {address}", advice)


async def list_announced(url: str, namespace: str, queue: str) -> list[Peer] | None:
    """Return the workers of a queue that told the store what they serve; `None` where it does not answer.

    The store must be whole: opening another one would make its tables.
    """
    store = open_store(url)
    try:
        return list_peers(await store.announcements(find_place(namespace, queue)))
    except StoreUnavailable:
        return None
    finally:
        await store.close()
