"""Waits that another side asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.failures import AttemptCount, make_patient_failure, make_tool_failure
from mandate.activities.retry_after import LONGEST_WAIT_SECONDS, retry_after
from mandate.activities.tool_error import ToolError
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, Tool

UNKNOWN, NOT_SENT, NOT_DONE = Outcome.UNKNOWN, Outcome.NOT_SENT, Outcome.NOT_DONE


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "5", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "5", "retry-after-ms": "soon"}, 5.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "2678400"}, None),  # 31 days
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after": ""}, None),
        ({"retry-after": "5, 10"}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, None),
        ({"retry-after": "Mon, 32 Nov 2026 09:00:00 GMT"}, None),
        ({"retry-after": "Mon, 02 Nov 2020 09:00:00"}, 0.0),
        ({"retry-after": "Mon, 02 Nov 2020 09:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 02 Nov 99999999 09:00:00 GMT"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Wed, 21 Oct 9999 07:28:00 GMT"}, None),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed Oct 21 07:28:00 2015"}, 0.0),
        ({"retry-after": "2015-10-21T07:28:00Z"}, 0.0),
        ({"retry-after": "99999-10-21T07:28:00Z"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +9999"}, None),
        ({"retry-after": "5, 7"}, None),
        ({"retry-after": "120", "retry-after-ms": "Wed, 21 Oct 99999 07:28:00 GMT"}, 120.0),
    ],
)
def test_wait_is_that_of_the_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r"-?[\d ,:.+-]{0,30}", fullmatch=True),
        st.from_regex(
            r"\w{3}, \d{1,3} (Oct|Feb|Xxx) -?\d{1,9} \d{1,3}:\d{2}(:\d{1,3})? ?(GMT|[+-]\d{1,7}|EST)?", fullmatch=True
        ),
    ),
    st.sampled_from(["retry-after", "retry-after-ms"]),
)
def test_no_value_of_a_header_is_a_fault(value: str, name: str) -> None:
    wait = retry_after({name: value})

    assert wait is None or 0 <= wait < LONGEST_WAIT_SECONDS


def test_date_is_a_wait_from_now() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)

    wait = retry_after({"retry-after": format_datetime(at, usegmt=True)})

    assert wait is not None
    assert 85 < wait <= 90


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("effect", "error", "failed", "rest", "is_of_temporal", "again_in", "is_passing"),
    [
        # The first waits are Temporal's: 1, 2, 4 s.
        (Effect.KEYED, ToolError(UNKNOWN, "cut"), 1, MINUTE, 1.0, None, True),
        (Effect.KEYED, ToolError(UNKNOWN, "cut"), 3, MINUTE, 4.0, None, True),
        # Then the run's own.
        (Effect.KEYED, ToolError(UNKNOWN, "cut"), 4, MINUTE, None, 8.0, True),
        (Effect.READ, ToolError(NOT_SENT, "down"), 7, MINUTE, None, 30.0, True),
        # No attempt begins when patience is over.
        (Effect.READ, ToolError(NOT_SENT, "down"), 4, timedelta(seconds=7), None, None, True),
        (Effect.READ, ToolError(NOT_SENT, "down"), 1, timedelta(0), None, None, True),
        # What the other side asks for is waited by the run if it is long, and not at all beyond patience.
        (Effect.KEYED, ToolError(NOT_DONE, "busy", retry_after=3.0), 1, MINUTE, 3.0, None, True),
        (Effect.KEYED, ToolError(NOT_DONE, "busy", retry_after=40.0), 1, MINUTE, None, 40.0, True),
        (Effect.KEYED, ToolError(NOT_DONE, "busy", retry_after=400.0), 1, MINUTE, None, None, True),
        # A definite no.
        (Effect.KEYED, ToolError(NOT_DONE, "no"), 1, MINUTE, None, None, False),
        # What waiting does not mend: three attempts, close together.
        (Effect.READ, ToolError(UNKNOWN, "ValueError", lasting=True), 1, MINUTE, 0.2, None, False),
        (Effect.READ, ToolError(UNKNOWN, "ValueError", lasting=True), 2, MINUTE, 0.8, None, False),
        (Effect.READ, ToolError(UNKNOWN, "ValueError", lasting=True), 3, MINUTE, None, None, False),
        # Once is once; that nothing was sent is not the agent's doing.
        (Effect.ONCE, ToolError(UNKNOWN, "cut"), 1, None, None, None, False),
        (Effect.ONCE, ToolError(NOT_SENT, "down"), 1, None, None, None, True),
    ],
)
def test_who_repeats_a_call_and_when(
    effect: Effect,
    error: ToolError,
    failed: int,
    rest: timedelta | None,
    is_of_temporal: float | None,
    again_in: float | None,
    is_passing: bool,
) -> None:
    tool = Tool(name="act", source="http", effect=effect)

    failure = make_patient_failure(error, AttemptCount(tool, failed, failed, rest), sent_before=False)
    told = failure.details[0]

    assert failure.non_retryable is (is_of_temporal is None)
    assert is_of_temporal is None or failure.next_retry_delay == timedelta(seconds=is_of_temporal)
    assert (told.again_in, told.passing, told.outcome, told.failed) == (again_in, is_passing, error.outcome, failed)


def test_tools_own_bound_on_attempts_holds() -> None:
    tool = Tool(name="act", source="http", effect=Effect.KEYED, retries=1)

    repeated = make_patient_failure(ToolError(UNKNOWN, "cut"), AttemptCount(tool, 1, 1, MINUTE), sent_before=False)
    last = make_patient_failure(ToolError(UNKNOWN, "cut"), AttemptCount(tool, 2, 2, MINUTE), sent_before=False)

    assert (repeated.non_retryable, last.non_retryable, last.details[0].again_in) == (False, True, None)


@given(st.text() | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,7} \d\d:\d\d:\d\d [-+A-Z0-9]{1,6}", fullmatch=True))
def test_every_wait_is_one_that_a_timer_can_have(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait = retry_after({name: value})
        assert wait is None or timedelta(seconds=wait) < timedelta(days=365 * 40)


@pytest.mark.parametrize(("asked", "waits"), [(7.0, 7), (300.0, 300), (86_400.0, 300), (4.7e8, 300)])
def test_tool_waits_five_minutes_at_most_however_long_it_is_asked_to(asked: float, waits: float) -> None:
    error = ToolError(Outcome.NOT_DONE, "busy", retry_after=asked)

    failure = make_tool_failure(error, Effect.KEYED, 1, sent_before=False)

    assert failure.next_retry_delay == timedelta(seconds=waits)
