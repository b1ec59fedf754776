"""Files that a worker reads when it starts, and what has changed of them since."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mandate.workers.catalog.policies import policy_folder
from mandate.workers.project import FILE
from mandate.workers.settings import Settings, find_plans

YAML = (".yaml", ".yml", ".json")
MOST_FILES = 5000
"""Of Python files that are watched: a folder with more is no project of tools."""

_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages"})

Stamps = Mapping[Path, tuple[int, int]]
"""Time of the last change in nanoseconds, and size, of each file."""


@dataclass(frozen=True, slots=True)
class WatchedFiles:
    """Agent files, scripts, plans, policies, providers, settings, and Python files where tools are imported from."""

    sources: tuple[Path, ...]
    """Files, and folders of agents, plans and policies."""
    modules: tuple[Path, ...]
    """Folders of Python files."""
    own: Path
    """The folder where Mandate keeps its own files."""

    @classmethod
    def of(cls, settings: Settings) -> "WatchedFiles":
        """Return what a worker with these settings reads."""
        agents, project = settings.agents, settings.project or Path()
        folder = agents if agents.is_dir() else agents.parent
        channels = settings.channels or settings.default_channels
        endpoints = settings.endpoints or settings.default_endpoints
        folders = (folder, find_plans(settings), policy_folder(agents, settings.policies))
        sources = (agents, *folders, channels, endpoints, project / FILE)
        modules = (Path(), project, folder.absolute().parent)
        return cls(_distinct(sources), _outermost(modules), settings.folder.absolute())

    def read(self) -> Stamps:
        """Return how all files are now; one that goes away meanwhile is not there."""
        return {path: stamp for path in self._paths() if (stamp := _stamp(path)) is not None}

    def _paths(self) -> Iterator[Path]:
        for source in self.sources:
            yield from self._walk(source, YAML) if source.is_dir() else (source,)
        for folder in self.modules:
            for number, path in enumerate(self._walk(folder, (".py",))):
                if number >= MOST_FILES:
                    break
                yield path

    def _walk(self, folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
        for parent, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if self._is_entered(Path(parent, name)))
            yield from (Path(parent, name) for name in sorted(names) if name.endswith(suffixes) and name[0] != ".")

    def _is_entered(self, folder: Path) -> bool:
        if folder.name[0] == "." or folder.name in _PASSED_OVER or folder.absolute() == self.own:
            return False
        # An environment of Python.
        return not (folder / "pyvenv.cfg").exists()


def list_changes(before: Stamps, after: Stamps) -> list[Path]:
    """Return the files that were changed, added or taken away, by name."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def describe(changed: list[Path]) -> str:
    """Name some changed files in a few words."""
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(_relative(path) for path in changed[:3]) + more


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _distinct(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(path.absolute() for path in paths))


def _outermost(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Return each folder once, without those inside others."""
    distinct = _distinct(folders)
    return tuple(one for one in distinct if not any(other in one.parents for other in distinct))
