"""Waits that another side asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.failures import LONGEST_WAIT_SECONDS, retry_after


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
