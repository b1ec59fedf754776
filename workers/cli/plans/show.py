"""The steps of a run of a plan, for `mandate plan show`."""

import json
import shlex
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from mandate.activities.plan import PlanActivities
from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.client import answers
from mandate.workers.history.record import Record, read_record
from mandate.workers.run_store import StoreUnusable, stored
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.plan import PlanResult, StepResult
from mandate.workflows.contracts.run import PLAN_WORKFLOW
from mandate.workflows.rules import wording

REASON_CHARACTERS = 60

_STYLES = {"completed": "green", "running": "bold blue", "failed": "red", "skipped": "yellow", "stopped": "yellow"}


async def show_plan(call: Invocation, connection: Connection, workflow_id: str, run_id: str | None) -> int:
    """Show each step of a run of a plan; return the exit code.

    Raises:
        CliError: there is no such run, it is none of a plan, or nobody can say now how it stands.
    """
    record = await read_record(connection.client, workflow_id, run_id)
    handle = connection.client.get_workflow_handle(workflow_id, run_id=record.run_id)
    if (await handle.describe()).workflow_type != PLAN_WORKFLOW:
        show = f"{call.program} show {shlex.quote(workflow_id)}{connection.options}"
        raise CliError(f"{workflow_id!r} is a run of an agent, which has no steps of a plan; read it with `{show}`")
    result = await _find_result(connection.client, record)
    steps = await _read_steps(call, connection, record, result)
    reason = result.reason if result is not None else None
    if call.out.as_json:
        call.out.json(
            {
                "workflow_id": workflow_id,
                "run_id": record.run_id,
                "status": record.status,
                "doing": record.history.doing if result is None else None,
                "reason": reason,
                "steps": [step.model_dump(mode="json") for step in steps],
            }
        )
        return 0
    doing = reason or (record.history.doing if result is None else None)
    call.out.print(Text.assemble((workflow_id, "bold"), f"  {record.status}{f': {doing}' if doing else ''}"))
    call.out.print(_draw(steps))
    called = f"{call.program} show {shlex.quote(workflow_id)} --tree{connection.options}"
    call.out.note(f"runs of its agents and plans: `{called}`")
    return 0


async def _find_result(client: Client, record: Record) -> PlanResult | None:
    """Return the result of a plan that has one."""
    ended = record.history.ended
    if ended is None or ended.result is None:
        return None
    typed = client.get_workflow_handle(record.workflow_id, run_id=record.run_id, result_type=PlanResult)
    result: PlanResult = await typed.result(follow_runs=False)
    return result


async def _read_steps(
    call: Invocation,
    connection: Connection,
    record: Record,
    result: PlanResult | None,
) -> list[StepResult]:
    """Return all steps; of a result those that it has room for, where the store cannot be read."""
    pin = record.history.pin
    try:
        async with stored(connection.settings.store, pin.store if pin is not None else None) as blobs:
            if result is not None and result.steps_digest is not None:
                return [StepResult.model_validate(one) for one in json.loads(await blobs.get(result.steps_digest))]
            head = result.head if result is not None else await _ask_head(call, connection, record)
            if head is None:
                raise CliError(f"{record.workflow_id!r} has not begun")
            return await _reader(blobs).read_steps(head, has_ended=record.history.ended is not None)
    except (StoreUnusable, BlobCorrupted, OSError, ValueError) as error:
        if result is not None and result.steps:
            call.out.note(f"only the steps that the result has room for are shown: {error}")
            return list(result.steps)
        raise CliError(f"the steps of {record.workflow_id!r} cannot be read: {error}") from None


def _reader(blobs: Blobs) -> PlanActivities:
    return PlanActivities(PinnedAgents(blobs), TranscriptLog(blobs))


async def _ask_head(call: Invocation, connection: Connection, record: Record) -> Digest | None:
    """Return the end of the conversation of a run, which a worker has to tell.

    Raises:
        CliError: no worker answers, or it ended before its first step.
    """
    name, ended = record.workflow_id, record.history.ended
    if ended is not None and record.history.pin is None:
        why = f": {ended.reason}" if ended.reason else ""
        raise CliError(f"{name!r} has no steps, since it ended before the first one ({ended.status}){why}")
    try:
        return (await answers.state(connection.client, name, run_id=record.run_id)).head
    except answers.NotAnswering as error:
        advice = connection.advise_worker(call.program, error.unserved)
        raise CliError(f"{name!r} does not tell how it stands: {error}{advice}") from None


def _draw(steps: list[StepResult]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("step", "status", "items", "attempts", "cost", "why"):
        table.add_column(name, justify="right" if name in {"items", "attempts", "cost"} else "left")
    for step in steps:
        items = f"{step.completed}/{step.items}" if step.items is not None else ""
        table.add_row(
            Text(step.id),
            Text(step.status, _STYLES.get(step.status, "dim")),
            items,
            str(step.attempts or ""),
            f"${step.cost_usd}" if Decimal(step.cost_usd) else "",
            Text(wording.shorten(step.reason or "", REASON_CHARACTERS)),
        )
    return table
