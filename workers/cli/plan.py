"""`mandate plan`: verbs about plans."""

from typing import Annotated

import typer

from mandate.workers.cli.options import Invocation, offline_verb

plan = typer.Typer(help="Check plans: steps of agents, tools and other plans; draw them.", add_completion=False)


@plan.callback()
def _group() -> None:
    """Keep the name of a verb where there is only one."""


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
    from mandate.workers.cli.validate_plans import validate_plans  # noqa: PLC0415 - only for this verb

    return await validate_plans(call.out, source, draws=draw, is_mermaid=mermaid)
