"""Needs of a request: whom a verdict asks, for how long, and what follows when nobody answers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from mandate.workflows.contracts.policy import EXPIRES, MOST_REMINDERS, Asking, OnExpiry, Rule, Verdict
from mandate.workflows.contracts.request import Need, Request, Then
from mandate.workflows.rules.plain_text import make_plain, make_plain_lines

_Value = TypeVar("_Value")


def make_readable(request: Request) -> Request:
    """Return `request` with the words of others as people may see them; its digest is over the call itself."""
    return request.model_copy(
        update={
            "title": make_plain(request.title),
            "question": None if request.question is None else make_plain_lines(request.question),
            "options": tuple(map(make_plain, request.options)),
            "goal": None if request.goal is None else make_plain_lines(request.goal),
            "evidence": tuple(map(make_plain, request.evidence)),
            "reason": make_plain(request.reason),
            "server": None if request.server is None else make_plain(request.server),
        }
    )


def list_needs(
    verdict: Verdict, rules: Sequence[Rule], people: Asking, now: datetime, *, handed_down: int = 0
) -> tuple[Need, ...]:
    """Return one need for each rule that asks, in their order; one from `people` alone when no rule matched.

    What a rule leaves out is as `people` has it, else one approval or one rejection within 24 hours, then denied. The
    first `handed_down` rules are those of agents above, whose people this agent does not know.
    """
    if not verdict.asking:
        return (_need(None, people, people, now),)
    by_id = {rule.id: rule for rule in rules}
    above = {rule.id for rule in rules[:handed_down]}
    return tuple(
        _need(name, by_id.get(name, people), Asking() if name in above else people, now) for name in verdict.asking
    )


def apply_expiry(need: Need, now: datetime) -> Need | None:
    """Return `need` at `now`: itself before it expires, then with those it escalates to; `None` once it is over.

    Who could decide before still can, and what was decided stays. The time of the others counts from the moment at
    which the need expired, however late that is noticed.
    """
    if now < need.expires_at:
        return need
    if need.then is None or now >= need.expires_at + need.then.expires:
        return None
    # A need that names nobody is open to everybody: a name would narrow it.
    open_to_all = not need.users and not need.groups
    remind = _space_reminders(need.remind, need.then.expires)
    return need.model_copy(
        update={
            "users": () if open_to_all else _join(need.users, need.then.users),
            "groups": () if open_to_all else _join(need.groups, need.then.groups),
            "expires_at": need.expires_at + need.then.expires,
            "then": None,
            "remind": remind,
            "remind_at": None if remind is None else need.expires_at + remind,
        }
    )


def _need(rule: str | None, own: Asking, people: Asking, now: datetime) -> Need:
    approvers = own.approvers or people.approvers
    expires = _choose(own.expires, people.expires, EXPIRES)
    remind = _space_reminders(own.remind or people.remind, expires)
    return Need(
        rule=rule,
        users=approvers.users if approvers else (),
        groups=approvers.groups if approvers else (),
        quorum=_choose(own.quorum, people.quorum, 1),
        rejections=_choose(own.rejections, people.rejections, 1),
        signature=(own.signature or people.signature) == "required",
        expires_at=now + expires,
        then=_find_next(own.on_expiry or people.on_expiry),
        remind=remind,
        remind_at=None if remind is None else now + remind,
    )


def _choose(own: _Value | None, people: _Value | None, default: _Value) -> _Value:
    return own if own is not None else people if people is not None else default


def _find_next(on_expiry: str | OnExpiry | None) -> Then | None:
    if not isinstance(on_expiry, OnExpiry):
        return None
    to = on_expiry.escalate
    return Then(users=to.users, groups=to.groups, expires=to.expires)


def _space_reminders(remind: timedelta | None, expires: timedelta) -> timedelta | None:
    """Return `remind`, made longer where `expires` comes from another place and too many would be sent."""
    return None if remind is None else max(remind, expires / MOST_REMINDERS)


def _join(before: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *more)))
