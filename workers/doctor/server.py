"""Checks of the Temporal server: namespace, search attributes and clock."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import NamespaceState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    GetSystemInfoRequest,
    PollActivityTaskQueueRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers import search_attributes
from mandate.workers.doctor.findings import Finding
from mandate.workflows.rules import quantities

OLDEST_SERVER = (1, 31)
"""Of those that the tests run on."""

SHORT_RETENTION = timedelta(days=7)

LATE = timedelta(seconds=5)
"""Difference of two clocks from which on it is told; from a minute on tokens and expiries go wrong."""
WRONG = timedelta(minutes=1)

CLOCK_QUEUE = "mandate-doctor"
"""Task queue that nothing is ever sent to: a poll of it tells the server's time."""


async def check_address(client: Client, address: str) -> Finding:
    """Check that the server is of a version that Mandate is tested with."""
    try:
        version = (await client.workflow_service.get_system_info(GetSystemInfoRequest())).server_version
    except RPCError as error:
        return Finding("address", "warn", f"{address} answers, and does not tell its version: {_words(error)}")
    found = f"{address} answers, Temporal server {version or 'of an unknown version'}"
    if (number := _read_version(version)) is not None and number < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        return Finding("address", "warn", found, f"upgrade it: {oldest} is the oldest one that Mandate is tested with")
    return Finding("address", "ok", found)


async def check_namespace(client: Client) -> Finding:
    """Check that the namespace is there, and for how long it keeps ended runs."""
    name = client.namespace
    try:
        described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=name))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            create = f"mandate setup-namespace -n {name}"
            return Finding(
                "namespace", "fail", f"there is no namespace {name!r}", f"name another one, or run: {create}"
            )
        if error.status in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED}:
            advice = "give the key or the certificate the right to read this namespace, or name another one"
            return Finding("namespace", "fail", f"{name!r} is refused: {_words(error)}", advice)
        return Finding("namespace", "warn", f"{name!r} was not described: {_words(error)}")
    state = described.namespace_info.state
    if state not in {NamespaceState.NAMESPACE_STATE_REGISTERED, NamespaceState.NAMESPACE_STATE_UNSPECIFIED}:
        return Finding("namespace", "fail", f"{name!r} is deprecated or being deleted", "name another namespace")
    retention = described.config.workflow_execution_retention_ttl.ToTimedelta()
    found = f"{name!r}, which keeps ended runs for {_write_days(retention)}"
    if timedelta(0) < retention < SHORT_RETENTION:
        longer = f"temporal operator namespace update -n {name} --retention 720h"
        return Finding("namespace", "warn", found, f"keep them as long as your records need, for example: {longer}")
    return Finding("namespace", "ok", found)


async def check_search_attributes(client: Client) -> Finding:
    """Check that the search attributes of runs exist, with their types."""
    check = "search attributes"
    try:
        found = await search_attributes.read(client)
    except RPCError as error:
        return Finding(check, "warn", f"they cannot be listed: {_words(error)}", "runs then set none; ask who may")
    if wrong := [f"{one.name} is no {one.type}" for one in found if one.is_wrong]:
        return Finding(check, "fail", ", ".join(wrong), "remove or rename them: no worker starts with another type")
    if missing := [one for one in found if one.is_missing]:
        words = " ".join(f"--name {one.name} --type {one.type}" for one in missing)
        create = f"temporal operator search-attribute create -n {client.namespace} {words}"
        advice = f"the first worker creates them if it may; else run: {create}"
        return Finding(check, "warn", f"missing: {', '.join(one.name for one in missing)}", advice)
    return Finding(check, "ok", "all are there")


async def measure_clock(client: Client) -> timedelta | None:
    """Return how much the server's clock is ahead of this machine's, or `None` where the server does not tell."""
    queue = TaskQueue(name=CLOCK_QUEUE)
    polling = asyncio.create_task(
        client.workflow_service.poll_activity_task_queue(
            PollActivityTaskQueueRequest(namespace=client.namespace, task_queue=queue, identity=CLOCK_QUEUE),
            # Servers want a second at least.
            timeout=timedelta(seconds=5),
        )
    )
    asked_at = datetime.now(UTC)
    describe = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=queue, task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    )
    try:
        before = None
        while not polling.done():
            await asyncio.sleep(0.05)
            described = await client.workflow_service.describe_task_queue(describe)
            times = [poller.last_access_time.ToDatetime(UTC) for poller in described.pollers]
            # A poll of an earlier check may be there still.
            if times and (before is None or max(times) != before):
                before = max(times)
                if abs(before - asked_at) < LATE or datetime.now(UTC) - asked_at > timedelta(seconds=1):
                    return before - asked_at
            elif times and datetime.now(UTC) - asked_at > timedelta(seconds=1):
                return max(times) - asked_at
    except RPCError:
        return None
    finally:
        polling.cancel()
        with suppress(asyncio.CancelledError, RPCError):
            await polling
    return None


def judge_clocks(differences: dict[str, timedelta | None]) -> Finding:
    """Judge how much clocks of others are ahead of this machine's."""
    known = {name: difference for name, difference in differences.items() if difference is not None}
    if not known:
        return Finding("clock", "skipped", "nothing that was asked tells its time")
    found = ", ".join(f"{name} is {_ahead(difference)}" for name, difference in known.items())
    most = max(map(abs, known.values()))
    advice = "set this machine's clock by NTP, or that of the other: tokens and expiries depend on it"
    if most >= WRONG:
        return Finding("clock", "fail", found, advice)
    return Finding("clock", "warn", found, advice) if most >= LATE else Finding("clock", "ok", found)


def _write_days(length: timedelta) -> str:
    days, rest = divmod(length, timedelta(days=1))
    if days and not rest:
        return "1 day" if days == 1 else f"{days} days"
    return quantities.write_seconds(length.total_seconds())


def _ahead(difference: timedelta) -> str:
    seconds = difference.total_seconds()
    if abs(seconds) < 1:
        return "within a second of this machine"
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine"


def _read_version(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit() else None


def _words(error: RPCError) -> str:
    return " ".join(error.message.split())[:200]
