"""The file of people: who may decide, under which names, and in which groups."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from mandate.workflows.contracts.base import Spec
from mandate.workflows.contracts.faults import Located, find_repeated, refuse
from mandate.workflows.contracts.policy import Approvers, Group, Person

AGENT_PREFIX = "agent:"
"""Begins what an agent is called where people are; nobody of that name ever decides."""


def normalize_name(name: str) -> str:
    """Return the form that is equal for two spellings of a name: Unicode NFC, without case and outer spaces."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


def _check_person(name: str) -> str:
    if not name.isprintable():
        raise ValueError("holds characters that cannot be seen, so that two names would look the same")
    if normalize_name(name).startswith(AGENT_PREFIX):
        raise ValueError(f"names that begin with '{AGENT_PREFIX}' are agents, which decide nothing")
    return name


PersonName = Annotated[Person, AfterValidator(_check_person)]


class PersonSpec(Spec):
    """One person."""

    name: PersonName = Field(description="How the person is named in decisions and in the record.")
    addresses: tuple[PersonName, ...] = Field(
        default=(), description="Other names of the same person, for example `slack:U012AB`."
    )
    groups: tuple[Group, ...] = Field(default=(), description="Groups that the person is in.")

    @field_validator("addresses", "groups")
    @classmethod
    def _differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        refuse(_find_repetitions(names))
        return names


class GroupSpec(Spec):
    """Settings of a group."""

    description: str | None = Field(default=None, max_length=300, description="What the group is for.")


class PeopleSpec(Spec):
    """The file of people."""

    people: tuple[PersonSpec, ...] = Field(min_length=1, description="Who may decide.")
    groups: dict[Group, GroupSpec] = Field(default={}, description="What groups are for; those not named need none.")
    control: Approvers | None = Field(
        default=None, description="Who may steer, pause, resume and stop runs; left out, everybody may."
    )

    @field_validator("people")
    @classmethod
    def _names_differ(cls, people: tuple[PersonSpec, ...]) -> tuple[PersonSpec, ...]:
        refuse(find_shared_names(people))
        return people

    @field_validator("groups")
    @classmethod
    def _groups_differ(cls, groups: dict[str, GroupSpec]) -> dict[str, GroupSpec]:
        names = list(groups)
        refuse(
            [((names[place[0]],), message) for place, message in _find_repetitions(names) if isinstance(place[0], int)]
        )
        return groups


def find_shared_names(people: Sequence[PersonSpec]) -> list[Located]:
    """Return names and addresses that two people have; a person's own name among the addresses is none."""
    first: dict[str, int] = {}
    found: list[Located] = []
    for index, person in enumerate(people):
        places: list[tuple[tuple[str | int, ...], str]] = [(("name",), person.name)]
        places += [(("addresses", position), address) for position, address in enumerate(person.addresses)]
        for place, name in places:
            owner = first.setdefault(normalize_name(name), index)
            if owner != index:
                found.append(((index, *place), f"{name!r} is people[{owner}] already"))
    return found


def _find_repetitions(names: Sequence[str]) -> list[Located]:
    return [
        ((again,), f"{names[again]!r} is given twice") for again, _, _ in find_repeated([*map(normalize_name, names)])
    ]
