"""Facts about open requests that each decision and each tick needs, worked out once for each of them."""

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from mandate.workflows.contracts.request import Request
from mandate.workflows.rules import decisions


@dataclass(frozen=True, slots=True)
class _Facts:
    request: Request
    waits_for: tuple[str, ...]
    due: datetime | None


class RequestFacts:
    """The open requests of one run; of two hundred, a decision changes one."""

    def __init__(self) -> None:
        self._requests: tuple[Request, ...] | None = None
        self._facts: dict[str, _Facts] = {}

    def waits_for(self, requests: tuple[Request, ...]) -> tuple[str, ...]:
        """Return the groups and users that `requests` wait for, each once, in the order of the requests."""
        names = chain.from_iterable(facts.waits_for for facts in self._read(requests).values())
        return tuple(dict.fromkeys(names))

    def next_due(self, requests: tuple[Request, ...], but: Container[str]) -> datetime | None:
        """Return when the first of `requests` expires or is to be reminded of, those of the ids `but` left out."""
        facts = self._read(requests)
        return min((one.due for name, one in facts.items() if one.due is not None and name not in but), default=None)

    def _read(self, requests: tuple[Request, ...]) -> dict[str, _Facts]:
        # Requests are never changed in place, so that the same object says the same.
        if requests is not self._requests:
            before = self._facts
            self._facts = {
                request.id: known
                if (known := before.get(request.id)) is not None and known.request is request
                else _Facts(request, request.waits_for, decisions.find_next_due([request]))
                for request in requests
            }
            self._requests = requests
        return self._facts
