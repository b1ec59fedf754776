"""What can be said to a run at all."""

import pytest
from pydantic import ValidationError

from mandate.workflows.contracts.request import Decision, Halt, Steering

GOOD = {"request": "r1", "digest": "A" * 43, "choice": "approve", "by": "ann@example.com"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"value": {"amount": float("nan")}}, "holds NaN or an infinity, which JSON has no form for"),
        ({"value": [1e999]}, "holds NaN or an infinity, which JSON has no form for"),
        ({"value": "\ud800"}, "holds half of a surrogate pair, which is no text"),
        ({"by": None}, "'by' is missing; only 'request: *' goes without it"),
        ({"digest": None}, "'digest' is missing; only 'request: *' goes without it"),
        ({"request": "*"}, "'request: *' goes with 'choice: reject' only, not 'approve'"),
        ({"request": "*", "choice": "reject"}, "'request: *' goes without 'digest' and 'value'"),
    ],
)
def test_a_decision_that_could_hurt_the_run_is_none(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says.replace("*", r"\*")):
        Decision.model_validate({**GOOD, **change})


def test_words_that_no_history_could_hold_are_none() -> None:
    with pytest.raises(ValidationError):
        Steering.model_validate({"text": "\udfff", "by": "ann"})
    with pytest.raises(ValidationError):
        Halt.model_validate({"by": "ann", "reason": "\ud800"})


@pytest.mark.parametrize("by", ["ann\x1b[2J", "ann\u202etxt", "a\u200bnn", "ann\nbob", "ann\x00", " ann", "ann "])
def test_a_name_that_is_not_what_it_looks_like_is_none(by: str) -> None:
    for message, rest in ((Halt, {}), (Steering, {"text": "x"}), (Decision, GOOD)):
        with pytest.raises(ValidationError):
            message.model_validate({**rest, "by": by})


def test_a_token_is_in_no_text_of_a_decision() -> None:
    decision = Decision.model_validate({**GOOD, "token": "s3cret"})

    assert "s3cret" not in repr(decision)
