"""Directory of people and their groups, as the file of people says at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mandate.activities.live_files import FileUnavailable, LiveFile
from mandate.workflows.contracts.people import PeopleSpec, PersonSpec, normalize_name


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
        self._file = LiveFile(path, PeopleSpec, subject="people", is_needed=needed) if path is not None else None
        self._spec: PeopleSpec | None = None
        self._people: People | None = None

    async def people(self) -> People | None:
        """Read the file as it is at this moment; return `None` when this worker has no such file.

        Raises:
            DirectoryUnavailable: the file cannot be read, has faults, or is gone.
        """
        if self._file is None:
            return None
        try:
            spec = await self._file.read()
        except FileUnavailable as error:
            raise DirectoryUnavailable(str(error)) from None
        if spec is None:
            return None
        if self._people is None or spec is not self._spec:
            self._spec, self._people = spec, People(spec)
        return self._people
