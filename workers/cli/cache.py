"""`mandate cache`: the results of read tools that are kept in the store for equal calls."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from mandate.activities.stores.base import BlobStore, CacheUse, StoreUnavailable
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.keys import open_existing_store
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.cli.output import print_table
from mandate.workers.cli.prompts import confirm
from mandate.workflows.rules import quantities
from mandate.workflows.rules.wording import describe_age


@offline_verb
async def cache(
    call: Invocation,
    action: Annotated[
        Literal["clear"] | None, typer.Argument(help="`clear` removes results; left out, they are listed.")
    ] = None,
    *,
    tool: Annotated[str | None, typer.Option(help="Only results of this tool.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only results of calls that runs of this agent made.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before results are removed.")] = False,
) -> int:
    """List the results of read tools that are kept for equal calls, or remove them.

    Results are kept of tools that say so with `cache`. They are in the store of MANDATE_STORE, which workers of several
    task queues may share. Runs go on when results are removed: their next calls are made.

    With `-o json` the list is one object, `tools`: tool, entries, bytes, oldest and hits of each; `clear` gives the
    number of results that it removed as `cleared`.
    """
    store = open_existing_store()
    try:
        use = await store.cache_use(tool, agent)
        if action == "clear":
            await _clear(call, store, use, (tool, agent), yes=yes)
        else:
            _print(call, use, nothing=await _describe_nothing(store, tool, agent) if not use else "")
    except StoreUnavailable as error:
        raise CliError(str(error)) from None
    finally:
        await store.close()
    return 0


async def _clear(
    call: Invocation, store: BlobStore, use: Sequence[CacheUse], chosen: tuple[str | None, str | None], *, yes: bool
) -> None:
    entries = sum(one.entries for one in use)
    if entries:
        names = ", ".join(one.tool for one in use)
        lines = [f"clear {_count(entries)} of {names}"]
        await confirm(call.out, f"clear {_count(entries)}", lines, yes=yes, declined="nothing was cleared")
    cleared = await store.clear_cache(*chosen)
    if call.out.as_json:
        call.out.json({"cleared": cleared})
    else:
        call.out.print(f"cleared {_count(cleared)}" if cleared else await _describe_nothing(store, *chosen))


async def _describe_nothing(store: BlobStore, tool: str | None, agent: str | None) -> str:
    """Say that no results are kept of what was chosen, and which tools have some."""
    if tool is None and agent is None:
        return "no results are kept"
    whose = f" of runs of {agent!r}" if agent is not None else ""
    others = ", ".join(one.tool for one in await store.cache_use(None, None))
    what = f"no results of {tool!r}" if tool is not None else "no results"
    return f"{what}{whose} are kept; {f'there are results of {others}' if others else 'no tool has any'}"


def _print(call: Invocation, use: Sequence[CacheUse], *, nothing: str) -> None:
    if call.out.as_json:
        call.out.json(
            {
                "tools": [
                    {
                        "tool": one.tool,
                        "entries": one.entries,
                        "bytes": one.size,
                        "oldest": one.oldest.isoformat(),
                        "hits": one.hits,
                    }
                    for one in use
                ]
            }
        )
        return
    if not use:
        call.out.print(nothing)
        return
    rows = [
        (one.tool, f"{one.entries:,}", f"{one.size:,}", f"{_describe_age(one.oldest)} ago", f"{one.hits:,}")
        for one in use
    ]
    print_table(call.out, rows, ("tool", "results", "bytes", "oldest", "hits"))


def _count(entries: int) -> str:
    return quantities.count_noun(entries, "result")


def _describe_age(moment: datetime) -> str:
    return describe_age(max(int((datetime.now(UTC) - moment).total_seconds()), 0))
