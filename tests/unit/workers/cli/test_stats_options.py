"""Moments that `mandate stats --since` takes."""

from datetime import UTC, datetime

import pytest

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.stats import parse_since

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", datetime(2026, 11, 29, 12, 0, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 23, 12, 0, tzinfo=UTC)),
        ("1h30m", datetime(2026, 11, 30, 10, 30, tzinfo=UTC)),
        ("2026-11-30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2026-11-30T09:00", datetime(2026, 11, 30, 9, 0, tzinfo=UTC)),
        ("2026-11-30T09:00+02:00", datetime(2026, 11, 30, 7, 0, tzinfo=UTC)),
    ],
)
def test_a_moment_is_so_long_ago_or_a_time(text: str, moment: datetime) -> None:
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "24", "-1h", "P1Y", "99999999d"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(CliError) as refused:
        parse_since(text, NOW)

    assert str(refused.value) == (
        f"--since {text!r} is neither a duration such as 24h or 7d nor a time such as 2026-11-30T09:00"
    )


def test_the_future_is_refused() -> None:
    with pytest.raises(CliError, match="'2026-12-01' is in the future; it is 2026-11-30 12:00:00 UTC now"):
        parse_since("2026-12-01", NOW)
