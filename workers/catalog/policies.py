"""Shared policy files: read, checked, and their rules merged with those of the agents that name them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from mandate.activities.documents import Document, Fault, Place, in_order, read_document
from mandate.workers.catalog.agents import AgentFile
from mandate.workers.catalog.fault_choices import settled
from mandate.workers.catalog.fault_texts import POLICY_FILE, Models, says, shown
from mandate.workflows.contracts.base import Spec
from mandate.workflows.contracts.faults import find_repeated
from mandate.workflows.contracts.policy import PolicySpec, Rule
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails, to_json

SUFFIX = ".yaml"

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and where it is written."""

    rule: Rule
    document: Document
    place: Place
    policy: str | None = None
    """Name of the shared file that it is from; `None` for an agent's own."""

    def fault(self, message: str, *more: str | int) -> Fault:
        return self.document.fault((*self.place, *more), message)

    def __str__(self) -> str:
        return f"{self.document.file}:{self.document.mark(self.place)[0]}"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One valid policy file, with the places of its values for faults that are found later."""

    path: Path
    spec: PolicySpec
    document: Document

    @property
    def rules(self) -> tuple[PlacedRule, ...]:
        return tuple(
            PlacedRule(rule, self.document, ("rules", index), self.spec.name)
            for index, rule in enumerate(self.spec.rules)
        )


@dataclass(slots=True)
class Policies:
    """The shared policies of a folder; each file is read when an agent first names it."""

    folder: Path
    _read: dict[str, tuple[PolicyFile | None, tuple[Fault, ...]]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names that agents may give."""
        return [path.stem for path in policy_paths(self.folder)] if self.folder.is_dir() else []

    def get(self, name: str) -> PolicyFile | None:
        """Return the policy of this name; `None` when its file is not valid or does not exist."""
        if name not in self._read:
            self._read[name] = read_policy_file(self.folder / f"{name}{SUFFIX}")
        return self._read[name][0]

    def faults(self) -> list[Fault]:
        """Return all faults of the files that were named."""
        return [fault for _, faults in self._read.values() for fault in faults]

    def merged(self, agent: AgentFile) -> tuple[tuple[PlacedRule, ...], list[Fault]]:
        """Return the rules of an agent, its own first, then those of the policies that it names, and their faults.

        Faults inside the files themselves are in `faults`.
        """
        spec = agent.spec
        rules = [PlacedRule(rule, agent.document, ("policy", index)) for index, rule in enumerate(spec.policy)]
        first = {placed.rule.id: placed for placed in rules}
        faults: list[Fault] = []
        known = self.names() if spec.policies else []
        for index, name in enumerate(spec.policies):
            if name not in known:
                faults.append(agent.document.fault(("policies", index), self._unknown(name, known), repr(name)))
                continue
            file = self.get(name)
            for placed in file.rules if file is not None else ():
                same = first.setdefault(placed.rule.id, placed)
                if same is not placed:
                    message = f"rule {placed.rule.id!r} at {placed} has the id of the rule at {same}; each has its own"
                    faults.append(agent.document.fault(("policies", index), message, repr(name)))
                rules.append(placed)
        return tuple(rules), faults

    def _unknown(self, name: str, known: Sequence[str]) -> str:
        if not self.folder.is_dir():
            return f"{name!r}: there is no folder {str(self.folder)!r}; MANDATE_POLICIES names that of policy files"
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        return f"{name!r} is no policy file of {str(self.folder)!r}{hint} there are {', '.join(known) or 'none'}"


def policy_folder(agents: Path, settings: Path | None = None) -> Path:
    """Return the folder of shared policies: that of the settings, else `policies` beside that of the agents."""
    if settings is not None:
        return settings
    folder = agents.parent if agents.suffix in {".yaml", ".yml"} else agents
    return (folder if folder.name not in {"", ".."} else folder.resolve()).parent / "policies"


def policy_paths(folder: Path) -> list[Path]:
    """Return the policy files of `folder`, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")


def read_policy_file(path: Path) -> tuple[PolicyFile | None, tuple[Fault, ...]]:
    """Read the policy in one file with its places, and all that is wrong with it."""
    document = read_document(path)
    spec, faults = read_spec(document, PolicySpec, POLICY_FILE, "a policy file")
    said = document.value if isinstance(document.value, dict) else {}
    name = said.get("name")
    if spec is None:
        faults += _repetitions(said, document)
    if isinstance(name, str) and name != path.stem:
        faults.append(
            document.fault(("name",), f"{name!r} is not the name of its file, {path.name!r} without {SUFFIX!r}", name)
        )
    file = None if spec is None or faults else PolicyFile(path, spec, document)
    return file, in_order(faults)


def is_policy(document: Document) -> bool:
    """Return whether a file is meant as a policy: it has rules or examples, and no models as agents have."""
    keys = set(document.value) if isinstance(document.value, dict) else set()
    return not keys.isdisjoint({"rules", "examples"}) and "models" not in keys


def read_spec(document: Document, model: type[S], models: Models, what: str) -> tuple[S | None, list[Fault]]:
    """Return the document as a spec, or all that is wrong with it; `what` is for documents that are no mapping."""
    faults = list(document.faults)
    if document.value is None and faults:
        return None, faults
    if not isinstance(document.value, dict):
        return None, [*faults, document.fault((), f"{what} is a mapping")]
    try:
        # Strict, and as JSON: a list is a tuple here, but the text 'no' is no boolean.
        return model.model_validate_json(to_json(document.value), strict=True), faults
    except ValidationError as error:
        details = settled(error.errors(include_url=False))
        return None, faults + [
            document.fault(detail["loc"], says(detail, models), shown(detail))
            for detail in details
            if not _follows(detail, details)
        ]
    except ValueError:
        return None, [*faults, document.fault((), "JSON cannot say it: it is nested too deep, or is not Unicode")]


def _follows(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Return whether a list is only told to be too short because its items are wrong."""
    loc = detail["loc"]
    deeper = any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details)
    return detail["type"] == "too_short" and deeper


def _repetitions(value: dict[str, JsonValue], document: Document) -> list[Fault]:
    """Return the ids given twice, in a file whose other faults kept its validators from looking."""
    rules = value.get("rules")
    ids = [rule.get("id") if isinstance(rule, dict) else None for rule in rules] if isinstance(rules, list) else []
    same = find_repeated([name if isinstance(name, str) else None for name in ids])
    return [
        document.fault(("rules", again, "id"), f"{name!r} is the id of rules[{first}] too; each rule has its own")
        for again, name, first in same
    ]


def policy_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of policy files, for editors."""
    schema = PolicySpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate policy file"}
