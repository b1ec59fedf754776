"""Text that UTF-8 can carry, made of any text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from mandate.workflows.rules import surrogates

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "repaired", "joined"),
    [
        ("plain", "plain", "plain"),
        ("ü \U0001f600", "ü \U0001f600", "ü \U0001f600"),
        ("\ud83d\ude00", "\U0001f600", "\U0001f600"),
        ("a \ud83d b", "a \ufffd b", "a \ud83d b"),
        ("\ude00\ud83d", "\ufffd\ufffd", "\ude00\ud83d"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600", "\ud83d\U0001f600"),
        ("a\x00b", "a\x00b", "a\x00b"),
    ],
)
def test_pairs_are_joined_and_halves_replaced(text: str, repaired: str, joined: str) -> None:
    assert surrogates.repair_text(text) == repaired
    assert surrogates.join_pairs(text) == joined


@given(ANY_TEXT)
def test_every_text_can_be_encoded_afterwards(text: str) -> None:
    repaired = surrogates.repair_text(text)

    assert surrogates.is_encodable(repaired)
    assert surrogates.repair_text(repaired) == repaired
    assert repaired == text or not surrogates.is_encodable(text)


def test_no_value_is_lost_where_keys_become_equal() -> None:
    value = json.loads(r'{"\ud83d": [1, "\ude00"], "\ude00": {"a\ud83d\ude00": null}, "\ufffd": 3}')

    assert surrogates.repair_json(value) == {
        "\ufffd": [1, "\ufffd"],
        "\ufffd (2)": {"a\U0001f600": None},
        "\ufffd (3)": 3,
    }


@given(st.recursive(ANY_TEXT | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_every_json_value_can_be_encoded_afterwards(value: JsonValue) -> None:
    json.dumps(surrogates.repair_json(value), ensure_ascii=False).encode()
