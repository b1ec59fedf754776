"""What a decision counts for: refused before anything is looked up, or added to its request."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.people import same_person
from mandate.workflows.contracts.request import (
    ANYONE,
    EVERY,
    REJECT,
    VALUE_BYTES,
    Checked,
    Closed,
    Decision,
    EditedCall,
    Need,
    Receipt,
    Recorded,
    Request,
    RequestKind,
)
from mandate.workflows.contracts.run import PeopleState
from mandate.workflows.rules import commands
from mandate.workflows.rules import needs as rules_needs
from pydantic import JsonValue

CLOSED_KEPT = 256
REFUSED_KEPT = 20

COMMENTS_CHARACTERS = 128 * 1024
SHORTEST_COMMENT = 200
"""Of comments on open requests, all that a run holds: they are carried over together."""

WITH_VALUE = ("approve", "answer", "retry", "supply", "happened")


def request_digest(
    run: str, request: str, *, kind: RequestKind, tool: str | None, arguments: JsonValue, agent: Digest
) -> Digest:
    """What decisions name: it fits one call of one request of one run, and changes when the arguments do."""
    return digest_of(canonical_json([run, request, kind, tool, arguments, agent]))


def key_of(decision: Decision) -> Digest:
    """Equal for the same decision sent twice, whatever its comment and token."""
    told = [decision.request, decision.digest, decision.choice, same_person(decision.by or ""), decision.value]
    return digest_of(canonical_json(told))


def find(people: PeopleState, request: str) -> Request | None:
    return next((one for one in people.open if one.id == request), None)


def receipt_of(people: PeopleState, decision: Decision) -> Receipt | None:
    """Return the answer that this decision got when it was counted, as things are now; `None` for a new one."""
    key = key_of(decision)
    if decision.request == EVERY:
        rejected = sum(key in one.decided for one in people.closed)
        return all_rejected(rejected) if rejected and _nothing_to_reject(people) is not None else None
    found = find(people, decision.request)
    if found is not None:
        counts = any(recorded.key == key for recorded in counting(found))
        return recorded_on(found) if counts else None
    closed = next((one for one in people.closed if one.id == decision.request and key in one.decided), None)
    if closed is None:
        return None
    if key == closed.decided[-1] and (closed.outcome in _DECIDED) and _fits(decision.choice, closed.outcome):
        return settled_on(closed.id, closed.outcome, closed.reason)
    message = f"recorded; {closed.id} is {closed.outcome} since: {closed.reason}"
    return Receipt(request=closed.id, status="recorded", message=message)


def is_repeated(people: PeopleState, decision: Decision) -> bool:
    """Whether exactly this decision counts already."""
    return receipt_of(people, decision) is not None


Decided = Literal["approved", "rejected", "answered", "settled"]

_DECIDED: tuple[Decided, ...] = ("approved", "rejected", "answered", "settled")


def _fits(choice: str, outcome: str) -> bool:
    """Tell whether the last decision that counted may have had this outcome, and not one on all requests after it."""
    return (choice == REJECT) == (outcome == "rejected")


def recorded_on(request: Request) -> Receipt:
    wants = missing(request)
    return Receipt(request=request.id, status="recorded", message=f"recorded; {request.id} still needs {wants}")


def settled_on(request: str, outcome: Decided, reason: str) -> Receipt:
    return Receipt(request=request, status=outcome, message=f"{request} is {outcome}: {reason}")


def all_rejected(count: int) -> Receipt:
    return Receipt(request=EVERY, status="rejected", message=f"{count} request{'s' * (count != 1)} rejected")


def refusal(people: PeopleState, decision: Decision, at: datetime, requester: str | None) -> str | None:
    """Why a decision that came at `at` cannot count, in one sentence; `None` when it is worth checking."""
    if (left := _placeholder(decision)) is not None:
        return f"{left[0]}: {left[1]!r} is where your own words go"
    if decision.request == EVERY:
        return _nothing_to_reject(people)
    found = find(people, decision.request)
    if found is None:
        return _not_open(people, decision)
    if decision.digest != found.digest:
        return _wrong_digest(people, found, decision)
    if decision.choice not in found.choices:
        return f"choice: {decision.choice!r} is not one of {', '.join(found.choices)}"
    if decision.value is not None:
        if decision.choice not in WITH_VALUE:
            allowed = " or ".join(choice for choice in found.choices if choice in WITH_VALUE)
            return f"value: goes with {allowed}, not with {decision.choice!r}"
        size = len(canonical_json(decision.value))
        if size > VALUE_BYTES:
            return f"value: has {size} bytes as JSON; at most {VALUE_BYTES} are allowed"
    if expired(found, at):
        return f"request {found.id} expired at {moment(found.expires_at)}"
    by = same_person(decision.by or "")
    if requester is not None and by == same_person(requester):
        return f"by: {decision.by!r} asked for this run and cannot decide for it"
    if has_decided(found, by):
        return f"by: {decision.by!r} has decided on {found.id} already; it waits for somebody else"
    return None


def _nothing_to_reject(people: PeopleState) -> str | None:
    if not people.open:
        return "the run has no open requests"
    if any(REJECT in request.choices for request in people.open):
        return None
    kinds = sorted({f"{request.kind}s" for request in people.open})
    return f"the run has no open approvals or questions, only {' and '.join(kinds)}"


def _placeholder(decision: Decision) -> tuple[str, str] | None:
    """A word of the commands that people are shown which nobody has put their own for."""
    said = {"by": decision.by, "value": decision.value, "token": decision.token}
    return next(((key, text) for key, text in said.items() if text in commands.PLACEHOLDERS), None)


def _not_open(people: PeopleState, decision: Decision) -> str:
    closed = next((one for one in people.closed if one.id == decision.request), None)
    if closed is not None:
        return f"request {closed.id} is {closed.outcome} already: {closed.reason}"
    if int(decision.request[1:]) <= people.made:
        return f"request {decision.request} is decided already"
    known = ", ".join(one.id for one in people.open[:20]) or "none"
    return f"request: {decision.request!r} is not a request of this run; open are: {known}"


def _wrong_digest(people: PeopleState, found: Request, decision: Decision) -> str:
    other = next((one.id for one in people.open if one.digest == decision.digest), None)
    if other is not None:
        return f"digest: it is that of request {other}, not of {found.id}"
    if found.edited is not None:
        return f"digest: the arguments of {found.id} were changed by {found.edited.by}; look at it again"
    return f"digest: it is not that of request {found.id}; look at it again and decide on what it says now"


def expired(request: Request, at: datetime) -> bool:
    """Whether a need of `request` is over at `at` with nobody left to ask."""
    return any(rules_needs.after_expiry(need, at) is None for need in request.needs if not need.is_met)


def has_decided(request: Request, by: str) -> bool:
    """Whether this person, in the form of `same_person`, has a decision that counts now."""
    return any(by in map(same_person, (*need.approved_by, *need.rejected_by)) for need in request.needs)


def counting(request: Request) -> tuple[Recorded, ...]:
    """The decisions that count now: approvals from before the last edit were for other arguments."""
    last = max((position for position, one in enumerate(request.decisions) if one.edited), default=0)
    return tuple(one for position, one in enumerate(request.decisions) if position >= last or one.choice == REJECT)


def counted(request: Request, decision: Decision, checked: Checked, at: datetime, *, beside: int = 1) -> Request:
    """`request` with one more approval or rejection; of `beside` open requests each keeps its share of comments."""
    most = max(SHORTEST_COMMENT, COMMENTS_CHARACTERS // max(beside, 1))
    person = checked.person or decision.by or ""
    name = "rejected_by" if decision.choice == REJECT else "approved_by"
    needs = tuple(
        need.model_copy(update={name: (*getattr(need, name), person)}) if position in checked.needs else need
        for position, need in enumerate(request.needs)
    )
    recorded = Recorded(
        by=person,
        choice=decision.choice,
        comment=decision.comment[:most],
        at=at,
        signed=checked.signed,
        evidence=checked.evidence,
        edited=checked.edited is not None,
        key=key_of(decision),
    )
    return request.model_copy(update={"needs": needs, "decisions": (*request.decisions, recorded)})


def edited(
    request: Request, call: EditedCall, digest: Digest, needs: Sequence[Need], title: str | None = None
) -> Request:
    """`request` about other arguments: earlier approvals were for the old ones and count no more."""
    cleared = tuple(need.model_copy(update={"approved_by": ()}) for need in needs)
    changes = {"edited": call, "digest": digest, "needs": cleared, "title": title or request.title}
    return request.model_copy(update=changes)


def needs_after_edit(request: Request, wanted: Sequence[Need]) -> tuple[Need, ...]:
    """The needs of `request`, and those of rules that ask only for the new arguments; none is taken away."""
    known = {need.rule for need in request.needs}
    return (*request.needs, *(need for need in wanted if need.rule not in known))


def outcome(request: Request) -> Literal["approved", "rejected"] | None:
    """What the decisions so far come to; `None` while more are wanted."""
    if any(len(need.rejected_by) >= need.rejections for need in request.needs):
        return "rejected"
    if all(need.is_met for need in request.needs):
        return "approved"
    return None


def missing(request: Request) -> str:
    """Who must still decide, in words."""
    told = []
    for need in request.needs:
        left = need.quorum - len(need.approved_by)
        if left > 0:
            who = ", ".join((*need.groups, *need.users)) or "anyone"
            told.append(f"{left} of {who}")
    return " and ".join(told)


def closed(request: Request, outcome: str, reason: str, *, by_every: Decision | None = None) -> Closed:
    """Return what becomes of `request`; `by_every` is the decision on all requests that closed it."""
    decided = tuple(recorded.key for recorded in counting(request))
    return Closed(
        id=request.id,
        kind=request.kind,
        digest=request.digest,
        outcome=outcome,
        reason=reason,
        by=tuple(recorded.by for recorded in counting(request)),
        decided=decided if by_every is None else (*decided, key_of(by_every)),
    )


def going_on(request: Request, at: datetime) -> Request:
    """`request` at `at`: needs that have expired by then are with those that they escalate to."""
    return request.model_copy(
        update={"needs": tuple(rules_needs.after_expiry(need, at) or need for need in request.needs)}
    )


def next_due(requests: Sequence[Request]) -> datetime | None:
    """When the first of `requests` expires or is to be reminded of."""
    unmet = [need for request in requests for need in request.needs if not need.is_met]
    return min((moment for need in unmet for moment in (need.expires_at, need.remind_at) if moment), default=None)


def reminded(need: Need, now: datetime) -> Need:
    """`need` with its next reminder after `now`; none that would come after its end."""
    if need.remind is None or need.remind_at is None or need.remind_at > now:
        return need
    following = need.remind_at
    while following <= now:
        following += need.remind
    return need.model_copy(update={"remind_at": following if following < need.expires_at else None})


def expiry(request: Request) -> str:
    """Say what follows when nobody decides in time."""
    unmet = [need for need in request.needs if not need.is_met] or list(request.needs)
    first = min(unmet, key=lambda need: need.expires_at, default=None)
    if first is None or first.then is None:
        return "it counts as rejected" if REJECT in request.choices else "the run ends as declined"
    others = ", ".join((*first.then.groups, *first.then.users)) or ANYONE
    return f"{others} can answer too, for {span(first.then.expires)}"


def moment(at: datetime) -> str:
    """`2026-11-02 09:00 UTC`."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(length: timedelta) -> str:
    """Write an exact length: `90s`, `15m`, `24h` or `3d`."""
    seconds = int(length.total_seconds())
    for unit, size in _UNITS[:3]:
        if seconds >= size * (2 if unit == "d" else 1) and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def rounded_span(length: timedelta) -> str:
    """Write a length rounded to the largest unit of which there are two: `40s`, `12m`, `5h` or `3d`."""
    seconds = max(length.total_seconds(), 0.0)
    size = next((size for _, size in _UNITS if round(seconds / size) >= 2), 1)
    return span(timedelta(seconds=round(seconds / size) * size))
