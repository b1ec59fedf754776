"""Agent files: read, checked, and everything wrong with them told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.workflows.contracts.agent import AgentSpec

SCRIPT_SUFFIXES = (".script.yaml", ".script.yml")
"""Files of the scripted provider, which may stand beside the agents that use them."""


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


def read_agents(folder: Path) -> tuple[AgentFile, ...]:
    """Read the agents of a folder, by file name; scripts (`*.script.yaml`) and hidden files are not agents.

    Raises:
        FileError: all faults of all files, a name that two files give included; or no such folder.
    """
    scan = scan_agents(folder)
    if scan.faults:
        raise FileError(scan.faults)
    return scan.files


def scan_agents(path: Path) -> Scan:
    """Read the agents of a folder or in one file; faults are collected, never raised."""
    if not path.exists():
        why = "does not exist; MANDATE_AGENTS names the folder of agent files"
        return Scan((), (Fault(str(path), 0, 0, "", "", why),))
    files: list[AgentFile] = []
    faults: list[Fault] = []
    for found in agent_paths(path) if path.is_dir() else [path]:
        try:
            files.append(read_agent_file(found))
        except FileError as error:
            faults += error.faults
    return Scan(tuple(files), in_order([*faults, *_same_names(files)]))


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
