import pytest

from mandate.workers.cli import prompts
from mandate.workers.cli.prompts import Answer
from mandate.workflows.contracts.request import RequestKind
from tests.support.people import bare_request as request


@pytest.mark.parametrize(
    ("kind", "said", "answer"),
    [
        ("approval", "y", Answer("approve")),
        ("approval", "NO", Answer("reject")),
        ("approval", "stop", None),
        ("outcome", "y", Answer("happened")),
        ("outcome", "n", Answer("not_happened")),
        ("outcome", "stop", Answer("stop")),
        ("outcome", "perhaps", None),
        ("question", "y", Answer("answer", "y")),
        ("escalation", "retry", Answer("retry")),
        ("escalation", "y", None),
        ("escalation", "supply", None),
    ],
)
def test_typed_line_is_a_choice_or_nothing(kind: RequestKind, said: str, answer: Answer | None) -> None:
    assert prompts.typed(request(kind), said) == answer


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("approval", "y or n"),
        ("outcome", "y (it happened), n (it did not) or stop"),
        ("question", "any text"),
        ("escalation", "retry or accept or stop"),
    ],
)
def test_keys_name_what_can_be_typed(kind: RequestKind, keys: str) -> None:
    assert prompts.keys(request(kind)) == keys


def test_keys_of_a_question_with_options_are_these() -> None:
    asked = request("question").model_copy(update={"options": ("red", "blue")})

    assert (prompts.keys(asked), prompts.short_keys(asked)) == ("red or blue", "red/blue")


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("approval", "y/n"), ("outcome", "y/n/stop"), ("question", "any text"), ("escalation", "retry/accept/stop")],
)
def test_short_keys_fit_a_prompt(kind: RequestKind, keys: str) -> None:
    assert prompts.short_keys(request(kind)) == keys


def test_of_a_request_about_a_budget_the_choices_without_a_value_can_be_typed() -> None:
    asked = request("budget")

    assert (prompts.keys(asked), prompts.short_keys(asked)) == ("answer or stop", "answer/stop")
    assert prompts.typed(asked, "answer") == Answer("answer")
    assert prompts.typed(asked, "raise") is None
