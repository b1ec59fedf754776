"""When failures are for a person to settle, and which calls are not made again."""

import re
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.state import RecoveryState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import recovery

TOOLS = ("pay", "send", "look")
OTHERS = (recovery.FINAL, recovery.TURNS, recovery.SAME, recovery.MODEL)
EMPTY = RecoveryState()


def call(number: int) -> Digest:
    return recovery.digest_call("pay", {"order": number})


def after(*steps: str) -> RecoveryState:
    """`pay!` fails, `pay` succeeds."""
    state = EMPTY
    for step in steps:
        if step.endswith("!"):
            state = recovery.count_failure(state, step[:-1], step)
        else:
            state = recovery.count_success(state, step, changed_world=True)
    return state


@pytest.mark.parametrize(
    ("steps", "attempts", "name"),
    [
        ((), 1, None),
        (("pay!",), 1, "pay"),
        (("pay!", "pay!"), 3, None),
        (("pay!", "pay!", "pay!"), 3, "pay"),
        # counted since the last success of that tool: 1 + 2
        (("pay!", "pay!", "pay", "pay!", "pay!"), 3, None),
        # another tool's success changes nothing: 2 + 1
        (("pay!", "pay!", "send", "pay!"), 3, "pay"),
        # each tool counts for itself: 2, 2
        (("pay!", "send!", "pay!", "send!"), 3, None),
        (("*turns!", "pay!", "*turns!", "send!", "*turns!"), 3, "*turns"),
        # the first that was in trouble is asked about
        (("send!", "pay!", "pay!", "send!"), 2, "send"),
    ],
)
def test_what_is_used_up(steps: tuple[str, ...], attempts: int, name: str | None) -> None:
    assert recovery.find_exhausted(after(*steps), attempts) == name


@given(
    st.lists(st.tuples(st.sampled_from(TOOLS + OTHERS), st.booleans())),
    st.integers(min_value=1, max_value=20),
)
def test_a_name_is_used_up_after_so_many_failures_since_its_last_success(
    events: list[tuple[str, bool]], attempts: int
) -> None:
    state, failures = EMPTY, Counter[str]()
    for name, worked in events:
        if worked:
            state = recovery.count_success(state, name, changed_world=False)
            failures.pop(name, None)
        else:
            state = recovery.count_failure(state, name, "why")
            failures[name] += 1

    assert {name: trouble.failures for name, trouble in state.troubles.items()} == dict(failures)
    used = {name for name, count in failures.items() if count >= attempts}
    found = recovery.find_exhausted(state, attempts)
    assert (found in used) if used else (found is None)


@given(st.lists(st.tuples(st.sampled_from(["fails", "pays", "reads"]), st.integers(0, 5)), max_size=40))
def test_a_call_that_failed_is_not_made_again_until_the_world_has_changed(
    events: list[tuple[Literal["fails", "pays", "reads"], int]],
) -> None:
    state, barred = EMPTY, set[Digest]()
    for what, number in events:
        match what:
            case "fails":
                state = recovery.count_failure(state, "pay", "why", call=call(number))
                barred.add(call(number))
            case "pays":
                state = recovery.count_success(state, "pay", changed_world=True)
                barred.clear()
            case "reads":
                state = recovery.count_success(state, "look", changed_world=False)

    assert set(state.failed) == barred


def test_a_call_that_is_doubted_may_be_made_once_more_until_the_world_has_changed() -> None:
    failed = recovery.count_failure(EMPTY, "pay", "busy", call=call(1), doubted=True)
    again = recovery.count_failure(failed, "pay", "busy", call=call(1))
    changed = recovery.count_success(again, "send", changed_world=True)

    states = (EMPTY, failed, again, changed)
    assert [recovery.is_doubted(state, "pay", {"order": 1}) for state in states] == [False, True, True, False]
    assert [recovery.find_failure(state, call(1)) for state in states] == [None, None, "busy", None]
    assert again.troubles["pay"].failures == 2


@pytest.mark.parametrize("name", [*TOOLS, *OTHERS])
def test_what_a_run_remembers_is_bounded(name: str) -> None:
    state = EMPTY
    for number in range(200):
        state = recovery.count_failure(state, name, f"{number} {'x' * 1000}", call=call(number))
        state, _ = recovery.count_result(state, call(number), ToolResult(text="same"))

    assert list(state.failed) == [call(number) for number in range(136, 200)]
    assert len(state.same) == 64
    trouble = state.troubles[name]
    assert trouble.failures == 200
    assert [line.split()[0] for line in trouble.lines] == [str(number) for number in range(190, 200)]
    assert max(map(len, trouble.lines)) == 300


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_a_call_counts_as_the_same_with_the_same_result_only(events: list[tuple[int, int]]) -> None:
    state, times = EMPTY, Counter[tuple[int, int]]()
    for number, result in events:
        times[number, result] += 1

        state, seen = recovery.count_result(state, call(number), ToolResult(text=str(result)))

        assert seen == times[number, result]


def test_arguments_in_another_order_make_the_same_call() -> None:
    first = recovery.digest_call("pay", {"order": 1, "amount": 2.5})

    assert first == recovery.digest_call("pay", {"amount": 2.5, "order": 1})
    assert first != recovery.digest_call("pay", {"order": 1, "amount": 2.6})
    assert first != recovery.digest_call("send", {"order": 1, "amount": 2.5})


@pytest.mark.parametrize("name", OTHERS)
def test_no_tool_is_called_as_what_else_goes_wrong(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) is None


@pytest.mark.parametrize(
    ("name", "failures", "words"),
    [
        (recovery.FINAL, 1, "the final answer could not be taken once"),
        (recovery.FINAL, 3, "the final answer could not be taken 3 times"),
        (recovery.TURNS, 3, "3 turns in a row had no call that worked"),
        (recovery.SAME, 3, "the agent makes the same call again and again, with the same result"),
        (recovery.MODEL, 1, "no model of the route gives an answer"),
        ("pay", 3, "'pay' failed 3 times"),
        ("final", 2, "'final' failed 2 times"),
    ],
)
def test_why_a_person_is_asked(name: str, failures: int, words: str) -> None:
    assert recovery.describe(name, failures) == words


def test_reason_of_a_failed_call_is_whole_beside_its_line() -> None:
    line, reason = "send " + "x" * 95, "r" * 300

    state = recovery.count_failure(EMPTY, "send", reason, of=line, call=call(1))

    assert state.troubles["send"].lines == (f"{line}: {reason}",)
    assert state.failed == {call(1): f"{line}: {'r' * (300 - 103)}…"}


@pytest.mark.parametrize(
    ("about", "has_result", "answer", "can_be"),
    [
        ("send", (False, False), None, False),
        ("send", (True, False), None, True),
        (recovery.TURNS, (False,), None, False),
        (recovery.TURNS, (False, True), None, True),
        (recovery.SAME, (False,), None, True),
        (recovery.MODEL, (True,), "an answer", False),
        (recovery.FINAL, (False,), "an answer", True),
        (recovery.FINAL, (False,), " ", False),
        (recovery.FINAL, (False,), None, False),
    ],
)
def test_what_failed_can_be_accepted_where_there_is_something(
    about: str, has_result: tuple[bool, ...], answer: str | None, can_be: bool
) -> None:
    state = EMPTY
    for has in has_result:
        state = recovery.count_failure(state, about, "why", has_result=has)

    assert recovery.can_be_accepted(about, state.troubles[about], answer) is can_be


def test_other_failures_are_told_with_their_reasons() -> None:
    state = after("pay!", "send!", "send!", "*turns!")

    assert recovery.list_others(state, "pay") == [
        "'send' failed 2 times: send!",
        "'send' failed 2 times: send!",
        "a turn had no call that worked: *turns!",
    ]
    assert recovery.list_others(after("pay!"), "pay") == []
