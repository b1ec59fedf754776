"""Plans in words, as drawings and JSON for `mandate plan validate`: all that is wrong, or what each consists of."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.text import Text

from mandate.activities.documents import Fault
from mandate.activities.files import FileError
from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox
from mandate.workers.catalog import people, readiness
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.catalog.endpoints import try_endpoints
from mandate.workers.catalog.plans import find_path, scan_plans
from mandate.workers.catalog.tools import AnnouncedWaits
from mandate.workers.cli.errors import DONE, REFUSED, CliError
from mandate.workers.cli.output import Output, write_error
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings, find_plans
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plans import diagram, order
from mandate.workflows.rules.plans.targets import find_kind

_SUFFIXES = (".yaml", ".yml")


async def validate_plans(out: Output, source: str | None, *, draws: bool, is_mermaid: bool) -> int:
    """Check the plan of a file or a name, or all; return the exit code."""
    if draws and is_mermaid:
        raise CliError("--draw and --mermaid: give one of them")
    settings = Settings.from_environment()
    found, faults = await load_plans(out, settings, [_find_source(settings, source)])
    if out.as_json:
        told = [_to_json(loaded, draws=draws, is_mermaid=is_mermaid, width=out.result.width) for loaded in found.plans]
        whole = {"plans": told, "warnings": list(map(str, found.warnings)), "faults": list(map(str, faults))}
        out.json({"valid": not faults, **whole})
    else:
        print_plans(out, found.plans, found.warnings, draws=draws, is_mermaid=is_mermaid)
        sys.stdout.flush()
        for fault in faults:
            write_error(str(fault))
    return REFUSED if faults else DONE


def _find_source(settings: Settings, source: str | None) -> Path:
    """Return the file or the folder of the plans that are to be checked."""
    folder = find_plans(settings)
    if source is not None:
        path = Path(source)
        if path.exists():
            if path.is_dir():
                raise CliError(f"{source} is a folder; name a plan file or a plan, or set MANDATE_PLANS to it")
            return path
        if path.suffix in _SUFFIXES or len(path.parts) > 1:
            raise CliError(f"{source} does not exist; name a plan file, or a plan of {folder}")
        try:
            return find_path(folder, source)
        except ValueError as error:
            raise CliError(str(error)) from None
    scan = scan_plans(folder)
    if not scan.files and not scan.faults:
        what = "has no plan files (*.yaml)" if folder.is_dir() else "does not exist"
        raise CliError(f"{folder} {what}; write one, name a plan file as FILE, or set MANDATE_PLANS to their folder")
    return folder


@dataclass(frozen=True, slots=True)
class CheckedPlans:
    """Plans without faults, and what will probably not go well in them."""

    plans: tuple[Loaded, ...] = ()
    warnings: tuple[Fault, ...] = ()


async def load_plans(out: Output, settings: Settings, sources: Sequence[Path]) -> tuple[CheckedPlans, list[Fault]]:
    """Return the plans of files and folders, checked with the agents of the settings, and all that is wrong."""
    plans, warnings, faults = dict[str, Loaded](), list[Fault](), list[Fault]()
    for source in sources:
        catalog, wrong = await _load(out, settings, source)
        faults += wrong
        if catalog is None:
            continue
        shown = [loaded for loaded in catalog.plans.values() if source.is_dir() or loaded.path == source]
        plans |= {str(loaded.path): loaded for loaded in shown}
        warnings += (warning for warning in catalog.warnings if warning.file in plans)
    return CheckedPlans(tuple(plans.values()), tuple(dict.fromkeys(warnings))), list(dict.fromkeys(faults))


async def _load(out: Output, settings: Settings, path: Path) -> tuple[Catalog | None, list[Fault]]:
    """Return the agents and the plans, or all that is wrong with them."""
    secrets = Secrets(settings.environment, settings.secrets)
    endpoints, faults = try_endpoints(settings)
    mcp = LazyMcpToolbox(secrets)
    try:
        catalog = await Catalog.load(
            settings.agents,
            AnnouncedWaits(mcp, out.note),
            secrets=secrets,
            policies=settings.policies,
            project=settings.project,
            endpoints=endpoints,
            plans=path,
        )
    except FileError as error:
        return None, list(dict.fromkeys([*faults, *error.faults]))
    finally:
        await mcp.close()
    # What a worker would refuse: people whom nobody knows, scripts that are not there.
    faults += (*readiness.script_faults(catalog, settings), *people.faults_for(catalog.members, settings))
    warnings = people.warnings_for(catalog.members, settings) if not faults else ()
    return replace(catalog, warnings=(*catalog.warnings, *warnings)), list(faults)


def print_plans(
    out: Output,
    shown: Iterable[Loaded],
    warnings: Iterable[Fault] = (),
    *,
    draws: bool = False,
    is_mermaid: bool = False,
) -> None:
    """Print warnings, then each plan: one line, its drawing below it, or its flowchart and nothing else."""
    shown = tuple(shown)
    for warning in warnings:
        if is_mermaid:
            write_error(f"warning: {warning}")
        else:
            out.print(Text(f"warning: {warning}", style="yellow"))
    for number, loaded in enumerate(shown):
        spec = _get_plan(loaded)
        if is_mermaid:
            title = f"%% {spec.name}\n" if len(shown) > 1 else ""
            between = "\n" if number else ""
            out.print(f"{between}{title}{diagram.write_mermaid(spec)}")
            continue
        if draws and number:
            out.print("")
        out.print(Text.assemble((spec.name, "bold"), f"  {loaded.path}  {describe_counts(spec)}"))
        if draws:
            _, _, drawing = diagram.draw(spec, out.result.width).partition("\n\n")
            out.print("", drawing)


def describe_counts(plan: PlanSpec) -> str:
    """Return how many steps a plan has, of what, in how many levels: `4 steps (2 agents, 1 tool) in 3 levels`."""
    kinds = Counter(find_kind(step) for step in plan.steps)
    of = ", ".join(quantities.count_noun(kinds[kind], kind) for kind in ("agent", "tool", "plan") if kinds[kind])
    lists = sum(step.for_each is not None for step in plan.steps)
    many = f", {lists} for each of a list" if lists else ""
    levels = quantities.count_noun(len(order.list_levels(plan)), "level")
    return f"{quantities.count_noun(len(plan.steps), 'step')} ({of}{many}) in {levels}"


def list_plans_json(catalog: Catalog) -> list[dict[str, object]]:
    """Return the plans of a worker, for `-o json`."""
    return list(map(plan_json, catalog.plans.values()))


def plan_json(loaded: Loaded) -> dict[str, object]:
    """Return one plan, for `-o json`."""
    return _to_json(loaded, draws=False, is_mermaid=False, width=0)


def _to_json(loaded: Loaded, *, draws: bool, is_mermaid: bool, width: int) -> dict[str, object]:
    spec = _get_plan(loaded)
    names: dict[str, list[str]] = {"agent": [], "tool": [], "plan": []}
    for step in spec.steps:
        names[find_kind(step)].append(step.target)
    told: dict[str, object] = {
        "name": spec.name,
        "path": str(loaded.path),
        "version": loaded.digest[:12],
        "steps": [step.id for step in spec.steps],
        "levels": list(map(list, order.list_levels(spec))),
        **{f"{kind}s": sorted(set(of_kind)) for kind, of_kind in names.items()},
    }
    if draws:
        told["drawing"] = diagram.draw(spec, width)
    if is_mermaid:
        told["mermaid"] = diagram.write_mermaid(spec)
    return told


def _get_plan(loaded: Loaded) -> PlanSpec:
    assert loaded.pinned.plan is not None
    return loaded.pinned.plan
