"""Waits that another side asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.failures import ToolError, make_tool_failure, retry_after
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect


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
        ({"retry-after": "Mon, 02 Nov 2020 09:00:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 02 Nov 99999999 09:00:00 GMT"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 9999 07:28:00 GMT"}, None),
        ({"retry-after": "Wednesday, 21-Oct-15 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed Oct 21 07:28:00 2015"}, 0.0),
        ({"retry-after": "2015-10-21T07:28:00Z"}, 0.0),
        ({"retry-after": "99999-10-21T07:28:00Z"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +9999"}, None),
        ({"retry-after": "5, 7"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "120", "retry-after-ms": "Wed, 21 Oct 99999 07:28:00 GMT"}, 120.0),
    ],
)
def test_wait_is_that_of_the_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_date_is_a_wait_from_now() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)

    wait = retry_after({"retry-after": format_datetime(at, usegmt=True)})

    assert wait is not None
    assert 85 < wait <= 90


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
