"""`mandate doctor`: whether all that agents need is there, and what to do about what is not."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from temporalio.client import Client

from mandate.activities.stores.inspection import StoreState
from mandate.workers.cli.connection import LOCAL, configured, connect_client, quiet_sdk
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError, Unreachable
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.dev_server import keeper, lease
from mandate.workers.doctor.certificates import check_certificates
from mandate.workers.doctor.files import check_files
from mandate.workers.doctor.findings import Finding
from mandate.workers.doctor.limits import CHECK_SECONDS, CONNECT_SECONDS, bound
from mandate.workers.doctor.queue import check_queue
from mandate.workers.doctor.server import (
    check_address,
    check_namespace,
    check_search_attributes,
    judge_clocks,
    measure_clock,
)
from mandate.workers.doctor.store import list_announced, look_at_store, warn_of_one_machine
from mandate.workers.settings import Settings

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

_ASKED = ("namespace", "search attributes", "clock", "workers")
"""Checks that ask Temporal."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Arguments of a connection, and the address in words."""

    config: Mapping[str, Any]
    address: str | None
    """`None` where no address is set and no local server runs."""


@verb
async def doctor(
    call: Invocation,
    *,
    agents: Annotated[Path | None, typer.Option(help="Folder of agent files, or one file.")] = None,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
) -> int:
    """Check server, store, files, keys, clocks and workers, and say what to do; nothing is changed.

    One line for each check: ok, warn, fail, or skipped with the reason. It takes a few seconds at most, also when
    something does not answer, and prints no secrets. Exit code 0: nothing fails. 1: something does. 2: bad usage, or a
    mandate.yaml that cannot be read.
    """
    quiet_sdk()
    settings = Settings.from_environment()
    is_named = agents is not None or bool(settings.environment.get("MANDATE_AGENTS")) or settings.project is not None
    settings = replace(settings, agents=agents or settings.agents, task_queue=task_queue or settings.task_queue)
    place = _find_place(call, settings)
    (state, stored), (reached, client) = await asyncio.gather(
        look_at_store(settings.store, CHECK_SECONDS), _reach(call, place)
    )
    if state is not None and place.address is not None and not place.address.startswith(LOCAL):
        stored = warn_of_one_machine(state, stored, place.address)
    files = asyncio.to_thread(check_files, settings, state, is_named=is_named, program=call.program)
    (held, people, keys), asked = await asyncio.gather(files, _ask(call, client, settings, state))
    certificates = check_certificates(place.config.get("tls"))
    findings = [reached, certificates, *asked[:2], stored, held, people, keys, *asked[2:]]
    _print(call, findings)
    return ENDED_OTHERWISE if any(finding.status == "fail" for finding in findings) else DONE


def _find_place(call: Invocation, settings: Settings) -> _Place:
    """Return where a worker would connect to: what is configured, else the local server if it runs."""
    config = configured(call, settings.environment)
    address = config.get("target_host")
    if address is None and (config.get("tls") or config.get("api_key")):
        raise CliError("TLS or an API key is set, but no address: give --address or set TEMPORAL_ADDRESS")
    if address is None and lease.keeper_lives(settings.folder):
        port = keeper.read_state(settings.folder).get("port")
        address = f"127.0.0.1:{port}" if port else None
    return _Place({**config, "target_host": address, "identity": "mandate-doctor"}, address)


async def _reach(call: Invocation, place: _Place) -> tuple[Finding, Client | None]:
    if place.address is None:
        advice = "for a server of your own set TEMPORAL_ADDRESS"
        return Finding(
            "address", "skipped", "none is set, so commands start a local server to develop with", advice
        ), None
    try:
        client = await connect_client(place.config, call, CONNECT_SECONDS)
    except Unreachable as error:
        found, _, advice = str(error).partition("; ")
        return Finding("address", "fail", found, advice), None
    return await bound("address", check_address(client, place.address), "look at the load of the server"), client


async def _ask(
    call: Invocation, client: Client | None, settings: Settings, state: StoreState | None
) -> tuple[Finding, ...]:
    """Return namespace, search attributes, clock and workers, in this order."""
    store_clock = state.now - datetime.now(UTC) if state is not None and state.now is not None else None
    if client is None:
        clock = judge_clocks({"the store": store_clock})
        found = {name: Finding(name, "skipped", "no Temporal server answers") for name in _ASKED}
        return tuple((found | {"clock": clock if store_clock is not None else found["clock"]}).values())
    namespace = await bound("namespace", check_namespace(client), "look at the load of the server")
    if namespace.status == "fail":
        others = (Finding(name, "skipped", "there is no namespace to ask") for name in _ASKED[1:])
        return (namespace, *others)
    ahead, attributes = await asyncio.gather(
        _measure(client), bound("search attributes", check_search_attributes(client), "look at the load of the server")
    )
    peers = None
    if state is not None and state.identity is not None and not state.is_older:
        peers = await list_announced(settings.store, client.namespace, settings.task_queue)
    workers = check_queue(client, settings.task_queue, ahead, peers, call.program)
    clock = judge_clocks({"Temporal's clock": ahead, "the store's clock": store_clock})
    return namespace, attributes, clock, await bound("workers", workers, "look at the load of the server")


async def _measure(client: Client) -> timedelta | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await measure_clock(client)
    except TimeoutError:
        return None


def _print(call: Invocation, findings: list[Finding]) -> None:
    failed = any(finding.status == "fail" for finding in findings)
    if call.out.as_json:
        call.out.json({"ok": not failed, "checks": [finding.to_json() for finding in findings]})
        return
    width = max(len(finding.check) for finding in findings) + 2
    for finding in findings:
        because = "because " if finding.status == "skipped" else ""
        told = f"{because}{finding.found}{f'; {finding.advice}' if finding.advice else ''}"
        line = Text.assemble((f"{finding.status:<9}", STYLES[finding.status]), f"{finding.check:<{width}}{told}")
        call.out.print(line)
