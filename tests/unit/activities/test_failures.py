"""Waits that another side asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mandate.activities.failures import retry_after


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
    ],
)
def test_wait_is_that_of_the_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_date_is_a_wait_from_now() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)

    wait = retry_after({"retry-after": format_datetime(at, usegmt=True)})

    assert wait is not None
    assert 85 < wait <= 90
