"""What the crash suite prints of the points that it did not hit, and its exit code."""

from dataclasses import replace
from decimal import Decimal

import pytest

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectLog, RunResult, RunStatus
from tests.acceptance.crash import Case, Played, exit_code, not_hit, report, show
from tests.support.fault_judge import Judgement, Ran
from tests.support.fault_log import Hit
from tests.support.fault_plan import Hurt, Point, Task

CELLS = [
    Hurt(Point.MODEL_BEFORE),
    Hurt(Point.LOSE_REPLY, "pay_http"),
    Hurt(Point.LOSE_REPLY, "pay_mcp"),
    Hurt(Point.REFUSE, "pay_mcp"),
]


def hit(run: str, point: Point) -> Hit:
    return Hit(0.0, run, "b1", point, None)


def test_point_counts_for_the_run_that_was_to_be_hurt_there() -> None:
    played = Played(
        hits=[hit("pay-0", Point.MODEL_BEFORE), hit("pay-1", Point.LOSE_REPLY), hit("pay-3", Point.LOSE_REPLY)]
    )

    assert not_hit(played, CELLS, "pay") == CELLS[2:]
    assert not_hit(played, CELLS, "other") == CELLS


def test_points_that_were_not_hit_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    played = Played(missed=CELLS[2:])

    show(report(played, Judgement()), played)

    assert capsys.readouterr().out.splitlines()[-3:] == [
        "points that were not hit: 2",
        "  reply lost: pay_mcp",
        "  answered 503: pay_mcp",
    ]


@pytest.mark.parametrize(
    ("played", "judgement", "case", "code"),
    [
        (Played(), Judgement(), Case(), 0),
        (Played(), Judgement(repeated=3), Case(), 0),
        (Played(missed=CELLS[:1]), Judgement(), Case(), 1),
        (Played(), Judgement(declined=["run: declined, None"]), Case(), 1),
        (Played(), Judgement(lost=["run: pay_http b1"]), Case(), 1),
        (Played(), Judgement(), Case(probes=True), 0),
    ],
)
def test_exit_code(played: Played, judgement: Judgement, case: Case, code: int) -> None:
    found = report(played, judgement)

    assert exit_code(found, case) == code
    assert found["good"] == (code == 0)


def test_run_with_probes_may_not_end_uncertain() -> None:
    found = {**report(Played(), Judgement()), "uncertain": 1}

    assert exit_code(found, Case()) == 0
    assert exit_code(found, replace(Case(), probes=True)) == 1


def test_runs_that_asked_people_are_told_with_those_that_need_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    asked, unneeded = Task("pay-0", ()), Task("pay-1", ())
    played = Played(runs=[Ran(asked, declined("nobody decided")), Ran(unneeded, declined("'look' failed 3 times"))])
    judgement = Judgement(declined=["pay-1: declined, 'look' failed 3 times"])

    found = report(played, judgement)
    show(found, played)

    assert found["asked_people"] == {"pay-0": "nobody decided", "pay-1": "'look' failed 3 times"}
    assert "runs that asked people: 2, 1 of them without need" in capsys.readouterr().out.splitlines()


def declined(reason: str) -> RunResult:
    usage = Usage(cost_usd=Decimal(0))
    return RunResult(
        status=RunStatus.DECLINED,
        output=None,
        output_digest=None,
        reason=reason,
        usage=usage,
        head=None,
        audit_head=None,
        effects=EffectLog(count=0, last=()),
        uncertain=(),
    )
