"""Entitlement of a person to decide on requests, as far as that can be told here: the run has the last word."""

from dataclasses import dataclass

from mandate.activities.people.directory import People
from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.request import Need, OpenRequests, Request


@dataclass(frozen=True, slots=True)
class Entitled:
    """One person, with the groups that they are in."""

    person: str
    people: People | None
    """`None` when there is no file of people here."""
    groups: tuple[str, ...] = ()
    """Groups that they say they are in; used without a file of people."""

    def may_decide(self, run: OpenRequests, request: Request) -> bool:
        """Tell whether a decision of this person would count, and still is wanted."""
        if run.requester is not None and self._is_me(run.requester):
            return False
        if any(self._is_me(name) for need in request.needs for name in (*need.approved_by, *need.rejected_by)):
            return False
        return any(not need.is_met and self._fits(need) for need in request.needs)

    def _fits(self, need: Need) -> bool:
        if not need.users and not need.groups:
            return True
        if any(map(self._is_me, need.users)):
            return True
        if self.people is None:
            return any(normalize_name(mine) == normalize_name(group) for mine in self.groups for group in need.groups)
        known = self.people.find(self.person)
        return known is not None and known.is_in(need.groups)

    def _is_me(self, name: str) -> bool:
        if self.people is not None:
            known = self.people.find(name)
            if known is not None:
                return known is self.people.find(self.person)
        return normalize_name(name) == normalize_name(self.person)
