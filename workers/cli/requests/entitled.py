"""The entitlement of the person at the terminal, as the file of people here says."""

from collections.abc import Sequence

from mandate.activities.files import FileError
from mandate.workers.catalog.people import people_path, read_people
from mandate.workers.cli.errors import CliError
from mandate.workers.client.entitlement import Entitled
from mandate.workers.settings import Settings


def read_entitled(settings: Settings, person: str, groups: Sequence[str] = ()) -> tuple[Entitled, str | None]:
    """Return who `person` is, and what is to be said of how that was found out.

    Raises:
        CliError: the file has faults, or does not have this person.
    """
    try:
        people = read_people(settings)
    except FileError as error:
        raise CliError(str(error.faults[0])) from None
    if people is not None and people.find(person) is None:
        raise CliError(f"{person!r} is not in {people_path(settings)}; say who you are with --by or MANDATE_USER")
    note = None
    if people is None:
        note = "there is no file of people here (MANDATE_PEOPLE): requests that name you, anyone"
        note += f" or {' or '.join(groups)}" if groups else "; say which group you are in with --group"
    return Entitled(person, people, tuple(groups)), note
