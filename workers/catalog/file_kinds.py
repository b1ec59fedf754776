"""Kinds of files that are no agents and no policies, found by what they say, else by their name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue

from mandate.activities.documents import Document
from mandate.workers.project import FILE as PROJECT_FILE

FileKind = Literal["providers", "budgets", "people", "channels", "triggers", "settings"]
"""All but `settings`, which is `mandate.yaml`, are a setting of their own and the stem of their file's usual name."""

_STEMS: Mapping[str, FileKind] = {kind: kind for kind in get_args(FileKind) if kind != "settings"}

_LISTS: Mapping[str, FileKind] = {
    "budgets": "budgets",
    "people": "people",
    "channels": "channels",
    "triggers": "triggers",
}
"""Key of the list in which a file says most."""

_OF_AGENTS = frozenset({"name", "instructions", "models"})
"""Keys of agent files that no file of these kinds has."""


def find_kind(path: Path, document: Document) -> FileKind | None:
    """Return the kind of a file, whatever its faults are; `None` for an agent or a policy."""
    said: Mapping[str, JsonValue] = document.value if isinstance(document.value, dict) else {}
    if "endpoints" in said:
        return "providers"
    if not _OF_AGENTS.isdisjoint(said):
        return None
    if path.name == PROJECT_FILE:
        return "settings"
    for key, kind in _LISTS.items():
        if isinstance(said.get(key), list):
            return kind
    return _STEMS.get(path.name.partition(".")[0])
