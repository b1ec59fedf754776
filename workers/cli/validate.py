"""`mandate validate`: what is wrong with agent files, and what they allow."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.errors import DONE, REFUSED, CliError
from workers.cli.options import Invocation, offline_verb

if TYPE_CHECKING:
    from activities.documents import Fault
    from workers.catalog import Catalog, Loaded
    from workers.mcp_waits import AnnouncedWaits
    from workers.secrets import Secrets
    from workers.settings import Settings
    from workflows.contracts.policy import Verdict
    from workflows.contracts.tool import ToolDefinition


@offline_verb
async def validate(
    call: Invocation,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Agent files or folders; MANDATE_AGENTS if left out.", metavar="FILE")
    ] = None,
    *,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of agent files, for editors.")
    ] = False,
) -> int:
    """Check agent files with all their tools, and say what each agent may do.

    MCP servers are started and asked for their tools; secrets and scripts must be there, keys of models should.
    Exit code 0: all can be served. 2: something is wrong; all faults are told.
    """
    if schema:
        from workers.agent_files import agent_schema

        call.out.json(agent_schema())
        return DONE
    from workers.settings import Settings

    settings = Settings.from_environment()
    catalogs, faults = await _load(call, settings, files)
    if call.out.as_json:
        agents = [_agent_json(loaded) for catalog in catalogs for loaded in catalog.agents.values()]
        warnings = [str(warning) for catalog in catalogs for warning in catalog.warnings]
        call.out.json({"valid": not faults, "agents": agents, "warnings": warnings, "faults": list(map(str, faults))})
    else:
        for catalog in catalogs:
            _print(call, catalog)
        sys.stdout.flush()
        sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return REFUSED if faults else DONE


async def _load(
    call: Invocation, settings: "Settings", files: list[Path] | None
) -> "tuple[list[Catalog], list[Fault]]":
    """What can be served, with warnings of what will not go well, and all that cannot."""
    from workers.agent_files import AgentFileError
    from workers.lazy_mcp import LazyMcpToolbox
    from workers.mcp_waits import AnnouncedWaits
    from workers.secrets import Secrets

    secrets = Secrets(settings.environment, settings.secrets)
    mcp = LazyMcpToolbox(secrets)
    waits = AnnouncedWaits(mcp, call.out.note)
    catalogs: list[Catalog] = []
    faults: list[Fault] = []
    try:
        for source in files or [settings.agents]:
            if (fault := _nothing_there(source, named=bool(files))) is not None:
                faults.append(fault)
                continue
            try:
                catalogs.append(await _catalog(replace(settings, agents=source), waits, secrets))
            except AgentFileError as error:
                faults.extend(error.faults)
    except ValueError as error:
        raise CliError(str(error)) from error
    finally:
        await mcp.close()
    return catalogs, faults


async def _catalog(settings: "Settings", mcp: "AnnouncedWaits", secrets: "Secrets") -> "Catalog":
    from workers import readiness
    from workers.agent_files import AgentFileError
    from workers.catalog import Catalog

    catalog = await Catalog.load(settings.agents, mcp, secrets=secrets)
    if faults := readiness.script_faults(catalog, settings):
        raise AgentFileError(faults)
    more = (*readiness.missing_keys(catalog, settings), *await readiness.closed_hosts(catalog, settings))
    return replace(catalog, warnings=(*catalog.warnings, *more))


def _nothing_there(source: Path, *, named: bool) -> "Fault | None":
    """Why there are no agents at `source` at all; `named` is whether the command line names it."""
    from activities.documents import Fault
    from workers.agent_files import agent_paths

    if not source.exists():
        way = "" if named else "; name agent files as FILE, or set MANDATE_AGENTS to their folder"
        return Fault(str(source), 0, 0, "", "", f"does not exist{way}")
    if source.is_dir() and not agent_paths(source):
        way = "write one, name it or another folder as FILE, or set MANDATE_AGENTS"
        return Fault(str(source), 0, 0, "", "", f"has no agent files (*.yaml); {way}")
    return None


def _print(call: Invocation, catalog: "Catalog") -> None:
    from rich.table import Table
    from rich.text import Text

    for warning in catalog.warnings:
        call.out.print(Text(f"warning: {warning}", style="yellow"))
    for loaded in catalog.agents.values():
        pinned = loaded.pinned
        call.out.print(Text.assemble((pinned.name, "bold"), f" {loaded.digest[:12]}  {loaded.path or ''}"))
        call.out.print(f"  models  {', '.join(pinned.models)}")
        table = Table("tool", "effect", "from", "when called", box=None, padding=(0, 2, 0, 2), header_style="dim")
        refused = []
        for definition in pinned.tools:
            tool = definition.tool
            verdict = _verdict(loaded, tool.name)
            style = "" if verdict.allowed else "yellow"
            table.add_row(tool.name, str(tool.effect), _origin(definition), Text(_words(verdict), style=style))
            if not verdict.allowed and verdict.rule is None:
                refused.append(tool.name)
        call.out.print(table)
        if refused:
            names = ", ".join(refused)
            call.out.print(
                Text(f"  no rule allows {names}: each call is refused; allow it in `policy`", style="yellow")
            )


def _agent_json(loaded: "Loaded") -> dict[str, object]:
    tools = []
    for definition in loaded.pinned.tools:
        tool = definition.tool
        verdict = _verdict(loaded, tool.name)
        its = {
            "name": tool.name,
            "effect": str(tool.effect),
            "source": tool.source,
            "claims": list(_claims(definition)),
        }
        tools.append({**its, "allowed": verdict.allowed, "rule": verdict.rule})
    return {
        "name": loaded.pinned.name,
        "version": loaded.digest[:12],
        "path": str(loaded.path) if loaded.path is not None else None,
        "models": list(loaded.pinned.models),
        "tools": tools,
        "open": [tool["name"] for tool in tools if not tool["allowed"] and tool["rule"] is None],
    }


def _claims(definition: "ToolDefinition") -> tuple[str, ...]:
    """What a foreign server says of the tool's effect."""
    return definition.binding.claims if definition.binding.kind == "mcp" else ()


def _origin(definition: "ToolDefinition") -> str:
    claims = _claims(definition)
    return f"{definition.tool.source}, says: {', '.join(claims)}" if claims else definition.tool.source


def _verdict(loaded: "Loaded", name: str) -> "Verdict":
    from workflows.rules import policy

    definition = loaded.pinned.definition(name)
    assert definition is not None
    return policy.judge(loaded.pinned.policy, definition.tool)


def _words(verdict: "Verdict") -> str:
    word = "runs" if verdict.allowed else "refused"
    if verdict.rule is not None:
        return f"{word}: rule {verdict.rule}"
    return f"{word}: only reads" if verdict.allowed else f"{word}: no rule allows it"
