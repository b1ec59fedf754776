"""Plan files: read, and everything wrong with them and with the plans in them told at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order, read_document
from mandate.activities.files import FileError, parse_spec
from mandate.activities.toolbox.written_plans import find_schema_faults
from mandate.workers.catalog.agents import agent_paths
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.faults import did_you_mean
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules.cel.shapes import list_names
from mandate.workflows.rules.plans import faults as rules
from mandate.workflows.rules.plans import graphs, targets
from mandate.workflows.rules.plans.targets import Target


@dataclass(frozen=True, slots=True)
class PlanFile:
    """One valid plan file, with the places of its values for faults that are found later."""

    path: Path
    spec: PlanSpec
    document: Document


@dataclass(frozen=True, slots=True)
class PlanScan:
    """The valid plan files of a folder, and all that is wrong with the others."""

    files: tuple[PlanFile, ...] = ()
    faults: tuple[Fault, ...] = ()
    others: tuple[str, ...] = ()
    """Names of plans that are there too: their files have faults, or are not needed."""


ToolsOfPlans = Mapping[str, Mapping[str, Target]]
"""By plan: its tools, by name. Those of a plan that is left out are not known."""


def scan_plans(path: Path) -> PlanScan:
    """Read the plans of a folder, or the one in a file and those beside it that it names, also by way of others.

    Faults are collected, never raised. A folder that does not exist has no plans.
    """
    if not path.exists():
        return PlanScan()
    if path.is_dir():
        return _scan(agent_paths(path))
    beside = {name: other for name, other in _map_names(path.parent).items() if other != path}
    paths, scan = [path], _scan([path])
    while named := beside.keys() & {step.plan for file in scan.files for step in file.spec.steps}:
        paths += [beside.pop(name) for name in sorted(filter(None, named))]
        scan = _scan(paths)
    return replace(scan, others=(*scan.others, *sorted(beside)))


def find_path(folder: Path, name: str) -> Path:
    """Return the file of the plan of this name.

    Raises:
        ValueError: there is none; the sentence says which there are.
    """
    named = _map_names(folder) if folder.is_dir() else {}
    if (path := named.get(name)) is not None:
        return path
    hint = f"{did_you_mean(name, named)} there are {list_names(named) or 'none'}"
    raise ValueError(f"there is no plan {name!r} in {str(folder)!r}{hint}")


def _map_names(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the names that they give to their plans."""
    return {name: path for path in reversed(agent_paths(folder)) if (name := _find_name(read_document(path)))}


def _find_name(document: Document) -> str:
    """Return the name that a file gives to its plan, whatever its faults are."""
    name = document.value.get("name") if isinstance(document.value, dict) else None
    return name if isinstance(name, str) else ""


def _scan(paths: Iterable[Path]) -> PlanScan:
    files, faults, broken = list[PlanFile](), list[Fault](), list[str]()
    for path in paths:
        document = read_document(path)
        try:
            files.append(PlanFile(path, parse_spec(document, PlanSpec), document))
        except FileError as error:
            faults += error.faults
            broken.append(_find_name(document))
    return PlanScan(tuple(files), in_order([*faults, *_find_same_names(files)]), tuple(filter(None, broken)))


def find_faults(scan: PlanScan, agents: Mapping[str, AgentSpec], tools: ToolsOfPlans) -> Iterator[Fault]:
    """Yield all that is wrong with plans beside the faults of their files, each with its place.

    Args:
        scan: All plans, which may name each other.
        agents: All agents that they may name.
        tools: Their tools.
    """
    # What these take and give is not known, yet they are there.
    plans = dict.fromkeys(scan.others, Target())
    plans |= {file.spec.name: targets.of_plan(file.spec) for file in scan.files}
    known = {name: targets.of_agent(spec) for name, spec in agents.items()}
    for file in scan.files:
        own = tools.get(file.spec.name)
        yield from (file.document.fault(place, message) for place, message in find_schema_faults(file.spec))
        for place, message in rules.find_faults(file.spec, agents=known, tools=own, plans=plans):
            yield file.document.fault(place, message)
    yield from _find_cycles(scan.files)


def find_own_faults(file: PlanFile) -> Iterator[Fault]:
    """Yield what is wrong with one plan whatever agents and plans there are."""
    steps = file.spec.steps
    agents = {step.agent: Target() for step in steps if step.agent is not None}
    plans = {step.plan: Target() for step in steps if step.plan is not None}
    for place, message in rules.find_faults(file.spec, agents=agents, tools=None, plans=plans):
        yield file.document.fault(place, message)


def find_warnings(scan: PlanScan, agents: Mapping[str, AgentSpec], tools: ToolsOfPlans) -> Iterator[Fault]:
    """Yield what will probably not go well in plans without faults; the arguments are those of `find_faults`."""
    plans = {file.spec.name: targets.of_plan(file.spec) for file in scan.files}
    known = {name: targets.of_agent(spec) for name, spec in agents.items()}
    for file in scan.files:
        own = tools.get(file.spec.name)
        for place, message in rules.find_warnings(file.spec, agents=known, tools=own, plans=plans):
            yield file.document.fault(place, message)


def is_plan(document: Document) -> bool:
    """Return whether a file is meant as a plan: it has steps, and no models as agents have."""
    keys = set(document.value) if isinstance(document.value, dict) else set()
    return "steps" in keys and "models" not in keys


def plan_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of plan files, for editors."""
    schema = PlanSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate plan file"}


def _find_cycles(files: Iterable[PlanFile]) -> Iterator[Fault]:
    """Yield steps of plans by which these would run below themselves."""
    by_name = {file.spec.name: file for file in files}
    needs = {
        name: frozenset(step.plan for step in file.spec.steps if step.plan is not None) & by_name.keys()
        for name, file in by_name.items()
    }
    for cycle in graphs.find_cycles(needs):
        file = by_name[cycle[0]]
        index = next(place for place, step in enumerate(file.spec.steps) if step.plan == cycle[1 % len(cycle)])
        way = " -> ".join((*cycle, cycle[0]))
        yield file.document.fault(("steps", index, "plan"), f"a plan cannot run below itself: {way}")


def _find_same_names(files: Sequence[PlanFile]) -> Iterator[Fault]:
    first: dict[str, PlanFile] = {}
    for file in files:
        known = first.setdefault(file.spec.name, file)
        if known is not file:
            where = f"{known.path}:{known.document.mark(('name',))[0]}"
            name = file.spec.name
            yield file.document.fault(("name",), f"{name!r} is the name of the plan at {where} too", repr(name))
