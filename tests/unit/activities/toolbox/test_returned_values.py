"""Values of every shape as text: read where they can be, never lost for one odd part."""

import collections
import json
import sqlite3
import threading
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mandate.activities.toolbox.returned_values import tell

ODD = "\ud83d"


@dataclass
class Row:
    text: object


class Model(BaseModel):
    text: str


class Shown:
    def __str__(self) -> str:
        return "order 81"


class Page:
    """A document that is a list of its parts, and has a text."""

    def __iter__(self):
        return iter((self,))

    def __str__(self) -> str:
        return "<p>" * 200_000


def row() -> sqlite3.Row:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    found: sqlite3.Row = connection.execute("select 1 as a, 'b' as b").fetchone()
    return found


class Broken:
    def __str__(self) -> str:
        raise SystemExit(1)


class Array:
    """Numbers, as of NumPy."""

    def tolist(self) -> list[int]:
        return [1, 2]


class Frame:
    """A table, as of pandas."""

    def to_dict(self) -> dict[str, list[int]]:
        return {"a": [1]}


class Bag:
    """Items in a class of its own."""

    def __iter__(self):
        return iter((1, ODD))


def recursive() -> object:
    value: dict[str, object] = {"n": 1}
    value["self"] = value
    return value


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": ODD, "b": object()}, {"a": "\ufffd", "b": "(a object, which has no JSON form)"}),
        ({"a": threading.Lock(), "n": 1}, {"a": "(a lock, which has no JSON form)", "n": 1}),
        ({"a": Shown()}, {"a": "order 81"}),
        ({"a": Broken()}, {"a": "(a Broken that cannot be read: SystemExit)"}),
        ({"a": ValueError("no"), "b": ODD}, {"a": "ValueError: no", "b": "\ufffd"}),
        ({"a": b"\xff\xfe\x00", "b": b"text"}, {"a": "3 bytes of binary content, which is not shown", "b": "text"}),
        (Row(ODD), {"text": "\ufffd"}),
        (Row(Model.model_construct(text=ODD)), {"text": {"text": "\ufffd"}}),
        ([Array(), Frame(), Bag()], [[1, 2], {"a": [1]}, [1, "\ufffd"]]),
        ([{1, 2}, frozenset((3,)), collections.deque((4, ODD)), ODD], [[1, 2], [3], [4, "\ufffd"], "\ufffd"]),
        ({1: ODD, None: 2, (1, 2): 3}, {"1": "\ufffd", "null": 2, "[1,2]": 3}),
        ({"\ud83d": 1, chr(0xDE00): 2}, {"\ufffd": 1, "\ufffd (2)": 2}),
        ([Decimal("1.50"), float("-inf"), ODD], ["1.50", "-Infinity", "\ufffd"]),
        ([10**5000, ODD], ["(an integer of 16610 bits)", "\ufffd"]),
        (recursive(), {"n": 1, "self": "(this again, without an end)"}),
        ({}.keys(), []),
        (range(2), [0, 1]),
        ([row(), Page()], [{"a": 1, "b": "b"}, "<p>" * 200_000]),
        ({"a": {"x": 1}.items()}, {"a": [["x", 1]]}),
    ],
)
def test_what_can_be_read_is_read(value: object, text: object) -> None:
    assert json.loads(tell(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Shown(), "order 81"),
        (ValueError("no such order"), "ValueError: no such order"),
        (object(), "done; the result, a object, has no JSON form and is not shown"),
        (Broken(), "done; the result, a Broken, has no JSON form and is not shown"),
        (threading.Lock(), "done; the result, a lock, has no JSON form and is not shown"),
        (lambda: 1, "done; the result, a function, has no JSON form and is not shown"),
        (bytearray(b"\x00"), "done; the result is 1 byte of binary content, which is not shown"),
        (memoryview("ü".encode()), "ü"),
        ("\ufeff", "\ufeff"),
    ],
)
def test_what_has_no_json_form_is_its_own_text_or_a_sentence(value: object, text: str) -> None:
    assert tell(value) == text


@pytest.mark.parametrize("levels", [10, 100, 1000, 100_000])
def test_nested_value_is_told_as_far_as_it_can_be(levels: int) -> None:
    text = tell(deep(levels))

    assert text.startswith("[" * min(levels, 60))
    assert text == "[" * 10 + "1" + "]" * 10 or "levels deep" in text or levels == 100


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just("\ud83d"),
        lambda inner: (
            st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
        ),
    )
)
def test_every_value_is_text_that_can_be_encoded(value: object) -> None:
    text = tell(value)

    assert text.encode() or value in ("", b"")
