"""Whom a verdict asks, for how long, and what follows when nobody answers."""

from datetime import UTC, datetime, timedelta

import pytest

from mandate.workflows.contracts.policy import Asking, Rule, Verdict
from mandate.workflows.contracts.request import Need, Then
from mandate.workflows.rules.needs import apply_expiry, list_needs

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)


def rule(name: str, **asking: object) -> Rule:
    return Rule.model_validate({"id": name, "match": {}, "verdict": "ask", **asking})


def people(**asking: object) -> Asking:
    return Asking.model_validate(asking)


def asked(*rules: str) -> Verdict:
    return Verdict(kind="ask", rule=rules[0] if rules else None, reason="why", asking=rules)


def the_need(own: Rule, agents: Asking) -> Need:
    (need,) = list_needs(asked(own.id), (own,), agents, NOW)
    return need


def test_without_a_word_on_people() -> None:
    assert list_needs(asked("a"), (rule("a"),), Asking(), NOW) == (Need(rule="a", expires_at=NOW + DAY),)


def test_rule_says_everything() -> None:
    large = rule(
        "large",
        approvers={"users": ["ann"], "groups": ["finance"]},
        quorum=2,
        rejections=3,
        expires="8h",
        on_expiry={"escalate": {"groups": ["board"], "expires": "2h"}},
        remind="4h",
        signature="required",
    )

    assert the_need(large, people(approvers={"users": ["bob"]}, quorum=1, expires="1h")) == Need(
        rule="large",
        users=("ann",),
        groups=("finance",),
        quorum=2,
        rejections=3,
        signature=True,
        expires_at=NOW + 8 * HOUR,
        then=Then(groups=("board",), expires=2 * HOUR),
        remind=4 * HOUR,
        remind_at=NOW + 4 * HOUR,
    )


def test_what_a_rule_leaves_out_is_the_agents() -> None:
    agents = people(
        approvers={"groups": ["support"]},
        quorum=2,
        rejections=2,
        expires="2h",
        on_expiry={"escalate": {"users": ["ann"]}},
        remind="1h",
        signature="required",
    )

    assert the_need(rule("a", approvers={"users": ["bob"]}, on_expiry="deny"), agents) == Need(
        rule="a",
        users=("bob",),
        quorum=2,
        rejections=2,
        signature=True,
        expires_at=NOW + 2 * HOUR,
        then=None,
        remind=HOUR,
        remind_at=NOW + HOUR,
    )


def test_each_asking_rule_has_its_need_in_their_order() -> None:
    rules = (rule("a", quorum=1), rule("b", quorum=2), rule("c", quorum=3))

    needs = list_needs(asked("c", "a"), rules, Asking(), NOW)

    assert [(need.rule, need.quorum) for need in needs] == [("c", 3), ("a", 1)]


def test_rule_that_is_not_there_asks_all_the_same() -> None:
    (need,) = list_needs(asked("gone"), (), people(quorum=2), NOW)

    assert (need.rule, need.quorum) == ("gone", 2)


def test_unmatched_call_is_asked_for_as_the_agent_says() -> None:
    (need,) = list_needs(asked(), (rule("a", quorum=3),), people(approvers={"users": ["ann"]}), NOW)

    assert need == Need(rule=None, users=("ann",), expires_at=NOW + DAY)


def test_reminders_of_two_places_stay_few() -> None:
    """`remind` is the agent's, for its own `expires`; the rule gives people much longer."""
    need = the_need(rule("a", expires="50d"), people(remind="1h"))

    assert need.remind == timedelta(days=1)
    assert need.remind_at == NOW + timedelta(days=1)


NEED = Need(
    rule="a",
    users=("ann",),
    groups=("finance",),
    expires_at=NOW,
    then=Then(users=("ann", "bob"), groups=("board",), expires=2 * HOUR),
    remind=HOUR,
    remind_at=NOW - HOUR,
    approved_by=("ann",),
)


def test_need_that_has_time_stays() -> None:
    assert apply_expiry(NEED, NOW - timedelta(microseconds=1)) == NEED


@pytest.mark.parametrize("late", [timedelta(0), HOUR, 2 * HOUR - timedelta(microseconds=1)])
def test_escalation_adds_people_and_counts_from_the_expiry(late: timedelta) -> None:
    assert apply_expiry(NEED, NOW + late) == Need(
        rule="a",
        users=("ann", "bob"),
        groups=("finance", "board"),
        expires_at=NOW + 2 * HOUR,
        then=None,
        remind=HOUR,
        remind_at=NOW + HOUR,
        approved_by=("ann",),
    )


def test_escalation_of_a_need_for_everybody_leaves_it_to_everybody() -> None:
    escalated = apply_expiry(NEED.model_copy(update={"users": (), "groups": ()}), NOW)

    assert escalated is not None
    assert (escalated.users, escalated.groups) == ((), ())


@pytest.mark.parametrize(
    ("need", "now"),
    [
        (NEED.model_copy(update={"then": None}), NOW),
        (NEED, NOW + 2 * HOUR),
        (apply_expiry(NEED, NOW), NOW + 2 * HOUR),
    ],
)
def test_need_is_over(need: Need, now: datetime) -> None:
    assert apply_expiry(need, now) is None
