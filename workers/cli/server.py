"""`mandate server`: the embedded Temporal server in the foreground."""

import asyncio
import socket
from pathlib import Path
from typing import Annotated

import typer

from mandate.workers.cli.connection import quiet_sdk
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.cli.signals import stop_signals
from mandate.workers.dev_server import lease
from mandate.workers.dev_server.server import DevServer, share_dev_server
from mandate.workers.settings import Settings

WATCH_SECONDS = 0.5
STOP_SECONDS = 4.0


@offline_verb
async def server(
    call: Invocation,
    *,
    port: Annotated[int | None, typer.Option(help="7233 if free, else another.", min=1, max=65535)] = None,
    ui_port: Annotated[int | None, typer.Option(help="The server's port + 1000.", min=1, max=65535)] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="With the Web UI.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where it keeps its files; `.mandate`.")] = None,
) -> int:
    """Run a Temporal server with its Web UI for development, until Ctrl-C."""
    quiet_sdk()
    folder = folder or Settings.from_environment().folder
    if ui and ui_port is not None and not lease.keeper_lives(folder):
        _demand_free(ui_port)
    with stop_signals(lambda: None) as stopped:
        starting = asyncio.create_task(
            share_dev_server(folder, on_progress=call.out.note, port=port, ui_port=ui_port, ui=ui)
        )
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            raise KeyboardInterrupt
        with starting.result() as running:
            _introduce(call, running)
            while not stopped.is_set():
                if not lease.keeper_lives(folder):
                    raise CliError(f"the Temporal server ended; its last words are in {running.log}")
                await asyncio.wait({stopping}, timeout=WATCH_SECONDS)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await lease.gone(folder)
        except TimeoutError:
            call.out.note("the server goes on: other processes use it")
    return 0


def _demand_free(ui_port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", ui_port))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise CliError(f"--ui-port {ui_port} is taken ({why}); name one that nothing else listens on") from None


def _introduce(call: Invocation, running: DevServer) -> None:
    if call.out.as_json:
        call.out.json(
            {
                "address": running.address,
                "namespace": running.namespace,
                "ui_url": running.ui_url,
                "binary": str(running.binary),
                "log": str(running.log),
            }
        )
        return
    lines = [
        ("Temporal", f"{running.address}, namespace {running.namespace}"),
        ("Web UI", running.ui_url or "none"),
        ("Its log", str(running.log)),
        ("Temporal CLI", f"{running.binary} --address {running.address} workflow list"),
        ("or for all", f"export TEMPORAL_ADDRESS={running.address}"),
    ]
    for name, value in lines:
        call.out.print(f"{name:<12} {value}")
