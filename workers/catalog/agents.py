"""Agent files: read, checked, and everything wrong with them told at once."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order, read_document
from mandate.activities.files import FileError, parse_spec, read_spec
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.faults import Place

SCRIPT_SUFFIXES = (".script.yaml", ".script.yml")
"""Files of the scripted provider, which may stand beside the agents that use them."""


FindUnknown = Callable[[str], str | None]
"""The reason why a model cannot be asked, since nobody knows its provider; `None` when it can."""

_MODEL = re.compile(r"[a-z][a-z0-9_-]{0,63}:\S+")


@dataclass(frozen=True, slots=True)
class AgentFile:
    """One valid agent file, with the places of its values for faults that are found later."""

    path: Path
    spec: AgentSpec
    document: Document


@dataclass(frozen=True, slots=True)
class Scan:
    """The valid agent files of a folder, and all that is wrong with the others."""

    files: tuple[AgentFile, ...]
    faults: tuple[Fault, ...]


def read_agent(path: Path) -> AgentSpec:
    """Read the agent in one file; raises as `files.read_spec`."""
    return read_agent_file(path).spec


def read_agent_file(path: Path) -> AgentFile:
    """Read one agent file with its places; raises as `files.read_spec`."""
    return AgentFile(path, *read_spec(path, AgentSpec))


def read_agents(folder: Path, find_unknown: FindUnknown | None = None) -> tuple[AgentFile, ...]:
    """Read the agents of a folder, by file name; scripts (`*.script.yaml`) and hidden files are not agents.

    Raises:
        FileError: all faults of all files, a name that two files give included; or no such folder.
    """
    scan = scan_agents(folder, find_unknown)
    if scan.faults:
        raise FileError(scan.faults)
    return scan.files


def scan_agents(path: Path, find_unknown: FindUnknown | None = None) -> Scan:
    """Read the agents of a folder or in one file; faults are collected, never raised.

    `find_unknown` judges the providers of models, also in files that have other faults.
    """
    if not path.exists():
        why = "does not exist; MANDATE_AGENTS names the folder of agent files"
        return Scan((), (Fault(str(path), 0, 0, "", "", why),))
    files: list[AgentFile] = []
    faults: list[Fault] = []
    for found in agent_paths(path) if path.is_dir() else [path]:
        document = read_document(found)
        faults += find_unknown_providers(document, document.value, find_unknown) if find_unknown is not None else ()
        try:
            files.append(AgentFile(found, parse_spec(document, AgentSpec), document))
        except FileError as error:
            faults += error.faults
    return Scan(tuple(files), in_order([*faults, *_same_names(files)]))


def find_unknown_providers(document: Document, value: JsonValue, find_unknown: FindUnknown) -> Iterator[Fault]:
    """Yield the models in what a file says whose providers nobody knows; texts that name no model are passed over."""
    for place, model in _list_models(value):
        if isinstance(model, str) and _MODEL.fullmatch(model) and (why := find_unknown(model)) is not None:
            yield document.fault(place, why, repr(model))


def _list_models(agent: JsonValue) -> Iterator[tuple[Place, JsonValue]]:
    """Yield what stands where an agent file names models."""
    yield from _list_names(_get(agent, "models"), ("models",))
    yield from _list_names(_get(agent, "models_allowed"), ("models_allowed",))
    yield from _list_names(_get(_get(_get(agent, "context"), "summary"), "models"), ("context", "summary", "models"))
    checks = _get(agent, "checks")
    for index, check in enumerate(checks if isinstance(checks, list) else ()):
        yield ("checks", index, "model"), _get(check, "model")
        yield from _list_names(_get(check, "models"), ("checks", index, "models"))


def _list_names(route: JsonValue, place: Place) -> Iterator[tuple[Place, JsonValue]]:
    for index, item in enumerate(route if isinstance(route, list) else ()):
        if isinstance(item, dict):
            yield (*place, index, "model"), item.get("model")
        elif isinstance(item, list):
            yield from _list_names(item, (*place, index))
        else:
            yield (*place, index), item


def _get(value: JsonValue, key: str) -> JsonValue:
    return value.get(key) if isinstance(value, dict) else None


def agent_paths(folder: Path) -> list[Path]:
    """Return the agent files of `folder`, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in {".yaml", ".yml"} and not path.name.endswith(SCRIPT_SUFFIXES) and path.name[0] != "."
    )


def agent_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of agent files, for editors."""
    schema = AgentSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate agent file"}


def _same_names(files: Sequence[AgentFile]) -> list[Fault]:
    first: dict[str, AgentFile] = {}
    faults = []
    for file in files:
        name = file.spec.name
        known = first.setdefault(name, file)
        if known is not file:
            where = f"{known.path}:{known.document.mark(('name',))[0]}"
            faults.append(
                file.document.fault(("name",), f"{name!r} is the name of the agent at {where} too", repr(name))
            )
    return faults
