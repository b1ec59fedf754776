"""`mandate plan`: verbs about plans."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from mandate.workers.cli import identity, own_worker
from mandate.workers.cli.connection import connected, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.limits import LIMITS, read_limits
from mandate.workers.cli.options import Invocation, offline_verb, verb
from mandate.workers.cli.run import demand_id, note_detached, read_input, read_label, refuse_used, watch
from mandate.workers.client.client import AgentClient
from mandate.workers.client.earlier_run import UsedId
from mandate.workflows.contracts.plan import PlanSpec

plan = typer.Typer(
    help="Check, draw and run plans: steps of agents, tools and other plans.",
    add_completion=False,
    no_args_is_help=True,
)


@plan.command("validate")
@offline_verb
async def validate(
    call: Invocation,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A plan file, or the name of a plan of MANDATE_PLANS; all of these if left out.", metavar="FILE|NAME"
        ),
    ] = None,
    *,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the levels of steps that can run side by side.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart and nothing else.")] = False,
) -> int:
    """Check plans with the agents and tools that they name, before anything is asked of a model.

    Agents are read from MANDATE_AGENTS; MCP servers that plans or agents name are started and asked for their tools.
    Exit code 0: all plans can be run. 2: something is wrong; all of it is told.
    """
    # Here: the catalog takes long to import, and other verbs do without it.
    from mandate.workers.cli.validation.plans import validate_plans  # noqa: PLC0415 - only for this verb

    return await validate_plans(call.out, source, draws=draw, is_mermaid=mermaid)


@plan.command("run")
@verb
async def run(
    call: Invocation,
    source: Annotated[
        str,
        typer.Argument(
            help="Name of a plan of the workers; or a plan file, whose steps name agents and plans of theirs.",
            metavar="NAME|FILE",
        ),
    ],
    text: Annotated[
        str | None, typer.Argument(help="What it is asked, as a text; `-` reads it from stdin.", metavar="TEXT")
    ] = None,
    *,
    input_file: Annotated[Path | None, typer.Option(help="What it is asked: a text, or an object in `.json`.")] = None,
    input_json: Annotated[str | None, typer.Option("--input", help="What it is asked, as JSON of any kind.")] = None,
    workflow_id: Annotated[
        str | None,
        typer.Option("--id", help="Workflow id; made up if left out. One that a run had before is refused."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start another run under the --id of one that ended.")] = False,
    requester: Annotated[str | None, typer.Option(help="Who asks, as of `mandate run`.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="`key=value`, for finding it; can be repeated.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of this run, all below it included, as `cost_usd=0.50`; where the plan's is lower, that one "
            f"counts. LIMIT is one of {LIMITS}. Can be repeated.",
            metavar="LIMIT=VALUE",
        ),
    ] = None,
    tainted: Annotated[
        bool, typer.Option("--tainted", help="The input comes from strangers: rules see `run.tainted` from the start.")
    ] = False,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Only start it.")] = False,
) -> int:
    """Start a run of a plan and follow it; Ctrl-C leaves it running.

    It tells of each step as it begins, is tried again, ends or is skipped, and what people are asked. What happens
    at once to many steps is told in one line, and of a long `for_each` each tenth part and the first failures.

    In a project with the local server, where no worker polls, it has a worker of its own for as long as it follows.
    With `-o json` its result, with one object a step: id, status, output, reason, cost_usd, attempts, and of a
    `for_each` items, completed and failed.

    Exit code 0: it completed. 1: it ended otherwise. 2: it was asked for wrongly.
    """
    demand_id(workflow_id, again=again)
    asked, labels, limits = (
        read_plan_input(text, input_file, input_json),
        dict(map(read_label, label or ())),
        read_limits("--budget", budget or ()),
    )
    named = read_plan(source)
    async with connected(call) as connection:
        note_start(call, connection, goes_on=detach)
        queue = task_queue or connection.settings.task_queue
        given = requester if requester is not None else connection.settings.requester
        who = identity.person(connection.settings, given, option="--requester")
        client = AgentClient(connection.client, queue)
        async with AsyncExitStack() as stack:
            if not detach:
                await stack.enter_async_context(own_worker.serving(call, connection, queue))
            try:
                handle = await client.start_plan(
                    named,
                    asked,
                    workflow_id=workflow_id,
                    requester=who.name,
                    labels=labels,
                    budget=limits,
                    tainted=tainted,
                    again=again,
                )
            except ValueError as error:
                raise CliError(f"start request: {error}") from None
            except UsedId as error:
                raise refuse_used(call, connection, error) from None
            call.out.note(f"{handle.id} on task queue {queue}, requester {who}")
            if detach:
                note_detached(call, connection, handle, is_limited=bool(limits))
                return 0
            return await watch(call, connection, handle.id, handle.first_execution_run_id)


@plan.command("show")
@verb
async def show(
    call: Invocation,
    run: Annotated[str, typer.Argument(help="Workflow id of a run of a plan.", metavar="RUN")],
    *,
    run_id: Annotated[str | None, typer.Option(help="One Temporal run of it; the newest if left out.")] = None,
) -> int:
    """Show each step of a run of a plan: whether it waits, works or how it ended, its attempts and what it cost.

    With `-o json` one object: workflow_id, run_id, status, doing, reason, and steps: id, status, output, reason,
    cost_usd, attempts, items, completed, failed. `mandate show RUN` shows the steps in the order in which they began
    and ended, and `mandate show RUN --tree` the runs of its agents.
    """
    from mandate.workers.cli.plans.show import show_plan  # noqa: PLC0415 - only for this verb

    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        return await show_plan(call, connection, run, run_id)


def read_plan_input(text: str | None, input_file: Path | None, input_json: str | None) -> Any:
    """Return what a plan is asked; `None` where nothing is given. Raise as `read_input`."""
    if text is None and input_file is None and input_json is None:
        return None
    if input_json is None or text is not None or input_file is not None:
        return read_input(text, input_file, input_json)
    try:
        return json.loads(input_json)
    except ValueError as error:
        raise CliError(f"--input is not JSON: {error}; for example '{{\"order\": 81}}'") from None


def read_plan(source: str) -> str | PlanSpec:
    """Return the name of a plan of the workers, or the plan of a file."""
    path = Path(source)
    if path.suffix not in {".yaml", ".yml", ".json"}:
        return source
    # Takes long, and names do without it.
    from mandate.workers.catalog.plans import find_own_faults, scan_plans  # noqa: PLC0415

    if not path.is_file():
        raise CliError(f"{source} does not exist; name a plan file, or a plan of the workers")
    scan = scan_plans(path)
    if scan.faults:
        raise CliError("\n".join(map(str, scan.faults)))
    spec = scan.files[0].spec
    from mandate.workers.catalog.plan_members import find_data_faults  # noqa: PLC0415 - as above

    if faults := [scan.files[0].document.fault(place, message) for place, message in find_data_faults(spec)]:
        way = f"if the workers have this file among their plans, run it by its name: {spec.name}"
        raise CliError("\n".join([*map(str, faults), way]))
    if faults := list(find_own_faults(scan.files[0])):
        raise CliError("\n".join(map(str, faults)))
    return spec
