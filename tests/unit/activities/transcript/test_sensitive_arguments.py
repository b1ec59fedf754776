"""Sensitive arguments as people and the workflow have them, and the references that stand for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.transcript import sensitive_arguments
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.rules import redaction

SALT = b"salt"
VALUES: Any = st.dictionaries(
    st.sampled_from(["card", "Card", "ca_rd", "amount", "parts"]),
    st.recursive(
        st.integers(1000, 9999) | st.text("xyz", min_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["card", "CARD", "a"]), inner),
        max_leaves=6,
    ),
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"card": "5500"}, "card"),
        ({"Card": "5500"}, "Card"),
        ({"card": None}, "card"),
        ({"pay": [{"ca-rd": {"number": 1}}]}, "ca-rd"),
        ({"card": "***", "pay": {"card": {"digest": "d", "size": 0, "preview": ""}}}, None),
        ({"amount": 1}, None),
        (5, None),
    ],
)
def test_value_in_clear_is_named(value: Any, name: str | None) -> None:
    assert redaction.find_in_clear(value, ("card",)) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"card": "***", "amount": 2}, None),
        ({"amount": 2}, None),
        ({"card": "5500"}, "card"),
        ({"card": "***", "parts": [{"card": "5500"}]}, "card"),
    ],
)
def test_what_people_were_not_shown_is_not_sent_in_clear(value: Any, name: str | None) -> None:
    assert redaction.find_revealed({"card": "***", "amount": 1, "parts": [{"card": "***"}]}, value) == name


@given(VALUES)
def test_reference_is_put_back_where_it_stands(whole: JsonObject) -> None:
    shown = sensitive_arguments.hide(whole, ("card",), SALT)

    assert (
        sensitive_arguments.fill_references(shown, sensitive_arguments.resolve_references(whole, ("card",), SALT))
        == whole
    )
    assert sensitive_arguments.unmask(redaction.mask(whole, ("card",)), whole, ("card",)) == whole
    assert redaction.find_in_clear(shown, ("card",)) is None
    assert sensitive_arguments.hide(whole, ("card",), None) == whole


@given(st.text("0123456789", min_size=4), st.text("0123456789", min_size=4))
def test_reference_depends_on_value_name_and_salt_and_tells_nothing(one: str, other: str) -> None:
    def made(value: str, salt: bytes = SALT, name: str = "card") -> JsonObject:
        return sensitive_arguments.hide({name: value}, (name,), salt)

    assert (made(one) == made(other)) == (one == other)
    assert made(one) != made(one, b"another")
    assert made(one)["card"] != made(one, name="pin")["pin"]
    assert len(canonical_json(made(one))) == len(canonical_json(made(other)))


def test_mask_without_a_value_behind_it_is_refused() -> None:
    with pytest.raises(LookupError, match="card: '\\*\\*\\*' stands for a value that the call does not have"):
        sensitive_arguments.unmask({"card": "***"}, {"amount": 1}, ("card",))
