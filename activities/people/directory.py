"""Directory of people and their groups, as the file of people says at this moment."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from mandate.activities.documents import Fault, parse_document
from mandate.activities.files import FileError, parse_spec
from mandate.activities.text_files import UnreadableText, decode_text
from mandate.workflows.contracts.people import PeopleSpec, PersonSpec, normalize_name

log = structlog.stdlib.get_logger(__name__)


class DirectoryUnavailable(Exception):
    """The file of people cannot be used now; nothing can be said of who may decide."""


@dataclass(frozen=True, slots=True)
class Known:
    """A person of the file."""

    name: str
    """As the file writes it."""
    groups: frozenset[str]
    """In the form of `normalize_name`."""

    def is_in(self, groups: Sequence[str]) -> bool:
        return any(normalize_name(group) in self.groups for group in groups)


class People:
    """Contents of a file of people."""

    def __init__(self, spec: PeopleSpec) -> None:
        self.everybody = tuple(_make_known(person) for person in spec.people)
        names = [name for person in spec.people for name in (*person.groups,)]
        self.groups = tuple(sorted(dict.fromkeys((*spec.groups, *names)), key=normalize_name))
        """All groups, those that nobody is in included."""
        self.control = spec.control
        """Who may steer, pause, resume and stop runs; `None`: everybody."""
        self._by_name = {
            normalize_name(name): known
            for person, known in zip(spec.people, self.everybody, strict=True)
            for name in (person.name, *person.addresses)
        }

    def find(self, name: str) -> Known | None:
        """Return the person of this name or address, however it is spelt."""
        return self._by_name.get(normalize_name(name))

    def may_control(self, known: Known) -> bool:
        """Tell whether a person may steer, pause, resume and stop runs."""
        return self.control is None or known in self.members(self.control.users, self.control.groups)

    def members(self, users: Sequence[str], groups: Sequence[str]) -> tuple[Known, ...]:
        """Return everybody named or in one of the groups; all people when nothing is named."""
        if not users and not groups:
            return self.everybody
        named = {self.find(user) for user in users}
        return tuple(known for known in self.everybody if known in named or known.is_in(groups))


def _make_known(person: PersonSpec) -> Known:
    return Known(person.name, frozenset(map(normalize_name, person.groups)))


class Directory:
    """The file of people, read anew for each question, so that a person who was removed does not count any more."""

    def __init__(self, path: Path | None, *, needed: bool = False) -> None:
        """Take the path; `needed` says that there is a file, else one that is not there means that nobody is known."""
        self._path = path
        self._needed = needed
        self._content: bytes | None = None
        self._people: People | None = None
        self._lock = asyncio.Lock()

    async def people(self) -> People | None:
        """Read the file as it is at this moment; return `None` when this worker has no such file.

        Raises:
            DirectoryUnavailable: the file cannot be read, has faults, or is gone.
        """
        if self._path is None:
            return None
        async with self._lock:
            try:
                content = await asyncio.to_thread(self._path.read_bytes)
            except FileNotFoundError:
                if self._needed:
                    raise _unavailable("is gone", self._path) from None
                return None
            except OSError as error:
                raise _unavailable(f"cannot be read: {error.strerror}", self._path) from None
            # Its bytes and not its times are compared: two changes may come within the resolution of a clock.
            if self._people is None or content != self._content:
                self._people = None
                self._people = await asyncio.to_thread(_read, self._path, content)
                self._content = content
            self._needed = True
            return self._people


def _read(path: Path, content: bytes) -> People:
    try:
        document = parse_document(str(path), decode_text(content))
    except UnreadableText as error:
        raise _unavailable(f"cannot be read: line {error.line}, column {error.column}: {error.problem}", path) from None
    try:
        return People(parse_spec(document, PeopleSpec))
    except FileError as error:
        raise _broken(error.faults[0]) from None


def _broken(fault: Fault) -> DirectoryUnavailable:
    log.error("people_file_broken", fault=str(fault))
    return DirectoryUnavailable(f"the file of people has a fault{f' in line {fault.line}' if fault.line else ''}")


def _unavailable(problem: str, path: Path) -> DirectoryUnavailable:
    log.error("people_file_unavailable", path=str(path), problem=problem)
    return DirectoryUnavailable(f"the file of people {problem}")
