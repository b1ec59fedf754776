"""The file of people, and what is wrong with it for the agents that are served."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.activities.people.directory import People
from mandate.activities.people.signatures import KeysUnavailable, read_keys
from mandate.workers.catalog.catalog import Loaded
from mandate.workers.settings import Settings
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.people import PeopleSpec, normalize_name
from mandate.workflows.contracts.policy import Approvers, Asking, Escalation, OnExpiry

SHARED: Place = ("policies",)
"""Place where an agent file names the shared policy files."""


def people_path(settings: Settings) -> Path | None:
    """Return the file of people, or `None` when there is none and none was named."""
    return settings.people or (settings.default_people if settings.default_people.exists() else None)


def read_people(settings: Settings) -> People | None:
    """Read the file of people; return `None` without one.

    Raises:
        FileError: all faults of the file.
    """
    found = _read_people(settings)
    return found[0] if found is not None else None


def _read_people(settings: Settings) -> tuple[People, Document] | None:
    path = people_path(settings)
    if path is None:
        return None
    if not path.is_file():
        raise FileError(
            [Fault(str(path), 0, 0, "", "", "is not a file; MANDATE_PEOPLE or mandate.yaml names the file of people")]
        )
    spec, document = read_spec(path, PeopleSpec)
    return People(spec), document


def faults_for(agents: Iterable[Loaded], settings: Settings) -> tuple[Fault, ...]:
    """Return why these agents cannot be decided for: unknown people or groups, a broken file, unusable keys."""
    faults = list(key_faults(settings))
    try:
        found = _read_people(settings)
    except FileError as error:
        return in_order([*faults, *error.faults])
    faults += _control_faults(*found) if found is not None else ()
    people = found[0] if found is not None else None
    return in_order([*faults, *chain.from_iterable(find_unknown(loaded, people) for loaded in agents)])


def find_unknown(loaded: Loaded, people: People | None) -> Iterator[Fault]:
    """Yield the people and groups who may decide for an agent or plan, and of whom nothing is known."""
    for naming in _namings(loaded):
        if (why := _unknown(naming, people)) is not None:
            yield naming.fault(why)


def warnings_for(agents: Iterable[Loaded], settings: Settings) -> tuple[Fault, ...]:
    """Warn of what is allowed and yet means that some requests can never be approved; needs a file without faults."""
    people = read_people(settings)
    warnings: list[Fault] = []
    for loaded in agents:
        if (why := _unsure_requester(loaded, people)) is not None:
            warnings.append(loaded.document.fault(("requester",), why))
        for asking in _askings(loaded):
            if asking.asking.signature is not None and settings.jwks is None:
                begins = ", and no run can begin" if loaded.pinned.needs_signed_start else ""
                why = f"wants signed decisions, and MANDATE_JWKS names no keys: none will count{begins}"
                warnings.append(asking.fault(("signature",), why))
            if people is not None and (few := _too_few(asking, people)) is not None:
                warnings.append(asking.fault(("approvers",), few))
    return in_order(warnings)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A rule that asks people, or an agent's `people`."""

    says: str
    """`rule 'large' `; empty for an agent's `people`."""
    asking: Asking
    usual: Asking
    """The agent's `people`, for what it leaves out."""
    document: Document
    place: Place
    """Its place; `SHARED` for the rules of shared policy files."""

    def fault(self, place: Place, message: str, value: str = "") -> Fault:
        whole = (*self.place, *place) if self.place != SHARED else SHARED
        return self.document.fault(whole, f"{self.says}{message}", value)


@dataclass(frozen=True, slots=True)
class _Naming:
    """One user or group that may decide."""

    asked: _Asked
    place: Place
    kind: str
    """`user` or `group`."""
    name: str

    def fault(self, message: str) -> Fault:
        return self.asked.fault(self.place, message, repr(self.name))


def _askings(loaded: Loaded) -> Iterator[_Asked]:
    usual, document = loaded.pinned.people, loaded.document
    yield _Asked("", usual, usual, document, ("people",))
    for placed in loaded.rules:
        rule = placed.rule
        if rule.verdict == "ask":
            place = placed.place if placed.policy is None else SHARED
            yield _Asked(f"rule {rule.id!r} ", rule, usual, document, place)


def _unsure_requester(loaded: Loaded, people: People | None) -> str | None:
    """Return why who asks for a run may approve it all the same, although the agent counts people; or `None`."""
    pinned = loaded.pinned
    if pinned.requester == "anyone" and pinned.needs_signatures:
        return "is 'anyone', and decisions are signed: who asks may sign for what they asked for themselves"
    if pinned.requester == "required" and people is None:
        return "is 'required', and there is no file of people (MANDATE_PEOPLE): any name will do"
    return None


def _namings(loaded: Loaded) -> Iterator[_Naming]:
    for asked in _askings(loaded):
        asking = asked.asking
        named: list[tuple[Place, Approvers | Escalation]] = []
        if asking.approvers is not None:
            named.append((("approvers",), asking.approvers))
        if isinstance(asking.on_expiry, OnExpiry):
            named.append((("on_expiry", "escalate"), asking.on_expiry.escalate))
        for place, who in named:
            for kind, names in (("user", who.users), ("group", who.groups)):
                for position, name in enumerate(names):
                    yield _Naming(asked, (*place, f"{kind}s", position), kind, name)


def _control_faults(people: People, document: Document) -> Iterator[Fault]:
    """Yield who may control runs and is not there, by whom nobody would be let through."""
    control = people.control
    for kind, names in (("user", control.users), ("group", control.groups)) if control is not None else ():
        known = people.groups if kind == "group" else [person.name for person in people.everybody]
        for position, name in enumerate(names):
            if not _is_known(kind, name, people):
                which = "which" if kind == "group" else "whom"
                why = f"names the {kind} {name!r}, {which} this file does not have{_suggestion(name, known)}"
                yield document.fault(("control", f"{kind}s", position), why, repr(name))


def _is_known(kind: str, name: str, people: People) -> bool:
    if kind == "user":
        return people.find(name) is not None
    return normalize_name(name) in map(normalize_name, people.groups)


def _unknown(naming: _Naming, people: People | None) -> str | None:
    """Return why nobody is known by this name, or `None`."""
    names = f"names the {naming.kind} {naming.name!r}"
    if people is None:
        if naming.kind == "user":
            return None
        return f"{names}, and there is no file of people to say who is in it; MANDATE_PEOPLE names that file"
    known = people.groups if naming.kind == "group" else [person.name for person in people.everybody]
    if _is_known(naming.kind, naming.name, people):
        return None
    which = "which" if naming.kind == "group" else "whom"
    return f"{names}, {which} the file of people does not have{_suggestion(naming.name, known)}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    listed = f"{', '.join(known[:20]) or 'no groups'}{' and more' if len(known) > 20 else ''}"
    return f"{did_you_mean(name, known)} it has {listed}"


def _too_few(asked: _Asked, people: People) -> str | None:
    """Return why the approvals that are wanted can never come together, or `None`."""
    asking, usual = asked.asking, asked.usual
    who = asking.approvers or usual.approvers
    quorum = asking.quorum or usual.quorum or 1
    members = people.members(who.users if who else (), who.groups if who else ())
    if len(members) >= quorum:
        return None
    wants = f"wants {quorum} people to approve" if quorum > 1 else "wants somebody to approve"
    there = f"only {len(members)}" if members else "nobody"
    return f"{wants}, and {there} in the file of people may"


def key_faults(settings: Settings) -> Iterator[Fault]:
    """Yield why the public keys for signatures cannot be used."""
    if settings.jwks is None:
        return
    if settings.token_issuer is None:
        message = "MANDATE_JWKS is set and MANDATE_TOKEN_ISSUER is not: who must signed decisions be from?"
        yield Fault(str(settings.jwks), 0, 0, "", "", message)
    try:
        read_keys(settings.jwks)
    except KeysUnavailable as error:
        yield Fault(str(settings.jwks), 0, 0, "", "", f"MANDATE_JWKS: {error}")
