"""Plan files: read, and everything wrong with them and with the plans in them told at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order, read_document
from mandate.activities.files import FileError, parse_spec
from mandate.workers.catalog.agents import agent_paths
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules import graphs, plan_targets
from mandate.workflows.rules import plans as rules
from mandate.workflows.rules.plan_targets import Target


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


ToolsOfPlans = Mapping[str, Mapping[str, Target]]
"""By plan: its tools, by name. Those of a plan that is left out are not known."""


def scan_plans(path: Path) -> PlanScan:
    """Read the plans of a folder or in one file; faults are collected, never raised. No folder has no plans."""
    if not path.exists():
        return PlanScan()
    files, faults = list[PlanFile](), list[Fault]()
    for found in agent_paths(path) if path.is_dir() else [path]:
        document = read_document(found)
        try:
            files.append(PlanFile(found, parse_spec(document, PlanSpec), document))
        except FileError as error:
            faults += error.faults
    return PlanScan(tuple(files), in_order([*faults, *_find_same_names(files)]))


def find_faults(files: Sequence[PlanFile], agents: Mapping[str, AgentSpec], tools: ToolsOfPlans) -> Iterator[Fault]:
    """Yield all that is wrong with plans, each with its place.

    Args:
        files: All plans, which may name each other.
        agents: All agents that they may name.
        tools: Their tools.
    """
    plans = {file.spec.name: plan_targets.of_plan(file.spec) for file in files}
    known = {name: plan_targets.of_agent(spec) for name, spec in agents.items()}
    for file in files:
        own = tools.get(file.spec.name)
        for place, message in rules.find_faults(file.spec, agents=known, tools=own, plans=plans):
            yield file.document.fault(place, message)
    yield from _find_cycles(files)


def find_warnings(files: Sequence[PlanFile], agents: Mapping[str, AgentSpec], tools: ToolsOfPlans) -> Iterator[Fault]:
    """Yield what will probably not go well in plans without faults; the arguments are those of `find_faults`."""
    plans = {file.spec.name: plan_targets.of_plan(file.spec) for file in files}
    known = {name: plan_targets.of_agent(spec) for name, spec in agents.items()}
    for file in files:
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
