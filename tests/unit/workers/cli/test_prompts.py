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
