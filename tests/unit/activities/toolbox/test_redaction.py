"""Sensitive arguments are struck out in whatever form they come back, before anything is cut."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.tool import _strike_error
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.redaction import SecretValues, strike_sensitive
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules.plain_text import shorten

TOOL = Tool(name="charge", source="http", sensitive=("card",))
CARD = "4111-2222-3333"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (CARD, f"no money on {CARD}"),
        (f" {CARD} ", f"no money on {CARD}"),
        ("Abc-Def-9", "no money on ABC-DEF-9"),
        ('a "b"\nc', json.dumps({"card": 'a "b"\nc'})),
        ("4111 2222/3333", f"GET /c/{quote('4111 2222/3333', safe='')}"),
        (12345678.0, "no card 12345678"),
        (12345678, "no card 12345678"),
        ({"number": CARD}, f"no money on {CARD}"),
        ("123", "the PIN 123 is wrong"),
    ],
)
def test_value_is_struck_out_in_its_forms(value: Any, said: str) -> None:
    told = strike_sensitive(said, TOOL, {"card": value})

    assert "***" in told
    for text in ("4111", "Abc", "ABC", '\\"b\\"', "12345678", "123 "):
        assert text not in told


def test_short_value_is_no_part_of_a_word() -> None:
    assert strike_sensitive("order 1234 and 123", TOOL, {"card": "123"}) == "order 1234 and ***"


def test_reason_is_cut_after_the_value_is_struck_out() -> None:
    """A value that stands at the end of what is shown would leave its beginning there."""
    error = ToolError(Outcome.NOT_DONE, f"{'x' * 290}{CARD}")

    told = _strike_error(error, TOOL, {"card": CARD})

    assert CARD[:4] in shorten(f"{'x' * 290}{CARD}")
    assert CARD[:4] not in told.reason


@given(st.text(min_size=4).filter(lambda text: text.strip() == text), st.text(alphabet="xyz ", max_size=20))
def test_no_value_is_left(value: str, around: str) -> None:
    told = strike_sensitive(f"{around}{value}{around}", TOOL, {"card": value})

    assert value not in told or value in "***"


SECRET_TEXT = 'p"w &42\nBEGIN KEY LINE'


@pytest.mark.parametrize(
    ("told", "struck"),
    [
        (f"it is {SECRET_TEXT}", "it is ***"),
        (f"it is {json.dumps(SECRET_TEXT)}", 'it is "***"'),
        (f"it is {quote(SECRET_TEXT, safe='')}", "it is ***"),
        ("a line: BEGIN KEY LINE", "a line: ***"),
        ("pin 123", "pin 123"),
    ],
)
def test_secret_is_struck_out_in_the_forms_that_it_may_come_back_in(told: str, struck: str) -> None:
    secrets = SecretValues(lambda reference: {"${secret:KEY}": SECRET_TEXT, "${secret:PIN}": "123"}[reference])

    assert secrets.fill("Bearer ${secret:KEY}${secret:PIN}") == f"Bearer {SECRET_TEXT}123"
    assert secrets.strike(told) == struck


def test_misspelt_secret_is_never_sent_as_it_stands() -> None:
    with pytest.raises(ValueError, match=r"a secret is written '\$\{secret:NAME\}'"):
        SecretValues(lambda _: "x").fill("Bearer ${secret:A B}")
