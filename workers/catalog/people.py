"""The file of people and the keys that sign decisions, as a worker needs them at its start."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mandate.activities.decision import PeopleActivities
from mandate.activities.documents import Document, Fault, Place, in_order, read_document
from mandate.activities.people.directory import Directory, People, parse_people
from mandate.activities.people.requesters import Requesters
from mandate.activities.people.signatures import KeysUnavailable, Signatures, read_keys
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.catalog.catalog import Loaded
from mandate.workers.catalog.fault_texts import says, shown
from mandate.workers.settings import Settings
from mandate.workflows.contracts.people import GroupSpec, PeopleSpec, PersonSpec, normalize_name
from mandate.workflows.contracts.policy import Approvers, Asking, Escalation, OnExpiry
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

DEFAULT_FILE = Path("deploy/people.yaml")

SHARED: Place = ("policies",)
"""Place where an agent file names the shared policy files."""

_NAMES = {
    "addresses": "is not a name of 1 to 200 characters without spaces around it",
    "name": "is not a name of 1 to 200 characters without spaces around it",
    "groups": "is not a letter or digit followed by up to 63 letters, digits, '_', '.', '@', '/' and '-'",
}


class PeopleFileError(Exception):
    """A file of people that cannot be used; one line a fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = in_order(tuple(faults))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Identities:
    """The file of people and the keys by which a worker knows who asks and who decides."""

    directory: Directory
    signatures: Signatures | None
    """`None` for a worker that has no keys."""

    @classmethod
    def of(cls, settings: Settings) -> "Identities":
        path = people_path(settings)
        signatures = None
        if settings.jwks is not None and settings.token_issuer is not None:
            signatures = Signatures(settings.jwks, issuer=settings.token_issuer, audience=settings.token_audience)
        return cls(Directory(path or DEFAULT_FILE, needed=path is not None), signatures)

    def requesters(self, blobs: Blobs) -> Requesters:
        """Return what starts are checked by."""
        return Requesters(self.directory, self.signatures, blobs)

    def people_activities(self, agents: PinnedAgents, transcript: TranscriptLog) -> PeopleActivities:
        """Return the activity that checks decisions."""
        return PeopleActivities(self.directory, self.signatures, agents, transcript)


def people_path(settings: Settings) -> Path | None:
    """Return the file of people, or `None` when there is none and none was named."""
    return settings.people or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def read_people(settings: Settings) -> People | None:
    """Read the file of people; return `None` without one.

    Raises:
        PeopleFileError: all faults of the file.
    """
    path = people_path(settings)
    if path is None:
        return None
    if not path.is_file():
        raise PeopleFileError(
            [Fault(str(path), 0, 0, "", "", "is not a file; MANDATE_PEOPLE names the file of people")]
        )
    spec, faults = _spec(read_document(path))
    if spec is None or faults:
        raise PeopleFileError(faults)
    return People(spec)


def faults_for(agents: Iterable[Loaded], settings: Settings) -> tuple[Fault, ...]:
    """Return why these agents cannot be decided for: unknown people or groups, a broken file, unusable keys."""
    faults = list(_key_faults(settings))
    try:
        people = read_people(settings)
    except PeopleFileError as error:
        return in_order([*faults, *error.faults])
    for loaded in agents:
        faults += [naming.fault(why) for naming in _namings(loaded) if (why := _unknown(naming, people)) is not None]
    return in_order(faults)


def warnings_for(agents: Iterable[Loaded], settings: Settings) -> tuple[Fault, ...]:
    """Warn of what is allowed and yet means that some requests can never be approved; needs a file without faults."""
    people = read_people(settings)
    warnings: list[Fault] = []
    for loaded in agents:
        if (why := _unsure_requester(loaded, people)) is not None:
            warnings.append(_document(loaded).fault(("requester",), why))
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
    pinned, document = loaded.pinned, _document(loaded)
    usual = pinned.people
    yield _Asked("", usual, usual, document, ("people",))
    for rule in pinned.policy:
        if rule.verdict == "ask":
            yield _Asked(f"rule {rule.id!r} ", rule, usual, document, _rule_place(document, rule.id))


def _document(loaded: Loaded) -> Document:
    return read_document(loaded.path) if loaded.path is not None else _unwritten(f"agent {loaded.pinned.name!r}")


def _unsure_requester(loaded: Loaded, people: People | None) -> str | None:
    """Return why who asks for a run may approve it all the same, although the agent counts people; or `None`."""
    pinned = loaded.pinned
    if pinned.requester == "anyone" and pinned.needs_signatures:
        return "is 'anyone', and decisions are signed: who asks may sign for what they asked for themselves"
    if pinned.requester == "required" and people is None:
        return "is 'required', and there is no file of people (MANDATE_PEOPLE): any name will do"
    return None


def _rule_place(document: Document, rule: str) -> Place:
    listed = document.value.get("policy") if isinstance(document.value, dict) else None
    for index, entry in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(entry, dict) and entry.get("id") == rule:
            return ("policy", index)
    return SHARED


def _unwritten(name: str) -> Document:
    return Document(name, None, (), {})


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


def _unknown(naming: _Naming, people: People | None) -> str | None:
    """Return why nobody is known by this name, or `None`."""
    names = f"names the {naming.kind} {naming.name!r}"
    if people is None:
        if naming.kind == "user":
            return None
        return f"{names}, and there is no file of people to say who is in it; MANDATE_PEOPLE names that file"
    known = people.groups if naming.kind == "group" else [person.name for person in people.everybody]
    if naming.kind == "user" and people.find(naming.name) is not None:
        return None
    if naming.kind == "group" and normalize_name(naming.name) in map(normalize_name, known):
        return None
    which = "which" if naming.kind == "group" else "whom"
    return f"{names}, {which} the file of people does not have{_suggestion(naming, known)}"


def _suggestion(naming: _Naming, known: Sequence[str]) -> str:
    close = get_close_matches(naming.name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} it has {', '.join(known[:20]) or 'no groups'}{' and more' if len(known) > 20 else ''}"


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


def _key_faults(settings: Settings) -> Iterator[Fault]:
    if settings.jwks is None:
        return
    if settings.token_issuer is None:
        message = "MANDATE_JWKS is set and MANDATE_TOKEN_ISSUER is not: who must signed decisions be from?"
        yield Fault(str(settings.jwks), 0, 0, "", "", message)
    try:
        read_keys(settings.jwks)
    except KeysUnavailable as error:
        yield Fault(str(settings.jwks), 0, 0, "", "", f"MANDATE_JWKS: {error}")


def _spec(document: Document) -> tuple[PeopleSpec | None, list[Fault]]:
    """Return the document as a spec, or all that is wrong with it."""
    faults = list(document.faults)
    if document.value is None and faults:
        return None, faults
    if not isinstance(document.value, dict):
        return None, [*faults, document.fault((), "a file of people is a mapping, beginning with 'people:'")]
    try:
        return parse_people(document), faults
    except ValidationError as error:
        return None, [*faults, *_faults(document, error.errors(include_url=False))]


def _faults(document: Document, details: Sequence[ErrorDetails]) -> Iterator[Fault]:
    places = [_place(detail["loc"]) for detail in details]
    for detail, place in zip(details, places, strict=True):
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        # A list whose items have faults is told to be empty too.
        if detail["type"] != "too_short" or not deeper:
            yield document.fault(place, _says(detail), shown(detail))


def _place(loc: tuple[str | int, ...]) -> Place:
    """Return the place in the file; pydantic marks a key of a mapping that does not fit."""
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def _says(detail: ErrorDetails) -> str:
    """Describe the fault and what is allowed, in one sentence that goes on after the key."""
    place = _place(detail["loc"])
    model = _model(place)
    match detail["type"]:
        case "missing":
            return f"is missing: {model.model_fields[str(place[-1])].description}"
        case "extra_forbidden":
            close = get_close_matches(str(place[-1]), list(model.model_fields), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ";"
            return f"is not a key that is known here{hint} allowed are {', '.join(sorted(model.model_fields))}"
        case "string_pattern_mismatch":
            key = next(str(part) for part in reversed(place) if part in _NAMES)
            return f"{shown(detail)} {_NAMES[key]}"
    return says(detail)


def _model(place: Place) -> type[BaseModel]:
    """Return the model that the key at the end of `place` is, or would be, a field of."""
    if len(place) == 1:
        return PeopleSpec
    return PersonSpec if place[0] == "people" else GroupSpec
