"""Agent files: read, checked, and everything wrong with them told at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mandate.activities.documents import Document, Fault, in_order, read_document
from mandate.workers.catalog.agent_parts import Parts, is_told_apart, parts_of
from mandate.workers.catalog.fault_choices import settled
from mandate.workers.catalog.fault_texts import place_of, says, shown
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.tool_checks import is_name
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

SCRIPT_SUFFIXES = (".script.yaml", ".script.yml")
"""Files of the scripted provider, which may stand beside the agents that use them."""


class AgentFileError(Exception):
    """Agent files that cannot be used; one line a fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_order(tuple(faults))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class AgentFile:
    """One valid agent file, with the places of its values for faults that are found later."""

    path: Path
    spec: AgentSpec
    document: Document


@dataclass(frozen=True, slots=True)
class Scan:
    """Contents of a folder or a file of agents."""

    files: tuple[AgentFile, ...]
    others: tuple[Parts, ...]
    """Readable parts of files that are not valid."""
    faults: tuple[Fault, ...]
    """All that the files themselves tell; what their tools are is not known yet."""


def read_agent(path: Path) -> AgentSpec:
    """Read the agent in one file.

    Raises:
        AgentFileError: all faults of the file.
    """
    return read_agent_file(path).spec


def read_agent_file(path: Path) -> AgentFile:
    """Return one agent file with its places; raise as `read_agent`."""
    document = read_document(path)
    read, faults = _read(document)
    if not isinstance(read, AgentFile):
        raise AgentFileError(faults)
    return read


def read_agents(folder: Path) -> tuple[AgentFile, ...]:
    """Read the agents of a folder, by file name; scripts (`*.script.yaml`) and hidden files are no agents.

    Raises:
        AgentFileError: all faults of all files, a name that two files give included; or no such folder.
    """
    scan = scan_agents(folder)
    if scan.faults:
        raise AgentFileError(scan.faults)
    return scan.files


def scan_agents(path: Path) -> Scan:
    """Read the agents of a folder or in one file; faults are collected, never raised."""
    if not path.exists():
        why = "does not exist; MANDATE_AGENTS names the folder of agent files"
        return Scan((), (), (Fault(str(path), 0, 0, "", "", why),))
    documents = [read_document(found) for found in (agent_paths(path) if path.is_dir() else [path])]
    found: list[AgentFile | Parts | None] = []
    faults: list[Fault] = []
    for document in documents:
        read, its = _read(document)
        found.append(read)
        faults.extend(its)
    return Scan(
        tuple(read for read in found if isinstance(read, AgentFile)),
        tuple(read for read in found if isinstance(read, Parts)),
        in_order([*faults, *_same_names(documents)]),
    )


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


def _read(document: Document) -> tuple[AgentFile | Parts | None, list[Fault]]:
    """Read a document; when it is no agent, return all that is wrong with it and the parts that can be read."""
    faults = list(document.faults)
    if document.value is None and faults:
        return None, faults
    if not isinstance(document.value, dict):
        return None, [*faults, document.fault((), "an agent file is a mapping, beginning for example with 'name: ...'")]
    try:
        written = to_json(document.value)
        from_json(written)
    except ValueError:
        why = "JSON cannot say it: it is nested too deep, or has half of a surrogate pair ('\\ud800' to '\\udfff')"
        return None, [*faults, document.fault((), why)]
    details: list[ErrorDetails] = []
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        spec = AgentSpec.model_validate_json(written, strict=True)
    except ValidationError as error:
        details = settled(error.errors(include_url=False))
    else:
        if not faults:
            return AgentFile(Path(document.file), spec, document), []
    parts, between = parts_of(document, details)
    alone = [detail for detail in details if not is_told_apart(detail)]
    return parts, [*faults, *_faults(document, alone), *between]


def _faults(document: Document, details: Sequence[ErrorDetails]) -> list[Fault]:
    places = [place_of(detail["loc"]) for detail in details]
    faults = []
    for detail, place in zip(details, places, strict=True):
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if detail["type"] == "too_short" and deeper:
            continue
        faults.append(document.fault(place, says(detail), shown(detail)))
    return faults


def _same_names(documents: Sequence[Document]) -> list[Fault]:
    first: dict[str, str] = {}
    faults = []
    for document in documents:
        name = document.value.get("name") if isinstance(document.value, dict) else None
        if not isinstance(name, str) or not is_name(name):
            continue
        if name in first:
            faults.append(
                document.fault(("name",), f"{name!r} is the name of the agent at {first[name]} too", repr(name))
            )
        first.setdefault(name, f"{document.file}:{document.mark(('name',))[0]}")
    return faults
