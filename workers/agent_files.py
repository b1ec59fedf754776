"""Agent files: read, checked, and everything wrong with them told at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails, to_json

from activities.documents import Document, Fault, in_order, read_document
from workers.fault_texts import place_of, says, shown
from workflows.contracts.agent import AgentSpec, same_rule_ids
from workflows.contracts.faults import Located
from workflows.contracts.tool_entry import entry_name, same_tool_names

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


def read_agent(path: Path) -> AgentSpec:
    """The agent in one file.

    Raises:
        AgentFileError: all faults of the file.
    """
    return read_agent_file(path).spec


def read_agent_file(path: Path) -> AgentFile:
    """One agent file with its places; raises as `read_agent`."""
    document = read_document(path)
    spec, faults = _spec(document)
    if spec is None or faults:
        raise AgentFileError(faults)
    return AgentFile(path, spec, document)


def read_agents(folder: Path) -> tuple[AgentFile, ...]:
    """The agents of a folder, by file name; scripts (`*.script.yaml`) and hidden files are not agents.

    Raises:
        AgentFileError: all faults of all files, a name that two files give included; or no such folder.
    """
    files, faults = scan_agents(folder)
    if faults:
        raise AgentFileError(faults)
    return files


def scan_agents(path: Path) -> tuple[tuple[AgentFile, ...], tuple[Fault, ...]]:
    """The valid agents of a folder or in one file, and all that is wrong with the others."""
    if not path.exists():
        return (), (Fault(str(path), 0, 0, "", "", "does not exist; MANDATE_AGENTS names the folder of agent files"),)
    documents = [read_document(found) for found in (agent_paths(path) if path.is_dir() else [path])]
    files: list[AgentFile] = []
    faults: list[Fault] = []
    for document in documents:
        spec, found = _spec(document)
        faults.extend(found)
        if spec is not None:
            files.append(AgentFile(Path(document.file), spec, document))
    return tuple(files), in_order([*faults, *_same_names(documents)])


def agent_paths(folder: Path) -> list[Path]:
    """The agent files of `folder`, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in {".yaml", ".yml"} and not path.name.endswith(SCRIPT_SUFFIXES) and path.name[0] != "."
    )


def agent_schema() -> dict[str, JsonValue]:
    """JSON Schema of agent files, for editors."""
    schema = AgentSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate agent file"}


def _spec(document: Document) -> tuple[AgentSpec | None, list[Fault]]:
    """What a document says, or all that is wrong with it."""
    faults = list(document.faults)
    if document.value is None and faults:
        return None, faults
    if not isinstance(document.value, dict):
        return None, [*faults, document.fault((), "an agent file is a mapping, beginning for example with 'name: ...'")]
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        spec = AgentSpec.model_validate_json(to_json(document.value), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [*faults, *_faults(document, details), *_repetitions(document)]
    return (None if faults else spec), faults


def _faults(document: Document, details: Sequence[ErrorDetails]) -> list[Fault]:
    places = [place_of(detail["loc"]) for detail in details]
    faults = []
    for detail, place in zip(details, places, strict=True):
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if detail["type"] == "too_short" and deeper:
            continue
        faults.append(document.fault(place, says(detail), shown(detail)))
    return faults


def _repetitions(document: Document) -> list[Fault]:
    """Names given twice, in a file whose other faults kept its validators from looking."""
    tools, rules = _entries(document, "tools"), _entries(document, "policy")
    ids = [_text(rule.get("id")) if isinstance(rule, dict) else None for rule in rules]
    found: list[tuple[str, Located]] = [
        ("tools", fault) for fault in same_tool_names([entry_name(tool) for tool in tools])
    ]
    found += [("policy", fault) for fault in same_rule_ids(ids)]
    return [document.fault((key, *place), message) for key, (place, message) in found]


def _same_names(documents: Sequence[Document]) -> list[Fault]:
    first: dict[str, str] = {}
    faults = []
    for document in documents:
        name = _text(document.value.get("name")) if isinstance(document.value, dict) else None
        if name is None:
            continue
        if name in first:
            faults.append(
                document.fault(("name",), f"{name!r} is the name of the agent at {first[name]} too", repr(name))
            )
        first.setdefault(name, f"{document.file}:{document.mark(('name',))[0]}")
    return faults


def _entries(document: Document, key: str) -> list[JsonValue]:
    value = document.value.get(key) if isinstance(document.value, dict) else None
    return value if isinstance(value, list) else []


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
