"""`mandate validate`: what is wrong with agent files, plans, policies and endpoints, and what they allow."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.text import Text

from mandate.activities.documents import Fault, read_document
from mandate.activities.files import FileError
from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox
from mandate.workers.catalog import budgets, people, readiness
from mandate.workers.catalog.agents import agent_paths, agent_schema, scan_agents
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.costs import list_call_costs
from mandate.workers.catalog.endpoints import Endpoints, providers_schema, try_endpoints
from mandate.workers.catalog.examples import call_schema
from mandate.workers.catalog.file_kinds import FileKind, find_kind
from mandate.workers.catalog.mcp_acceptance import Offer
from mandate.workers.catalog.people import people_path
from mandate.workers.catalog.plans import is_plan, plan_schema, scan_plans
from mandate.workers.catalog.policies import is_policy, policy_folder, policy_paths, policy_schema
from mandate.workers.catalog.tools import AnnouncedWaits
from mandate.workers.cli.errors import DONE, REFUSED, CliError
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.cli.output import write_error
from mandate.workers.cli.validation.acceptance import accept_words, offer_json
from mandate.workers.cli.validation.agents import agent_json, describe_control, print_catalog
from mandate.workers.cli.validation.budgets import print_budgets
from mandate.workers.cli.validation.call import call_json, judge_call, print_call
from mandate.workers.cli.validation.endpoints import endpoint_json, print_endpoints
from mandate.workers.cli.validation.plans import list_plans_json, load_plans, plan_json, print_plans
from mandate.workers.cli.validation.policies import check_policies, policy_json, print_policies
from mandate.workers.project import SettingsError, read_project
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings, find_plans
from mandate.workflows.contracts.budget_file import PeriodBudget
from mandate.workflows.contracts.policy import Approvers

_A_LIST = (
    "is a list, and no file is one: people, channels, budgets and triggers are a list under the key of that name; "
    "an agent has 'name', 'instructions' and 'models', a plan 'name' and 'steps', a policy 'rules'"
)


@offline_verb
async def validate(
    call: Invocation,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Agent files, plan files, policy files, or folders of them, or a file of providers, budgets, people, "
            "channels or triggers, or mandate.yaml; if left out MANDATE_AGENTS, MANDATE_PLANS, MANDATE_POLICIES and "
            "the files that settings name.",
            metavar="FILE",
        ),
    ] = None,
    *,
    judged: Annotated[
        Path | None, typer.Option("--call", help="Say what becomes of the call in this file.", metavar="FILE")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Show what MCP servers say of their tools, and write its digest as `accepted` into the agent files.",
        ),
    ] = False,
    live: Annotated[
        str | None,
        typer.Option("--live", help="Make one tiny call of this model, and say what came.", metavar="MODEL"),
    ] = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON Schema of agent files, or of `policy`, `plan`, `call`, `budgets`, `providers` or "
            "`triggers`.",
        ),
    ] = False,
) -> int:
    """Check agent files and plans with all their tools, and say what agents may do; run the examples of policies.

    MCP servers are started and asked for their tools; secrets and scripts must be there, keys of models should.
    What they say of their tools stands in the prompt: it taints runs until --accept has accepted it.
    Exit code 0: all can be served, and all examples come out as written. 2: something is wrong; all of it is told.
    With --live 0: the model answered; 1: it did not, or its provider refused the key or the name.
    """
    if schema:
        call.out.json(_schema(files or []))
        return DONE
    settings = Settings.from_environment()
    if live is not None:
        return await _call_live(call, settings, live, files, is_alone=judged is None and not accept)
    sources = _sources(settings, files)
    settings = _with_files(settings, sources.files)
    endpoints, wrong_endpoints = try_endpoints(settings)
    offers: list[Offer] = []
    catalogs, faults = await _load(call, settings, sources, endpoints, offers if accept else None, is_all=not files)
    planned, wrong_plans = await load_plans(call.out, settings, sources.plans)
    faults = [*wrong_endpoints, *faults, *wrong_plans]
    if judged is not None and not faults:
        return _judge(call, judged, catalogs)
    policies, wrong = check_policies(sources.policies, catalogs, complete=bool(sources.agents) and not faults)
    # What is wrong with a policy for an agent is told with the agent's name, and not once more without.
    places = {(fault.file, fault.line, fault.key) for fault in faults}
    faults += [fault for fault in wrong if (fault.file, fault.line, fault.key) not in places]
    faults += _file_faults(settings, sources.files, is_all=not files)
    faults = list(dict.fromkeys(faults))
    limits, unused = _budgets(settings, catalogs if not files else None, faults)
    has_people = people_path(settings) is not None
    control = _control(settings)
    used = {provider for catalog in catalogs for provider in catalog.providers()}
    unready = [
        *endpoints.list_lacks(Secrets(settings.environment, settings.secrets), used),
        *_trigger_warnings(settings, sources.files, faults, is_all=not files),
    ]
    if call.out.as_json:
        agents = [
            agent_json(loaded, catalog.endpoints.find_protocol, has_people=has_people)
            for catalog in catalogs
            for loaded in catalog.agents.values()
        ]
        warnings = [*map(str, unready), *(str(warning) for catalog in catalogs for warning in catalog.warnings)]
        warnings += map(str, unused)
        warnings += map(str, planned.warnings)
        told = {"agents": agents, "policies": list(map(policy_json, policies)), "warnings": warnings}
        told |= {"plans": [*chain.from_iterable(map(list_plans_json, catalogs)), *map(plan_json, planned.plans)]}
        told |= {"control": control.model_dump(mode="json") if control is not None else None}
        told |= {"budgets": [budget.model_dump(mode="json") for budget in limits]}
        told |= {"endpoints": [endpoint_json(name, endpoint) for name, endpoint in endpoints.by_name.items()]}
        accepted = {"accepted": list(map(offer_json, offers))} if accept else {}
        call.out.json({"valid": not faults, **told, **accepted, "faults": list(map(str, faults))})
    else:
        for catalog in catalogs:
            print_catalog(call.out, catalog, has_people=has_people)
            print_plans(call.out, catalog.plans.values())
        print_plans(call.out, planned.plans, planned.warnings)
        if catalogs:
            call.out.print(describe_control(control, people_path(settings)))
        print_budgets(call.out, limits, unused)
        for warning in unready:
            call.out.print(Text(f"warning: {warning}", style="yellow"))
        print_endpoints(call.out, endpoints)
        broken = {fault.file for fault in faults}
        for kind in ("people", "channels", "triggers", "settings"):
            if (file := sources.files.get(kind)) is not None and str(file) not in broken:
                call.out.print(f"{file}: {_name(kind)} without faults")
        print_policies(call.out, policies)
        sys.stdout.flush()
        for fault in faults:
            write_error(str(fault))
    return REFUSED if faults else DONE


async def _call_live(
    call: Invocation, settings: Settings, model: str, files: list[Path] | None, *, is_alone: bool
) -> int:
    if not is_alone or not _are_providers(files):
        raise CliError(
            "--live asks one model, whatever agents name it: it takes a file of providers at most, and neither "
            "--call nor --accept"
        )
    # Here: the SDK of a vendor takes long to import.
    from mandate.workers.cli.validation.live import call_live  # noqa: PLC0415 - only for calls

    return await call_live(call.out, replace(settings, endpoints=files[0] if files else settings.endpoints), model)


def _are_providers(files: list[Path] | None) -> bool:
    """Tell whether the command line names one file of providers, or nothing."""
    if not files:
        return True
    return len(files) == 1 and _find_kind(files[0]) == "providers"


def _find_kind(file: Path) -> FileKind | None:
    return find_kind(file, read_document(file)) if file.is_file() else None


def _name(kind: FileKind) -> str:
    return "settings of a project" if kind == "settings" else f"a file of {kind}"


def _with_files(settings: Settings, files: Mapping[FileKind, Path]) -> Settings:
    """Return the settings with the files that the command line names in place of theirs."""
    return replace(
        settings,
        endpoints=files.get("providers", settings.endpoints),
        budgets=files.get("budgets", settings.budgets),
        people=files.get("people", settings.people),
        channels=files.get("channels", settings.channels),
        triggers=files.get("triggers", settings.triggers),
    )


def _control(settings: Settings) -> Approvers | None:
    """Return who may control runs; `None` where everybody may, or the file of people has faults, which are told."""
    try:
        found = people.read_people(settings)
    except FileError:
        return None
    return found.control if found is not None else None


def _file_faults(settings: Settings, named: Mapping[FileKind, Path], *, is_all: bool) -> Iterator[Fault]:
    """Yield the faults of files that are no agents and no policies: of those that are named, or of all with `is_all`.

    Budgets are always among them; providers, and people with `is_all`, are checked with the agents.
    """
    yield from budgets.faults_for(settings)
    if "people" in named:
        yield from people.faults_for((), settings)
    if "channels" in named or (is_all and _has_channels(settings)):
        yield from _channel_faults(settings)
    if "triggers" in named or is_all:
        yield from _trigger_faults(settings)
    if (path := named.get("settings")) is not None:
        yield from _setting_faults(path)


def _has_channels(settings: Settings) -> bool:
    return settings.channels is not None or settings.default_channels.exists()


def _setting_faults(path: Path) -> tuple[Fault, ...]:
    """Return the faults of a `mandate.yaml`."""
    try:
        read_project(path)
    except SettingsError as error:
        return error.faults
    return ()


def _has_triggers(settings: Settings) -> bool:
    return settings.triggers is not None or settings.default_triggers.exists()


def _trigger_faults(settings: Settings) -> tuple[Fault, ...]:
    if not _has_triggers(settings):
        return ()
    # Here: with expressions comes the library of CEL.
    from mandate.workers.events import trigger_file  # noqa: PLC0415 - only for a file of triggers

    return trigger_file.faults_for(settings)


def _trigger_warnings(
    settings: Settings, named: Mapping[FileKind, Path], faults: list[Fault], *, is_all: bool
) -> tuple[Fault, ...]:
    """Return warnings of triggers that are named, or of those of the settings with `is_all`, if nothing has faults.

    Without agents here there are none: those of a listener may be elsewhere.
    """
    if faults or not ("triggers" in named or (is_all and _has_triggers(settings))) or not settings.agents.exists():
        return ()
    from mandate.workers.events import trigger_file  # noqa: PLC0415 - as above

    agents = [file.spec.name for file in scan_agents(settings.agents).files]
    scan = scan_plans(find_plans(settings))
    plans = [*(file.spec.name for file in scan.files), *scan.others]
    return trigger_file.warnings_for(settings, agents=agents, plans=plans)


def _triggers_schema() -> dict[str, JsonValue]:
    from mandate.workers.events import trigger_file  # noqa: PLC0415 - only for this schema

    return trigger_file.triggers_schema()


def _channel_faults(settings: Settings) -> tuple[Fault, ...]:
    # Here: with the activities come Temporal's libraries.
    from mandate.workers.catalog import channels  # noqa: PLC0415 - only for a file of channels

    return channels.faults_for(settings)


def _budgets(
    settings: Settings, catalogs: list[Catalog] | None, faults: list[Fault]
) -> tuple[tuple[PeriodBudget, ...], tuple[Fault, ...]]:
    """Return the budgets of their file, with warnings where `catalogs` are all agents and nothing has faults."""
    try:
        found = budgets.read_budgets(settings)
    except FileError:
        return (), ()
    if found is None or catalogs is None or faults:
        return found[0].budgets if found is not None else (), ()
    agents = {
        name: [cost.model for cost in list_call_costs(loaded.pinned) if cost.price is None]
        for catalog in catalogs
        for name, loaded in catalog.agents.items()
    }
    return found[0].budgets, budgets.warnings_for(settings, agents=agents, people=people.read_people(settings))


def _schema(words: list[Path]) -> dict[str, object]:
    """Return the schema that is wanted: `--schema` alone is of agents, or of files of the kind that is named."""
    known = {
        "agent": agent_schema,
        "policy": policy_schema,
        "plan": plan_schema,
        "call": call_schema,
        "budgets": budgets.budgets_schema,
        "providers": providers_schema,
        "triggers": _triggers_schema,
    }
    wanted = [str(word) for word in words] or ["agent"]
    if len(wanted) > 1 or wanted[0] not in known:
        raise CliError(f"--schema prints the schema of {', '.join(known)} files, not {' '.join(wanted)!r}")
    return dict(known[wanted[0]]())


def _judge(call: Invocation, path: Path, catalogs: list[Catalog]) -> int:
    loaded, judged = judge_call(path, catalogs)
    if call.out.as_json:
        call.out.json(call_json(loaded, judged))
    else:
        print_call(call.out, loaded, judged)
    return DONE


@dataclass(frozen=True, slots=True)
class _Sources:
    """Agents, policies and other files that are to be checked."""

    agents: list[Path]
    policies: list[Path]
    plans: list[Path]
    faults: list[Fault]
    files: dict[FileKind, Path]
    """Files in place of the settings'."""


def _sources(settings: Settings, files: list[Path] | None) -> _Sources:
    """Return the agents and the policies that the command line names, or all of the settings'."""
    found = _Sources([], [], [], [], {})
    if not files:
        folder = policy_folder(settings.agents, settings.policies)
        found.policies.extend(policy_paths(folder) if folder.is_dir() else [])
    for source in files or [settings.agents]:
        inside = agent_paths(source) if source.is_dir() else [source] * source.exists()
        if files and (kind := _find_kind(source)) is not None:
            if (other := found.files.setdefault(kind, source)) is not source:
                raise CliError(f"{other} and {source} are both {_name(kind)}; give one of them")
        elif files and inside and all(is_policy(read_document(path)) for path in inside):
            found.policies.extend(inside)
        elif files and inside and all(is_plan(read_document(path)) for path in inside):
            found.plans.append(source)
        elif files and source.is_file() and isinstance((document := read_document(source)).value, list):
            found.faults.append(document.fault((), _A_LIST))
        elif (fault := _nothing_there(source, named=bool(files))) is not None:
            found.faults.append(fault)
        else:
            found.agents.append(source)
    return found


async def _load(
    call: Invocation,
    settings: Settings,
    sources: _Sources,
    endpoints: Endpoints,
    offers: list[Offer] | None,
    *,
    is_all: bool,
) -> tuple[list[Catalog], list[Fault]]:
    """Return what can be served, with warnings of what will not go well, and all that cannot be served.

    With `is_all` the plans of the settings are served too. With `offers`, what MCP servers say is accepted first, and
    added there.
    """
    secrets = Secrets(settings.environment, settings.secrets)
    mcp = LazyMcpToolbox(secrets)
    waits = AnnouncedWaits(mcp, call.out.note)
    catalogs: list[Catalog] = []
    faults = list(sources.faults)
    try:
        if offers is not None:
            offers += await accept_words(call.out, sources.agents, waits, secrets)
        for source in sources.agents:
            try:
                plans = find_plans(settings) if is_all else None
                catalogs.append(await _catalog(replace(settings, agents=source), plans, waits, secrets, endpoints))
            except FileError as error:
                faults.extend(error.faults)
    except ValueError as error:
        raise CliError(str(error)) from error
    finally:
        await mcp.close()
    return catalogs, faults


async def _catalog(
    settings: Settings, plans: Path | None, mcp: AnnouncedWaits, secrets: Secrets, endpoints: Endpoints
) -> Catalog:
    catalog = await Catalog.load(
        settings.agents,
        mcp,
        secrets=secrets,
        policies=settings.policies,
        project=settings.project,
        endpoints=endpoints,
        plans=plans,
    )
    if faults := (*readiness.script_faults(catalog, settings), *people.faults_for(catalog.members, settings)):
        raise FileError(faults)
    more = [
        *readiness.missing_keys(catalog, settings),
        *await readiness.closed_hosts(catalog, settings),
        *people.warnings_for(catalog.members, settings),
    ]
    return replace(catalog, warnings=(*catalog.warnings, *more))


def _nothing_there(source: Path, *, named: bool) -> Fault | None:
    """Return why there are no agents at `source` at all; `named` is whether the command line names it."""
    if not source.exists():
        way = "" if named else "; name agent files as FILE, or set MANDATE_AGENTS to their folder"
        return Fault(str(source), 0, 0, "", "", f"does not exist{way}")
    if source.is_dir() and not agent_paths(source):
        way = "write one, name it or another folder as FILE, or set MANDATE_AGENTS"
        return Fault(str(source), 0, 0, "", "", f"has no agent files (*.yaml); {way}")
    return None
