"""Shared policy files: read, checked, and their rules merged with those of the agents that name them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault
from mandate.activities.files import FileError, read_spec
from mandate.workers.catalog.agents import AgentFile
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.policy import PolicySpec, Rule

SUFFIX = ".yaml"


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
    _read: dict[str, PolicyFile | FileError] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names that agents may give."""
        return [path.stem for path in policy_paths(self.folder)] if self.folder.is_dir() else []

    def get(self, name: str) -> PolicyFile | None:
        """Return the policy of this name; `None` when its file is not valid or does not exist."""
        if name not in self._read:
            try:
                self._read[name] = read_policy_file(self.folder / f"{name}{SUFFIX}")
            except FileError as error:
                self._read[name] = error
        read = self._read[name]
        return read if isinstance(read, PolicyFile) else None

    def faults(self) -> list[Fault]:
        """Return all faults of the files that were named."""
        return [fault for error in self._read.values() if isinstance(error, FileError) for fault in error.faults]

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
        hint = did_you_mean(name, known)
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


def read_policy_file(path: Path) -> PolicyFile:
    """Read the policy in one file with its places.

    Raises:
        FileError: all that is wrong with it, a name that is not that of its file included.
    """
    spec, document = read_spec(path, PolicySpec)
    if spec.name != path.stem:
        message = f"{spec.name!r} is not the name of its file, {path.name!r} without {SUFFIX!r}"
        raise FileError([document.fault(("name",), message, spec.name)])
    return PolicyFile(path, spec, document)


def is_policy(document: Document) -> bool:
    """Return whether a file is meant as a policy: it has rules or examples, and no models as agents have."""
    keys = set(document.value) if isinstance(document.value, dict) else set()
    return not keys.isdisjoint({"rules", "examples"}) and "models" not in keys


def policy_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of policy files, for editors."""
    schema = PolicySpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate policy file"}
