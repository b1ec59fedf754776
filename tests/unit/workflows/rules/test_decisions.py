"""What a decision counts for, before anything is looked up and after."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.request import Checked, Decision, EditedCall, Need, Recorded, Request, Then
from mandate.workflows.contracts.state import PeopleState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import decisions
from mandate.workflows.rules.input_size import VALUE_WAY
from tests.support.examples import examples

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)
FIRST, SECOND, OTHER = "A" * 43, "B" * 43, "C" * 43


def need(**keys: Any) -> Need:
    return Need.model_validate({"rule": "asked", "groups": ("finance",), "expires_at": NOW + DAY, **keys})


def request(number: int = 1, *needs: Need, **keys: Any) -> Request:
    given = {
        "id": f"r{number}",
        "kind": "approval",
        "digest": {1: FIRST, 2: SECOND}.get(number, OTHER),
        "title": "pay order=1?",
        "tool": "pay",
        "reason": "rule 'asked' asks people about 'pay'",
        "step": 1,
        "head": "H" * 43,
        "index": 0,
        "choices": ("approve", "reject"),
        "needs": needs or (need(),),
        "requested_at": NOW,
        **keys,
    }
    return Request.model_validate(given)


def decision(**keys: Any) -> Decision:
    given = {"request": "r1", "digest": FIRST, "choice": "approve", "by": "ann@example.com", **keys}
    return Decision.model_validate({name: value for name, value in given.items() if value is not None})


EDIT = EditedCall(by="ann@example.com", arguments={"order": 2}, digest="D" * 43, blob="E" * 43)
OPEN = PeopleState(made=300, open=(request(1), request(2)))


def taken(asked: Request, said: Decision, *positions: int, at: datetime = NOW, **checked: Any) -> Request:
    """`asked` after one decision that was found to count for the needs at `positions`."""
    return decisions.count_decision(asked, said, Checked(needs=positions, **checked), at)


class TestRefusals:
    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ({}, None),
            ({"choice": "reject"}, None),
            ({"by": "bob", "value": {"order": 2}}, None),
            ({"request": "*", "digest": None, "by": None, "choice": "reject"}, None),
            ({"request": "r301"}, "request: 'r301' is not a request of this run; open are: r1, r2"),
            ({"request": "r7"}, "request r7 is decided already"),
            ({"digest": SECOND}, "digest: it is that of request r2, not of r1"),
            (
                {"digest": OTHER},
                "digest: it is not that of request r1; look at it again and decide on what it says now",
            ),
            ({"choice": "maybe"}, "choice: 'maybe' is not one of approve, reject"),
            ({"choice": "answer"}, "choice: 'answer' is not one of approve, reject"),
            ({"value": "x" * 65534}, None),
            (
                {"value": "x" * 65535},
                f"value: has 65,537 bytes as JSON; at most 65,536 are allowed; {VALUE_WAY}",
            ),
            ({"by": "eve"}, "by: 'eve' asked for this run and cannot decide for it"),
            ({"by": "EVE"}, "by: 'EVE' asked for this run and cannot decide for it"),
            ({"by": "<your name>"}, "by: '<your name>' is where your own words go"),
        ],
    )
    def test_what_an_open_request_says_to_a_decision(self, said: dict[str, Any], why: str | None) -> None:
        assert decisions.find_refusal(OPEN, decision(**said), NOW, "eve") == why

    def test_a_value_goes_with_choices_that_take_one(self) -> None:
        said = decision(choice="reject", value={"order": 2})

        assert decisions.find_refusal(OPEN, said, NOW, None) == "value: goes with approve, not with 'reject'"

    def test_no_open_request_is_there_to_be_rejected(self) -> None:
        said = Decision(request="*", choice="reject")

        assert decisions.find_refusal(PeopleState(), said, NOW, None) == "the run has no open requests"

    @pytest.mark.parametrize("outcome", ["approved", "rejected", "answered", "expired", "withdrawn"])
    def test_a_closed_request_says_what_became_of_it(self, outcome: str) -> None:
        closed = decisions.close_request(request(), outcome, "that is why")
        state = PeopleState(made=1, closed=(closed,))

        assert decisions.find_refusal(state, decision(), NOW, None) == f"request r1 is {outcome} already: that is why"

    @pytest.mark.parametrize(
        ("asked", "after", "why"),
        [
            (need(), DAY - timedelta(microseconds=1), None),
            (need(), DAY, "request r1 expired at 2026-11-03 09:00 UTC"),
            (need(then=Then(groups=("board",), expires=HOUR)), DAY, None),
            (
                need(then=Then(groups=("board",), expires=HOUR)),
                DAY + HOUR,
                "request r1 expired at 2026-11-03 09:00 UTC",
            ),
            # Time is over only for what is still wanted.
            (need(expires_at=NOW + HOUR, approved_by=("bob",)), DAY, None),
        ],
    )
    def test_time_is_up(self, asked: Need, after: timedelta, why: str | None) -> None:
        state = PeopleState(made=1, open=(request(1, asked, need(rule="later", expires_at=NOW + 3 * DAY)),))

        assert decisions.find_refusal(state, decision(), NOW + after, None) == why

    @pytest.mark.parametrize("by", ["ann@example.com", "Ann@Example.COM"])
    @pytest.mark.parametrize("choice", ["approve", "reject"])
    def test_nobody_decides_twice(self, by: str, choice: str) -> None:
        asked = taken(request(1, need(quorum=2)), decision(comment="first"), 0)
        state = PeopleState(made=1, open=(asked,))
        said = decision(by=by, choice=choice, value=None if choice == "reject" else {"order": 3})

        assert decisions.find_refusal(state, said, NOW, None) == (
            f"by: {by!r} has decided on r1 already; it waits for somebody else"
        )

    def test_the_old_digest_of_a_changed_call_names_who_changed_it(self) -> None:
        state = PeopleState(made=1, open=(decisions.replace_call(request(), EDIT, OTHER, (need(),)),))

        assert decisions.find_refusal(state, decision(by="bob"), NOW, None) == (
            "digest: the arguments of r1 were changed by ann@example.com; look at it again"
        )


class TestRepeats:
    @pytest.mark.parametrize(
        ("again", "is_same"),
        [
            ({}, True),
            ({"comment": "other words"}, True),
            ({"token": "another"}, True),
            ({"by": "ANN@example.com"}, True),
            ({"choice": "reject"}, False),
            ({"by": "bob"}, False),
            ({"value": {"order": 2}}, False),
            ({"digest": SECOND}, False),
            ({"request": "r2"}, False),
        ],
    )
    def test_what_is_the_same_decision(self, again: dict[str, Any], is_same: bool) -> None:
        asked = taken(request(1, need(quorum=2)), decision(), 0)
        waiting = PeopleState(made=2, open=(asked, request(2)))
        over = PeopleState(made=2, open=(request(2),), closed=(decisions.close_request(asked, "approved", "why"),))

        assert decisions.is_repeated(waiting, decision(**again)) is is_same
        assert decisions.is_repeated(over, decision(**again)) is is_same

    @pytest.mark.parametrize(
        ("outcome", "last", "told"),
        [
            (None, None, ("recorded", "recorded; r1 still needs 1 of finance")),
            ("approved", None, ("approved", "r1 is approved: why")),
            ("approved", decision(by="bob"), ("recorded", "recorded; r1 is approved since: why")),
            ("rejected", decision(by="bob", choice="reject"), ("recorded", "recorded; r1 is rejected since: why")),
            ("expired", None, ("recorded", "recorded; r1 is expired since: why")),
            ("withdrawn", None, ("recorded", "recorded; r1 is withdrawn since: why")),
            # All were rejected at once, when that decision was not kept yet.
            ("rejected", None, ("recorded", "recorded; r1 is rejected since: why")),
        ],
    )
    def test_a_decision_that_comes_again_is_answered_with_what_it_did(
        self, outcome: str | None, last: Decision | None, told: tuple[str, str]
    ) -> None:
        asked = taken(request(1, need(quorum=2)), decision(), 0)
        if last is not None:
            asked = taken(asked, last, 0)
        over = (decisions.close_request(asked, outcome, "why"),) if outcome is not None else ()
        state = PeopleState(made=1, open=() if over else (asked,), closed=over)

        receipt = decisions.find_receipt(state, decision())

        assert receipt is not None
        assert (receipt.status, receipt.message) == told

    def test_a_rejection_of_all_that_comes_again_is_answered_with_what_it_did(self) -> None:
        every = Decision(request="*", choice="reject", by="ann@example.com")
        asked = taken(request(1, need(quorum=2)), decision(), 0)
        over = tuple(decisions.close_request(one, "rejected", "why", by_every=every) for one in (asked, request(2)))
        state = PeopleState(made=2, closed=over)

        again, before = decisions.find_receipt(state, every), decisions.find_receipt(state, decision())

        assert again is not None
        assert before is not None
        assert (again.status, again.message) == ("rejected", "2 requests rejected")
        assert before.status == "recorded"
        assert decisions.find_receipt(state, every.model_copy(update={"by": "bob"})) is None
        # What is open now was not meant before.
        assert decisions.find_receipt(state.model_copy(update={"open": (request(3),)}), every) is None

    def test_an_approval_of_other_arguments_does_not_count_any_more(self) -> None:
        """Whoever sends it again must hear that the call was changed, and not that their approval counts."""
        first = taken(request(1, need(quorum=2)), decision(by="bob"), 0)
        edit = decision(value={"order": 2})
        changed = taken(decisions.replace_call(first, EDIT, OTHER, first.needs), edit, 0, edited=EDIT)
        state = PeopleState(made=1, open=(changed,))

        assert not decisions.is_repeated(state, decision(by="bob"))
        assert decisions.is_repeated(state, edit)
        assert [one.by for one in decisions.list_counting(changed)] == ["ann@example.com"]
        assert decisions.close_request(changed, "approved", "why").by == ("ann@example.com",)

    def test_a_rejection_outlives_an_edit(self) -> None:
        first = taken(request(1, need(quorum=2, rejections=2)), decision(by="bob", choice="reject"), 0)
        changed = taken(
            decisions.replace_call(first, EDIT, OTHER, first.needs), decision(value={"order": 2}), 0, edited=EDIT
        )

        assert changed.needs[0].rejected_by == ("bob",)
        assert decisions.has_decided(changed, "bob")
        assert decisions.is_repeated(PeopleState(open=(changed,)), decision(by="bob", choice="reject"))


class TestOutcomes:
    @pytest.mark.parametrize(
        ("needs", "outcome", "missing"),
        [
            ((need(),), None, "1 of finance"),
            ((need(approved_by=("a",)),), "approved", ""),
            ((need(quorum=2, approved_by=("a",)),), None, "1 of finance"),
            ((need(quorum=2, approved_by=("a", "b")),), "approved", ""),
            ((need(approved_by=("a",)), need(groups=("law",), users=("zoe",))), None, "1 of law, zoe"),
            ((need(), need(groups=(), quorum=3)), None, "1 of finance and 3 of anyone"),
            ((need(rejected_by=("a",)),), "rejected", "1 of finance"),
            ((need(rejections=2, rejected_by=("a",)),), None, "1 of finance"),
            ((need(rejections=2, rejected_by=("a", "b")),), "rejected", "1 of finance"),
            ((need(approved_by=("a",)), need(rejected_by=("b",))), "rejected", "1 of finance"),
        ],
    )
    def test_what_decisions_come_to(self, needs: Sequence[Need], outcome: str | None, missing: str) -> None:
        asked = request(1, *needs)

        assert decisions.find_outcome(asked) == outcome
        assert decisions.describe_missing(asked) == missing

    def test_what_is_recorded_of_a_decision(self) -> None:
        asked = taken(request(), decision(by="ann", comment="fine"), 0, person="ann@example.com", signed=True)

        assert asked.needs[0].approved_by == ("ann@example.com",)
        assert asked.decisions == (
            Recorded(
                by="ann@example.com",
                choice="approve",
                comment="fine",
                at=NOW,
                signed=True,
                key=decisions.compute_key(decision(by="ann")),
            ),
        )

    def test_an_edit_undoes_approvals_and_adds_needs_but_takes_none_away(self) -> None:
        asked = request(1, need(approved_by=("bob",)), need(rule="law", groups=("law",)))
        wanted = (need(rule="limit", groups=("board",)), need(quorum=5))

        needs = decisions.needs_after_edit(asked, wanted)
        changed = decisions.replace_call(asked, EDIT, OTHER, needs)

        assert [one.rule for one in changed.needs] == ["asked", "law", "limit"]
        assert [one.approved_by for one in changed.needs] == [(), (), ()]
        assert changed.needs[0].quorum == 1
        assert (changed.digest, changed.edited) == (OTHER, EDIT)


class TestClock:
    @pytest.mark.parametrize(
        ("needs", "due"),
        [
            ((need(),), NOW + DAY),
            ((need(remind_at=NOW + HOUR),), NOW + HOUR),
            ((need(), need(expires_at=NOW + HOUR)), NOW + HOUR),
            ((need(), need(expires_at=NOW + HOUR, approved_by=("a",))), NOW + DAY),
            ((need(approved_by=("a",)),), None),
        ],
    )
    def test_what_is_due_first(self, needs: Sequence[Need], due: datetime | None) -> None:
        assert decisions.find_next_due([request(1, *needs)]) == due

    @pytest.mark.parametrize(
        ("hours", "following"),
        [(0.5, 1), (1, 2), (1.5, 2), (7.2, 8), (22.9, 23), (23, None), (30, None)],
    )
    def test_reminders_that_were_missed_are_not_made_up_for(self, hours: float, following: float | None) -> None:
        asked = need(remind=HOUR, remind_at=NOW + HOUR)

        later = decisions.schedule_reminder(asked, NOW + hours * HOUR)

        assert later.remind_at == (None if following is None else NOW + following * HOUR)

    @pytest.mark.parametrize(
        ("length", "told"),
        [
            (timedelta(seconds=90), "90s"),
            (timedelta(minutes=15), "15m"),
            (timedelta(hours=24), "24h"),
            (timedelta(days=3), "3d"),
            (timedelta(seconds=3601), "3601s"),
            (timedelta(milliseconds=500), "0.5s"),
            (timedelta(seconds=90, milliseconds=250), "90.25s"),
            (timedelta(microseconds=1), "0.000001s"),
        ],
    )
    def test_lengths_in_words(self, length: timedelta, told: str) -> None:
        assert decisions.format_duration(length) == told


ABOUT: dict[str, Any] = {
    "run": "run-1",
    "request": "r1",
    "kind": "approval",
    "tool": "pay",
    "arguments": {"order": 1},
    "agent": FIRST,
}


class TestDigests:
    @pytest.mark.parametrize(
        "change",
        [
            {"run": "run-2"},
            {"request": "r2"},
            {"kind": "question"},
            {"tool": "send"},
            {"tool": None},
            {"arguments": {"order": 2}},
            {"arguments": {"order": "1"}},
            {"arguments": {"order": 1, "amount": None}},
            {"agent": SECOND},
        ],
    )
    def test_a_digest_fits_one_call_of_one_request_of_one_run(self, change: dict[str, Any]) -> None:
        assert self.digest({**ABOUT, **change}) != self.digest(ABOUT)

    def test_the_order_of_arguments_does_not_matter(self) -> None:
        one = self.digest({**ABOUT, "arguments": {"a": 1, "b": {"c": 2, "d": 3}}})

        assert self.digest({**ABOUT, "arguments": {"b": {"d": 3, "c": 2}, "a": 1}}) == one

    @staticmethod
    def digest(about: dict[str, Any]) -> str:
        run, of_request = about["run"], about["request"]
        rest = {name: value for name, value in about.items() if name not in {"run", "request"}}
        return decisions.compute_digest(run, of_request, **rest)


PEOPLE = ("ann", "bob", "cleo", "dan", "eve")
SPELT = st.sampled_from([*PEOPLE, *map(str.upper, PEOPLE)])
WANTED = st.builds(
    need,
    rule=st.sampled_from(["one", "two"]),
    users=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4, unique=True).map(tuple),
    groups=st.just(()),
    quorum=st.integers(1, 3),
    rejections=st.integers(1, 2),
)
SAID = st.lists(st.tuples(SPELT, st.sampled_from(["approve", "approve", "reject", "edit"]), st.booleans()), max_size=25)


class Story:
    """One request and all that was said to it, taken in the way a run does."""

    def __init__(self, needs: Sequence[Need], requester: str) -> None:
        self.state = PeopleState(made=1, open=(request(1, *needs),))
        self.requester = requester
        self.outcomes: list[str] = []
        self.before: list[Decision] = []

    @property
    def asked(self) -> Request:
        return self.state.open[0]

    def say(self, by: str, choice: str, is_stale: bool) -> None:
        value = {"order": len(self.before) + 2} if choice == "edit" else None
        digest = FIRST if is_stale else self.asked.digest
        said = decision(by=by, choice="approve" if choice == "edit" else choice, digest=digest, value=value)
        self.before.append(said)
        self.take(said)

    def take(self, said: Decision) -> None:
        if decisions.is_repeated(self.state, said) or self.outcomes:
            return
        person = normalize_name(said.by or "")
        mine = tuple(place for place, one in enumerate(self.asked.needs) if person in one.users)
        if decisions.find_refusal(self.state, said, NOW, self.requester) is not None or not mine:
            return
        asked, edit = self.asked, None
        if said.value is not None:
            edit = EDIT.model_copy(update={"by": person})
            digest = decisions.compute_key(said)
            asked = decisions.replace_call(asked, edit, digest, decisions.needs_after_edit(asked, ()))
        asked = taken(asked, said, *mine, person=person, edited=edit)
        self.state = PeopleState(made=1, open=(asked,))
        if (outcome := decisions.find_outcome(asked)) is not None:
            self.outcomes.append(outcome)


@examples(200)
@given(needs=st.lists(WANTED, min_size=1, max_size=2, unique_by=lambda one: one.rule), said=SAID)
def test_an_approval_has_distinct_entitled_people_for_every_need(needs: list[Need], said: list[Any]) -> None:
    story = Story(needs, requester="eve")

    for by, choice, is_stale in said:
        story.say(by, choice, is_stale)
        for one in story.asked.needs:
            assert len(set(one.approved_by)) == len(one.approved_by)
            assert set(one.approved_by) <= set(one.users) - {"eve"}
            assert not set(one.approved_by) & set(one.rejected_by)

    approving = {one.by for one in decisions.list_counting(story.asked) if one.choice == "approve"}
    if story.outcomes == ["approved"]:
        assert all(len(one.approved_by) >= one.quorum for one in story.asked.needs)
        assert approving == {name for one in story.asked.needs for name in one.approved_by}
        assert not any(len(one.rejected_by) >= one.rejections for one in story.asked.needs)
    elif not story.outcomes:
        assert any(not one.is_met for one in story.asked.needs)


@examples(100)
@given(needs=st.lists(WANTED, min_size=1, max_size=2, unique_by=lambda one: one.rule), said=SAID)
def test_what_is_decided_stays_so_and_saying_it_again_changes_nothing(needs: list[Need], said: list[Any]) -> None:
    story = Story(needs, requester="eve")
    for by, choice, is_stale in said:
        story.say(by, choice, is_stale)
    state, outcomes = story.state, list(story.outcomes)

    story.outcomes.clear()
    for again in story.before:
        if decisions.is_repeated(state, again):
            story.take(again)

    assert story.state == state
    if outcomes == ["rejected"]:
        assert decisions.find_outcome(state.open[0]) == "rejected"


class TestTake:
    """One decision that was checked, and what came of it."""

    @pytest.mark.parametrize(
        ("asked", "said", "checked", "outcome", "reason"),
        [
            (request(), {}, {"needs": (0,), "person": "Ann"}, "approved", "Ann approved it"),
            (request(), {"choice": "reject"}, {"needs": (0,), "person": "Ann"}, "rejected", "Ann rejected it"),
            (
                request(1, need(quorum=2)), {}, {"needs": (0,), "person": "Ann"},
                None, "Ann chose approve on r1; it still needs 1 of finance",
            ),
            (
                request(1, need(), need(groups=("legal",))), {}, {"needs": (1,)},
                None, "ann@example.com chose approve on r1; it still needs 1 of finance",
            ),
            (
                request(1, need(rejections=2)), {"choice": "reject"}, {"needs": (0,)},
                None, "ann@example.com chose reject on r1; it still needs 1 of finance",
            ),
        ],
    )  # fmt: skip
    def test_an_approval(
        self, asked: Request, said: dict[str, Any], checked: dict[str, Any], outcome: str | None, reason: str
    ) -> None:
        told = decision(**said)

        found = decisions.take(asked, told, Checked(**checked), NOW, beside=1)

        assert (found.outcome, found.reason, found.by, found.answer) == (outcome, reason, "", None)
        assert found.request == decisions.count_decision(asked, told, Checked(**checked), NOW)

    @pytest.mark.parametrize(
        ("kind", "choice", "outcome", "reason"),
        [
            ("question", "answer", "answered", "Ann answered"),
            ("question", "reject", "rejected", "Ann rejected it"),
            ("escalation", "retry", "settled", "Ann chose retry"),
            ("outcome", "not_happened", "settled", "Ann chose not happened"),
        ],
    )
    def test_one_word_is_enough_for_what_is_no_approval(
        self, kind: str, choice: str, outcome: str, reason: str
    ) -> None:
        asked = request(1, need(quorum=2), kind=kind, choices=(choice,))
        answer = ToolResult(text="yes") if choice == "answer" else None

        found = decisions.take(asked, decision(choice=choice), Checked(person="Ann", answer=answer), NOW, beside=1)

        assert (found.outcome, found.reason, found.by, found.answer) == (outcome, reason, "Ann", answer)

    def test_several_who_approved_are_named_together(self) -> None:
        asked = taken(request(1, need(quorum=2)), decision(), 0, person="Ann")

        found = decisions.take(asked, decision(by="bob"), Checked(needs=(0,), person="Bob"), NOW, beside=1)

        assert (found.outcome, found.reason) == ("approved", "Ann and Bob approved it")

    def test_a_person_counts_once_under_all_names(self) -> None:
        asked = taken(request(1, need(quorum=2)), decision(), 0, person="Ann")

        assert decisions.repeats(asked, decision(by="a@example.com"), Checked(person="ann")) == (
            "by: 'a@example.com' has decided on r1 already, as 'ann'"
        )
        assert decisions.repeats(asked, decision(by="bob"), Checked(person="Bob")) is None
