"""Limits on what a run is asked and told in one piece."""

import pytest
from pydantic import JsonValue

from mandate.workers.converter import SlimJsonConverter
from mandate.workflows.rules.input_size import INPUT_BYTES, find_excess, find_value_excess, measure

LARGE = (
    "bytes as JSON, and a run is asked at most 2,000,000; put it into a file that a tool of the agent reads, and ask "
    "for that"
)


@pytest.mark.parametrize(
    "value",
    ["plain", 'quoted "x" \\ \n', "é and 😀", "hidden \u202e turn \x7f", {"list": [1, 2.5, None, True], "ü": "ö"}],
)
def test_size_is_that_of_the_payload(value: JsonValue) -> None:
    payload = SlimJsonConverter().to_payload(value)

    assert payload is not None
    assert measure(value) == len(payload.data)


@pytest.mark.parametrize(
    ("asked", "excess"),
    [
        ("x" * (INPUT_BYTES - 2), None),
        (
            "x" * (INPUT_BYTES - 1),
            f"has 2,000,001 {LARGE}",
        ),
        # A character that hides takes six bytes, and two quotes stand around all.
        ("\u200b" * 333_333, None),
        (
            {"text": "\u200b" * 333_333},
            f"has 2,000,009 {LARGE}",
        ),
    ],
)
def test_what_is_asked_takes_so_many_bytes(asked: JsonValue, excess: str | None) -> None:
    assert find_excess(asked) == excess


def test_value_of_a_decision_takes_so_many_bytes() -> None:
    assert find_value_excess("x" * 65_534) is None
    assert find_value_excess("x" * 65_535) == (
        "has 65,537 bytes as JSON; at most 65,536 are allowed; put it into a file that a tool of the agent reads, and "
        "name that file"
    )
