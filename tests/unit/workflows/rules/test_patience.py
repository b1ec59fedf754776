"""How long a call is repeated, how far apart, and who waits."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.rules import patience

SECOND = timedelta(seconds=1)


def tool(effect: Effect, **settings: object) -> Tool:
    return Tool.model_validate({"name": "act", "source": "python", "effect": effect, **settings})


@pytest.mark.parametrize(
    ("effect", "given_patience", "whole"),
    [
        (Effect.READ, None, 60 * SECOND),
        (Effect.IDEMPOTENT, None, 600 * SECOND),
        (Effect.KEYED, None, 600 * SECOND),
        (Effect.KEYED, 5 * SECOND, 5 * SECOND),
        (Effect.ONCE, None, None),
        (Effect.ONCE, 5 * SECOND, None),
    ],
)
def test_patience_by_effect(effect: Effect, given_patience: timedelta | None, whole: timedelta | None) -> None:
    assert patience.find_patience(tool(effect, patience=given_patience)) == whole


@pytest.mark.parametrize(
    ("source", "effect", "given_patience", "second"),
    [
        ("mcp", Effect.READ, None, 60 * SECOND),
        # A minute too: most of what a server says has failed does not mend itself.
        ("mcp", Effect.IDEMPOTENT, None, 60 * SECOND),
        ("mcp", Effect.KEYED, None, 60 * SECOND),
        ("mcp", Effect.IDEMPOTENT, 5 * SECOND, 5 * SECOND),
        ("mcp", Effect.ONCE, None, None),
        ("python", Effect.READ, None, None),
        ("http", Effect.READ, None, None),
        ("activity", Effect.READ, None, None),
    ],
)
def test_only_calls_of_mcp_servers_have_a_second_patience(
    source: str, effect: Effect, given_patience: timedelta | None, second: timedelta | None
) -> None:
    its = tool(effect, source=source, patience=given_patience)

    assert patience.find_second_patience(its) == second


@pytest.mark.parametrize(
    ("failed", "asked", "seconds"),
    [
        # 1, 2, 4, 8, 16, 30, 30 … apart
        (1, None, 1.0),
        (2, None, 2.0),
        (3, None, 4.0),
        (5, None, 16.0),
        (6, None, 30.0),
        (1000, None, 30.0),
        # What the other side asks for is waited at least.
        (1, 7.5, 7.5),
        (4, 2.0, 8.0),
        (1, 0.0, 1.0),
        (9, 120.0, 120.0),
    ],
)
def test_waits_double_up_to_half_a_minute(failed: int, asked: float | None, seconds: float) -> None:
    assert patience.compute_wait(failed, asked) == seconds


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e6))
def test_no_wait_is_shorter_than_asked_for_or_than_the_one_before(failed: int, asked: float | None) -> None:
    wait = patience.compute_wait(failed, asked)

    assert wait >= (asked or 0.0)
    assert patience.compute_wait(failed + 1, asked) >= wait


@pytest.mark.parametrize(
    ("retries", "failed", "may"),
    [(None, 500, True), (2, 2, True), (2, 3, False), (0, 1, False)],
)
def test_retries_are_an_upper_bound(retries: int | None, failed: int, may: bool) -> None:
    assert patience.may_repeat(tool(Effect.READ, retries=retries), failed) is may
    assert not patience.may_repeat(tool(Effect.ONCE, retries=retries), failed)


@pytest.mark.parametrize(
    ("failed", "wait", "is_left"), [(1, 1.0, True), (3, 4.0, True), (4, 8.0, False), (1, 6.0, False)]
)
def test_the_run_waits_from_the_fourth_failure_on(failed: int, wait: float, is_left: bool) -> None:
    assert patience.is_left_to_temporal(failed, wait) is is_left


def test_a_wait_reads_as_one_and_other_texts_do_not() -> None:
    line = patience.describe_wait("create_ticket", 4, "HTTP 503", 8.0)

    assert line == "create_ticket: attempt 4, HTTP 503, again in 8 s"
    assert patience.is_wait(line)
    assert not patience.is_wait("until 12:30")
    assert not patience.is_wait("create_ticket: attempt 4")
