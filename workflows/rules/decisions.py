"""Decisions of people: refused before anything is looked up, or added to their request."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.request import (
    ANYONE,
    CANCEL,
    EVERY,
    GO_BACK,
    REJECT,
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
from mandate.workflows.contracts.state import PeopleState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import commands, input_size, quantities, wording
from mandate.workflows.rules import needs as rules_needs

CLOSED_KEPT = 256
REFUSED_KEPT = 20

COMMENTS_CHARACTERS = 128 * 1024
SHORTEST_COMMENT = 200
"""Of comments on open requests, all that a run holds: they are carried over together."""

OPTION_CHARACTERS = 80
"""Of an answer that is refused."""

WITH_VALUE = ("approve", "answer", "retry", "supply", "happened", "raise", GO_BACK)


def compute_digest(
    run: str, request: str, *, kind: RequestKind, tool: str | None, arguments: JsonValue, agent: Digest
) -> Digest:
    """Return the digest that decisions name: it fits one call of one request of one run, and its arguments."""
    return digest_of(canonical_json([run, request, kind, tool, arguments, agent]))


def compute_key(decision: Decision) -> Digest:
    """Return a key that is equal for the same decision sent twice, whatever its comment and token."""
    contents = [decision.request, decision.digest, decision.choice, normalize_name(decision.by or ""), decision.value]
    return digest_of(canonical_json(contents))


def find(people: PeopleState, request: str) -> Request | None:
    return next((candidate for candidate in people.open if candidate.id == request), None)


def find_receipt(people: PeopleState, decision: Decision) -> Receipt | None:
    """Return the answer that this decision got when it was counted, as things are now; `None` for a new one."""
    key = compute_key(decision)
    if decision.request == EVERY:
        rejected = sum(key in entry.decided for entry in people.closed)
        return confirm_all_rejected(rejected) if rejected and _refuse_empty(people) is not None else None
    open_request = find(people, decision.request)
    if open_request is not None:
        counts = any(recorded.key == key for recorded in list_counting(open_request))
        return confirm_recorded(open_request) if counts else None
    closed = next((entry for entry in people.closed if entry.id == decision.request and key in entry.decided), None)
    if closed is None:
        return None
    if key == closed.decided[-1] and (closed.outcome in _DECIDED) and _fits(decision.choice, closed.outcome):
        return confirm_settled(closed.id, closed.outcome, closed.reason)
    message = f"recorded; {closed.id} is {closed.outcome} since: {closed.reason}"
    return Receipt(request=closed.id, status="recorded", message=message)


def is_repeated(people: PeopleState, decision: Decision) -> bool:
    """Return whether exactly this decision counts already."""
    return find_receipt(people, decision) is not None


Decided = Literal["approved", "rejected", "answered", "settled"]

_DECIDED: tuple[Decided, ...] = ("approved", "rejected", "answered", "settled")


def _fits(choice: str, outcome: str) -> bool:
    """Return whether the last decision that counted may have had this outcome, and not one on all after it."""
    return (choice == REJECT) == (outcome == "rejected")


def confirm_recorded(request: Request) -> Receipt:
    wants = describe_missing(request)
    return Receipt(request=request.id, status="recorded", message=f"recorded; {request.id} still needs {wants}")


def confirm_settled(request: str, outcome: Decided, reason: str) -> Receipt:
    return Receipt(request=request, status=outcome, message=f"{request} is {outcome}: {reason}")


def confirm_all_rejected(count: int) -> Receipt:
    return Receipt(request=EVERY, status="rejected", message=f"{quantities.count_noun(count, 'request')} rejected")


def find_refusal(
    people: PeopleState, decision: Decision, at: datetime, requester: str | None, *, speaker: str | None = None
) -> str | None:
    """Return why a decision that came at `at` cannot count, in one sentence; `None` when it is worth checking."""
    if (left := _find_placeholder(decision)) is not None:
        return f"{left[0]}: {left[1]!r} is where your own words go"
    if decision.request == EVERY:
        return _refuse_empty(people)
    request = find(people, decision.request)
    if request is None:
        return _explain_not_open(people, decision)
    if decision.digest != request.digest:
        return _explain_wrong_digest(people, request, decision)
    if decision.choice not in request.choices:
        return f"choice: {decision.choice!r} is not one of {', '.join(request.choices)}"
    if decision.value is not None:
        if decision.choice not in WITH_VALUE:
            allowed = " or ".join(choice for choice in request.choices if choice in WITH_VALUE)
            return f"value: goes with {allowed}, not with {decision.choice!r}"
        if (excess := input_size.find_value_excess(decision.value)) is not None:
            return f"value: {excess}"
    if is_expired(request, at):
        return f"request {request.id} expired at {format_time(request.expires_at)}"
    return _find_unfit_person(request, decision, requester, speaker)


def find_option(text: str, options: Sequence[str]) -> str | None:
    """Return the option that a text chooses, as it was offered; case and spaces around it do not matter."""
    wanted = text.strip()
    for option in options:
        if wanted == option.strip():
            return option
    alike = [option for option in options if wanted.casefold() == option.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def explain_no_option(text: str, options: Sequence[str]) -> str:
    return f"{wording.shorten(text, OPTION_CHARACTERS)!r} is none of the answers to choose from: {', '.join(options)}"


def _find_unfit_person(request: Request, decision: Decision, requester: str | None, speaker: str | None) -> str | None:
    """Return why the author of a decision is the wrong one: who asked for it, or has decided already."""
    by = normalize_name(decision.by or "")
    if requester is not None and by == normalize_name(requester):
        return f"by: {decision.by!r} asked for this run and cannot decide for it"
    if speaker is not None and by == normalize_name(speaker):
        return f"by: {decision.by!r} spoke last in this session and cannot decide on what it asks"
    if has_decided(request, by):
        return f"by: {decision.by!r} has decided on {request.id} already; it waits for somebody else"
    return None


def _refuse_empty(people: PeopleState) -> str | None:
    if not people.open:
        return "the run has no open requests"
    if any(REJECT in request.choices for request in people.open):
        return None
    kinds = sorted({f"{request.kind}s" for request in people.open})
    return f"the run has no open approvals or questions, only {' and '.join(kinds)}"


def _find_placeholder(decision: Decision) -> tuple[str, str] | None:
    """Return a word of the shown commands that nobody has put their own for."""
    fields = {"by": decision.by, "value": decision.value, "token": decision.token}
    return next(((key, text) for key, text in fields.items() if text in commands.PLACEHOLDERS), None)


def _explain_not_open(people: PeopleState, decision: Decision) -> str:
    closed = next((entry for entry in people.closed if entry.id == decision.request), None)
    if closed is not None:
        return f"request {closed.id} is {closed.outcome} already: {closed.reason}"
    if int(decision.request[1:]) <= people.made:
        return f"request {decision.request} is decided already"
    known = ", ".join(entry.id for entry in people.open[:20]) or "none"
    return f"request: {decision.request!r} is not a request of this run; open are: {known}"


def _explain_wrong_digest(people: PeopleState, request: Request, decision: Decision) -> str:
    other = next((entry.id for entry in people.open if entry.digest == decision.digest), None)
    if other is not None:
        return f"digest: it is that of request {other}, not of {request.id}"
    if request.edited is not None:
        return f"digest: the arguments of {request.id} were changed by {request.edited.by}; look at it again"
    return f"digest: it is not that of request {request.id}; look at it again and decide on what it says now"


def is_expired(request: Request, at: datetime) -> bool:
    """Return whether a need of `request` is over at `at` with nobody left to ask."""
    return any(rules_needs.apply_expiry(need, at) is None for need in request.needs if not need.is_met)


def has_decided(request: Request, by: str) -> bool:
    """Return whether this person, in the form of `normalize_name`, has a decision that counts now."""
    return any(by in map(normalize_name, (*need.approved_by, *need.rejected_by)) for need in request.needs)


def list_counting(request: Request) -> tuple[Recorded, ...]:
    """Return the decisions that count now: approvals from before the last edit were for other arguments."""
    last = max((position for position, recorded in enumerate(request.decisions) if recorded.edited), default=0)
    return tuple(
        recorded for position, recorded in enumerate(request.decisions) if position >= last or recorded.choice == REJECT
    )


def count_decision(request: Request, decision: Decision, checked: Checked, at: datetime, *, beside: int = 1) -> Request:
    """Return `request` with one more approval or rejection; of `beside` open ones each keeps its share of comments."""
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
        key=compute_key(decision),
    )
    return request.model_copy(update={"needs": needs, "decisions": (*request.decisions, recorded)})


@dataclass(frozen=True, slots=True)
class Taken:
    """A request with one more decision that counts, and what came of it."""

    request: Request
    outcome: Decided | None
    """`None` while the request wants more decisions."""
    reason: str
    """One sentence: who decided how, and whom an open request still needs."""
    by: str = ""
    """The person whose word was enough; empty where several decide together."""
    answer: ToolResult | None = None


def take(request: Request, decision: Decision, checked: Checked, at: datetime, *, beside: int) -> Taken:
    """Count a checked decision on `request`, one of `beside` that are open."""
    person = checked.person or decision.by or ""
    request = count_decision(request, decision, checked, at, beside=beside)
    if request.kind != "approval":
        return _word(request, decision, checked, person)
    match find_outcome(request):
        case "approved":
            return Taken(request, "approved", f"{_names(request, 'approve')} approved it")
        case "rejected":
            return Taken(request, "rejected", f"{_names(request, REJECT)} rejected it")
        case _:
            left = f"{person} chose {decision.choice} on {request.id}; it still needs {describe_missing(request)}"
            return Taken(request, None, left)


def _word(request: Request, decision: Decision, checked: Checked, person: str) -> Taken:
    """Take one person's word, which is enough for what is no approval."""
    if decision.choice == REJECT:
        return Taken(request, "rejected", f"{person} rejected it", person)
    if decision.choice == CANCEL:
        return Taken(request, "settled", f"{person} left it without an answer", person)
    if request.kind == "question":
        return Taken(request, "answered", f"{person} answered", person, checked.answer)
    return Taken(request, "settled", f"{person} chose {decision.choice.replace('_', ' ')}", person, checked.answer)


def _names(request: Request, choice: str) -> str:
    return " and ".join(dict.fromkeys(one.by for one in list_counting(request) if one.choice == choice))


def repeats(request: Request, decision: Decision, checked: Checked) -> str | None:
    """Return why a checked decision counts no second time: its person has decided under another name."""
    person = checked.person or decision.by or ""
    if not has_decided(request, normalize_name(person)):
        return None
    return f"by: {decision.by!r} has decided on {request.id} already, as {person!r}"


def replace_call(
    request: Request, call: EditedCall, digest: Digest, needs: Sequence[Need], title: str | None = None
) -> Request:
    """Return `request` about other arguments: earlier approvals were for the old ones and count no more."""
    cleared = tuple(need.model_copy(update={"approved_by": ()}) for need in needs)
    changes = {"edited": call, "digest": digest, "needs": cleared, "title": title or request.title}
    return request.model_copy(update=changes)


def needs_after_edit(request: Request, wanted: Sequence[Need]) -> tuple[Need, ...]:
    """Return the needs of `request`, and those of rules that ask only for the new arguments; take none away."""
    known = {need.rule for need in request.needs}
    return (*request.needs, *(need for need in wanted if need.rule not in known))


def find_outcome(request: Request) -> Literal["approved", "rejected"] | None:
    """Return the outcome of the decisions so far; `None` while more are wanted."""
    if any(len(need.rejected_by) >= need.rejections for need in request.needs):
        return "rejected"
    if all(need.is_met for need in request.needs):
        return "approved"
    return None


def describe_missing(request: Request) -> str:
    """Name those who must still decide, in words."""
    sentences = []
    for need in request.needs:
        left = need.quorum - len(need.approved_by)
        if left > 0:
            who = ", ".join((*need.groups, *need.users)) or "anyone"
            sentences.append(f"{left} of {who}")
    return " and ".join(sentences)


def close_request(request: Request, outcome: str, reason: str, *, by_every: Decision | None = None) -> Closed:
    """Return what becomes of `request`; `by_every` is the decision on all requests that closed it."""
    decided = tuple(recorded.key for recorded in list_counting(request))
    return Closed(
        id=request.id,
        kind=request.kind,
        digest=request.digest,
        outcome=outcome,
        reason=reason,
        by=tuple(recorded.by for recorded in list_counting(request)),
        decided=decided if by_every is None else (*decided, compute_key(by_every)),
    )


def escalate_expired(request: Request, at: datetime) -> Request:
    """Return `request` at `at`: needs that have expired by then go on with those that they escalate to."""
    return request.model_copy(
        update={"needs": tuple(rules_needs.apply_expiry(need, at) or need for need in request.needs)}
    )


def find_next_due(requests: Sequence[Request]) -> datetime | None:
    """Return the time when the first of `requests` expires or is to be reminded of."""
    unmet = [need for request in requests for need in request.needs if not need.is_met]
    return min((moment for need in unmet for moment in (need.expires_at, need.remind_at) if moment), default=None)


def schedule_reminder(need: Need, now: datetime) -> Need:
    """Return `need` with its next reminder after `now`; none that would come after its end."""
    if need.remind is None or need.remind_at is None or need.remind_at > now:
        return need
    following = need.remind_at
    while following <= now:
        following += need.remind
    return need.model_copy(update={"remind_at": following if following < need.expires_at else None})


def describe_expiry(request: Request) -> str:
    """Say what follows when nobody decides in time."""
    unmet = [need for need in request.needs if not need.is_met] or list(request.needs)
    first = min(unmet, key=lambda need: need.expires_at, default=None)
    if first is None or first.then is None:
        if request.server is not None:
            return "the server is told that nobody chose"
        if request.plan_step is not None:
            return f"step {request.plan_step} has failed"
        if request.kind == "budget":
            return "the agent gives its last answer"
        return "it counts as rejected" if REJECT in request.choices else "the run ends as declined"
    others = ", ".join((*first.then.groups, *first.then.users)) or ANYONE
    return f"{others} can answer too, for {format_duration(first.then.expires)}"


def format_time(at: datetime) -> str:
    """Return a time as `2026-11-02 09:00 UTC`."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def format_duration(length: timedelta) -> str:
    """Return a span of time as `0.5s`, `90s`, `15m`, `24h` or `3d`."""
    if length.microseconds:
        return f"{f'{length.total_seconds():.6f}'.rstrip('0')}s"
    seconds = int(length.total_seconds())
    for unit, size in _UNITS[:3]:
        if seconds >= size * (2 if unit == "d" else 1) and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def round_duration(length: timedelta) -> str:
    """Return a length rounded to the largest unit of which there are two: `40s`, `12m`, `5h` or `3d`."""
    seconds = max(length.total_seconds(), 0.0)
    size = next((size for _, size in _UNITS if round(seconds / size) >= 2), 1)
    return format_duration(timedelta(seconds=round(seconds / size) * size))
