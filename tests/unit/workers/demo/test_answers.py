import pytest

from mandate.workers.cli.prompts import Answer
from mandate.workers.demo import answers
from mandate.workers.examples.shop_books import Evidence
from mandate.workflows.contracts.request import RequestKind
from tests.support.people import bare_request as request


@pytest.mark.parametrize(
    ("kind", "evidence", "answer"),
    [
        ("approval", None, Answer("approve", comment=answers.YES_COMMENT)),
        ("question", None, Answer("answer", answers.YES_ANSWER, answers.YES_COMMENT)),
        ("outcome", Evidence("there", "sent to ada"), Answer("happened", "sent to ada", answers.YES_LOOKED)),
        ("outcome", Evidence("not there", is_done=False), Answer("not_happened", comment=answers.YES_LOOKED)),
        ("outcome", None, Answer("stop", comment=answers.YES_COMMENT)),
        ("escalation", None, Answer("stop", comment=answers.YES_COMMENT)),
    ],
)
def test_unattended_answer_is_true_and_never_a_guess(
    kind: RequestKind, evidence: Evidence | None, answer: Answer
) -> None:
    assert answers.unattended(request(kind), evidence) == answer
