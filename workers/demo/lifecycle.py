"""A demo's run from its start to its end, and how one comes back to it."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.cli.output import Output
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.cli.signals import stop_signals
from mandate.workers.dev_server.server import UI_OFFSET, DevServer
from mandate.workflows.contracts.run import RunResult

GOODBYE_SECONDS = 2.0

Handle = WorkflowHandle[Any, RunResult]


async def follow(
    handle: Handle, story: Coroutine[Any, Any, None], helpers: Sequence[Coroutine[Any, Any, None]], out: Output
) -> RunResult:
    """Return the run's result when `story`, which tells it, is over; `helpers` end with an error only.

    The run is cancelled if anything goes wrong.
    """

    async def help_on() -> None:
        await asyncio.gather(*helpers)

    telling, helping = asyncio.create_task(story), asyncio.create_task(help_on())
    try:
        await asyncio.wait({telling, helping}, return_when=asyncio.FIRST_COMPLETED)
        (helping if helping.done() else telling).result()
        return await handle.result()
    except WorkflowFailureError as error:
        raise CliError(f"the run failed: {error.cause}", ENDED_OTHERWISE) from None
    except BaseException:
        await _cancel(handle, out)
        raise
    finally:
        telling.cancel()
        helping.cancel()


async def _cancel(handle: Handle, out: Output) -> None:
    """Leave no run behind that nobody works on."""
    with contextlib.suppress(RPCError, WorkflowFailureError):
        await handle.cancel()
        try:
            await asyncio.wait_for(handle.result(), GOODBYE_SECONDS)
        except TimeoutError:
            await handle.terminate("the demo ended before its run")
    out.note(f"The run {handle.id} was cancelled.")


async def keep_server(out: Output) -> None:
    """Wait for Ctrl-C."""
    with stop_signals(lambda: None) as stopped:
        out.note("Server and Web UI stay until Ctrl-C.")
        await stopped.wait()


def print_way_back(lines: Lines, connection: Connection, program: str, *, keeps: bool) -> None:
    """Say how the server comes back, where it ends with the demo."""
    if connection.server is None or keeps:
        return
    is_own = connection.started_in is not None
    ends = "ends with this command." if is_own else "ends with the last command that uses it."
    lines.print(f"\nThe server {ends} To bring it and its runs back:")
    lines.command(f"{program} server{_same_ports(connection.server)}")
    lines.print("Then, while it runs, from another terminal in this folder:")


def _same_ports(server: DevServer) -> str:
    """Return the options with which the server comes back where the links lead."""
    port, ui_port = int(server.address.rpartition(":")[2]), (server.ui_url or "").rpartition(":")[2]
    ui = f" --ui-port {ui_port}" if ui_port and int(ui_port) != port + UI_OFFSET else ""
    return f" --port {port}{ui}"
