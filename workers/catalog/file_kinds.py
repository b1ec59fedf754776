"""Kinds of files that are no agents and no policies, found by what they say, else by their name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue

from mandate.activities.documents import Document

FileKind = Literal["providers", "budgets", "people", "channels"]
"""Each is a setting of its own, and the stem of the name that its file has by default."""

_LISTS: Mapping[str, FileKind] = {"budgets": "budgets", "people": "people", "channels": "channels"}
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
    for key, kind in _LISTS.items():
        if isinstance(said.get(key), list):
            return kind
    return next((kind for kind in get_args(FileKind) if path.name.partition(".")[0] == kind), None)
