"""Numbers with their nouns, and seconds."""

from datetime import timedelta

import pytest

from mandate.workflows.rules import quantities


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (1000, "1,000 steps"), (-1, "-1 steps")]
)
def test_noun_has_an_s_unless_there_is_one(number: int, text: str) -> None:
    assert quantities.count_noun(number, "step") == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 bytes"), (1, "1 byte"), (70000, "70000 bytes")])
def test_bytes_are_written_without_commas(number: int, text: str) -> None:
    assert quantities.count_bytes(number) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 times"), (1, "once"), (2, "2 times"), (1500, "1,500 times")])
def test_once_is_a_word(number: int, text: str) -> None:
    assert quantities.count_times(number) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0.1 + 0.2, "0.3 s"),
        (0.0, "0 s"),
        (0.0004, "0 s"),
        (0.125, "0.125 s"),
        (0.9996, "1 s"),
        (1.2345678, "1.23 s"),
        (1.25, "1.25 s"),
        (10, "10 s"),
        (100.0, "100 s"),
        (1_234_567.0, "1234567 s"),
        (timedelta(minutes=1, milliseconds=500), "60.5 s"),
    ],
)
def test_seconds_have_few_decimals(length: timedelta | float, text: str) -> None:
    assert quantities.write_seconds(length) == text
