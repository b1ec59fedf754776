"""Errors of pydantic in words: for files by place, for requests by field."""

from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field, Tag, ValidationError
from pydantic.types import Discriminator
from pydantic_core import to_json

from mandate.workflows.contracts.base import JsonObject, Name, Spec
from mandate.workflows.contracts.faults import key_path
from mandate.workflows.rules import validation


class Part(Spec):
    unavailable = ("colour",)

    size: int = Field(ge=1, le=9, description="How large it is.")
    key: str = Field(default="", repr=False)
    weight: float | None = Field(default=None, gt=0.5)


class Square(Spec):
    kind: Literal["square"]
    side: Part


class Circle(Spec):
    kind: Literal["circle"]


UNKNOWN = "is not a key that is known here"


def _kind(value: object) -> str:
    return "many" if isinstance(value, dict) and "parts" in value else "one"


class Many(Spec):
    parts: tuple[Part, ...] = Field(min_length=1)


def _refuse_blank(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, Field(max_length=9), AfterValidator(_refuse_blank)]


class Whole(Spec):
    name: Name
    word_or_part: Literal["none"] | Part = "none"
    name_or_part: Name | Part | None = None
    open: JsonObject | str | None = None
    text_or_texts: Text | dict[str, Text] | None = None
    shape: Annotated[Square | Circle, Field(discriminator="kind")] | None = None
    groups: tuple[Annotated[Annotated[Many, Tag("many")] | Annotated[Part, Tag("one")], Discriminator(_kind)], ...] = ()
    named: dict[Name, Part] = Field(default={}, alias="by")
    flag: Literal[True] | None = None


def told(value: object) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate_json(to_json(value), strict=True)
    found = validation.explain(refused.value, Whole)
    return [f"{key_path(each.place)}: {each.message} [{each.value}]" for each in found]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": 3}, ["name: 3 is not a text; put it in quotes [3]"]),
        ({"name": True}, ["name: true is not a text; put it in quotes [true]"]),
        ({"name": ["a"]}, ["name: a list is not a text [a list]"]),
        ({"name": {"a": 1}}, ["name: a mapping is not a text [a mapping]"]),
        ({"word_or_part": "nine"}, ["word_or_part: 'nine' is neither 'none' nor a mapping with 'size' ['nine']"]),
        ({"word_or_part": []}, ["word_or_part: is neither 'none' nor a mapping with 'size' []"]),
        ({"word_or_part": {"size": 0}}, ["word_or_part.size: 0: must be at least 1 [0]"]),
        ({"word_or_part": {}}, ["word_or_part.size: is missing: How large it is. []"]),
        ({"name_or_part": 3}, ["name_or_part: 3 is neither a name nor a mapping with 'size' [3]"]),
        (
            {"name_or_part": "1st"},
            ["name_or_part: '1st' is not a letter followed by up to 63 letters, digits, '_' and '-' ['1st']"],
        ),
        ({"name_or_part": {"size": 10}}, ["name_or_part.size: 10: must be at most 9 [10]"]),
        ({"open": [1]}, ["open: a list is neither a mapping nor a text [a list]"]),
        ({"text_or_texts": 5}, ["text_or_texts: 5 is neither a text nor a mapping [5]"]),
        ({"text_or_texts": {"a": 5}}, ["text_or_texts.a: 5 is not a text; put it in quotes [5]"]),
        ({"text_or_texts": ""}, ["text_or_texts: '': must not be empty ['']"]),
        ({"shape": {}}, ["shape: has no key 'kind'; it is one of square, circle []"]),
        ({"shape": {"kind": "ball"}}, ["shape.kind: 'ball' is not one of square, circle ['ball']"]),
        ({"shape": {"kind": "square", "side": {"size": "1"}}}, ["shape.side.size: '1' is not a whole number ['1']"]),
        (
            {"groups": [{"size": 1, "siz": 1}, {"parts": []}, {"parts": [3]}]},
            [
                f"groups[0].siz: {UNKNOWN}; did you mean 'size'? allowed are key, size, weight [1]",
                "groups[1].parts: must not be empty []",
                "groups[2].parts[0]: 3 is not a mapping [3]",
            ],
        ),
        ({"groups": [{"size": 1, "colour": 1}]}, ["groups[0].colour: is not available in this version; remove it [1]"]),
        ({"by": {"a b": {"size": 1}}}, [
            "by['a b']: 'a b' is not a letter followed by up to 63 letters, digits, '_' and '-' ['a b']"
        ]),
        ({"by": {"a": {"size": 1, "key": 5, "weight": 0.5}}}, [
            "by.a.key: is not a text; put it in quotes []", "by.a.weight: 0.5: must be more than 0.5 [0.5]",
        ]),
        ({"flag": False}, ["flag: false is not one of true [false]"]),
    ],
)  # fmt: skip
def test_faults_of_a_file_have_a_place_a_value_and_what_is_allowed(more: JsonObject, expected: list[str]) -> None:
    assert told({"name": "a", **more}) == expected


def test_half_of_a_surrogate_pair_is_told_in_our_words() -> None:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate({"name": "a\udcff"})

    assert [each.message for each in validation.explain(refused.value, Whole)] == [
        "'a\\udcff' holds half of a surrogate pair, which is no text"
    ]


def test_value_that_is_no_mapping_is_told_which_keys_it_needs() -> None:
    assert told([1]) == [": is not a mapping with 'name' []"]


def test_faults_of_a_request_come_once_a_field_and_without_values_that_are_not_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate(
            {"nam": 1, "open": [1], "word_or_part": {"size": 10}, "by": {"a": {"size": "x" * 80, "key": 5}}, "flag": 0}
        )

    assert validation.sentences(refused.value, Whole, unshown=("open",), forms={"flag": "true"}) == (
        "name: is missing; word_or_part.size: 10: must be at most 9; open: is neither an object nor a text; "
        f"by.a.size: '{'x' * 58}… is not a whole number; by.a.key: is not a text; flag: 0 must be true; "
        "nam: is not a known key; did you mean 'name'?"
    )
