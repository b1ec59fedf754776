"""Lines of a plan that is followed, and the table at its end."""

from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mandate.workers.cli.output import Output
from mandate.workers.cli.plans import text as plan_text
from mandate.workers.cli.plans.text import StepNarrator
from mandate.workers.history.step_events import AttemptFailed, ItemEnded, StepBegun, StepEnded, StepEvent
from mandate.workflows.contracts.plan import PlanStep, StepResult


def step(name: str, **keys: Any) -> PlanStep:
    return PlanStep.model_validate({"id": name, "agent": "researcher", **keys})


FIND, EACH = step("find", attempts=3), step("each", for_each="input", attempts=2)


def ended(name: str, status: Any = "completed", reason: str | None = None, **facts: Any) -> StepEnded:
    return StepEnded(step(name), status, reason, **{"output": "", "cost_usd": Decimal(0), "attempts": 1, **facts})


def item(number: int, of: int, reason: str | None = None, failed: int = 0) -> ItemEnded:
    return ItemEnded(EACH, number - 1, reason, "found", Decimal("0.1") * number, of, number - failed, failed)


def lines(*batches: list[StepEvent]) -> list[str]:
    narrator = StepNarrator()
    return [line.plain for batch in batches for line in narrator.describe(batch)]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (StepBegun(FIND), "find  begins: agent researcher"),
        (StepBegun(EACH, 40), "each  begins: 40 items, agent researcher"),
        (AttemptFailed(FIND, None, 1, "no\nanswer"), "find  is tried again, attempt 1 of 3 failed: no answer"),
        (AttemptFailed(EACH, 7, 1, "no answer"), "each[7]  is tried again, attempt 1 of 2 failed: no answer"),
        (ended("find", output="Order 81\nis late."), "find  completed → Order 81 is late."),
        (
            ended("find", output="x", cost_usd=Decimal("0.02"), attempts=2),
            "find  completed (2 attempts, $0.02) → x",
        ),
        (ended("find", "failed", "no answer", attempts=3), "find  failed (3 attempts): no answer"),
        (ended("find", "skipped", "step 'a' failed: x", attempts=0), "find  skipped: step 'a' failed: x"),
        (
            ended("each", items=40, completed=38, failed=2, attempts=41, cost_usd=Decimal("1.5")),
            "each  completed (38 of 40 items, 2 failed, 41 attempts, $1.50)",
        ),
        (item(2, 3), "each[1]  completed → found"),
        (item(2, 3, "gone", 1), "each[1]  failed: gone"),
    ],
)
def test_an_event_is_one_line(event: StepEvent, line: str) -> None:
    assert lines([event]) == [line]


def test_names_stand_in_a_column() -> None:
    narrator = StepNarrator()
    narrator.align([FIND, step("write-it")])

    assert [line.plain for line in narrator.describe([StepBegun(FIND), ended("write-it")])] == [
        "find      begins: agent researcher",
        "write-it  completed",
    ]


def test_of_many_items_every_tenth_part_is_told() -> None:
    told = lines(*([item(number, 2000)] for number in range(1, 2001)))

    assert told == [f"each  {n:,} of 2,000 items ended, ${n // 10}.00" for n in range(200, 2001, 200)]


def test_of_many_failures_the_first_are_told_one_by_one() -> None:
    told = lines(*([item(number, 100, "gone", number)] for number in range(1, 101)))

    assert told[:6] == [f"each[{n}]  failed: gone" for n in range(5)] + [
        "each  10 of 100 items ended, 10 failed, $1.00"
    ]
    # Five by themselves, and each tenth part.
    assert len(told) == 15


def test_of_many_attempts_that_failed_the_first_are_told() -> None:
    told = lines([AttemptFailed(EACH, n, 1, "gone") for n in range(400)])

    assert told == [f"each[{n}]  is tried again, attempt 1 of 2 failed: gone" for n in range(5)]


def test_what_happens_together_shares_a_line() -> None:
    begun: list[StepEvent] = [StepBegun(step(f"b{n}")) for n in range(100)]
    done: list[StepEvent] = [ended(f"c{n}", cost_usd=Decimal("0.01")) for n in range(50)]
    skipped: list[StepEvent] = [ended(f"s{n}", "skipped", "step 'f' failed: x") for n in range(2000)]

    assert lines([*done, ended("f", "failed", "x"), *skipped, *begun]) == [
        "50 steps completed: c0, c1, c2 and 47 more, $0.50",
        "2,000 steps skipped: s0, s1, s2 and 1,997 more; s0: step 'f' failed: x",
        "f  failed: x",
        "100 steps begin: b0, b1, b2 and 97 more",
    ]


def test_a_step_that_begins_and_ends_among_many_is_told_once() -> None:
    events = [event for n in range(30) for event in (StepBegun(step(f"a{n}")), ended(f"a{n}"))]

    assert lines(events) == ["30 steps completed: a0, a1, a2 and 27 more"]


def test_never_more_failures_are_told_at_once_than_can_be_read() -> None:
    told = lines([ended(f"a{n}", "failed", "gone") for n in range(500)])

    assert len(told) == plan_text.MOST_LINES + 1
    assert told[-1] == "and 480 more failures"


def printed(*steps: StepResult) -> list[str]:
    out = Output()
    out._consoles["stdout"] = Console(file=(stream := StringIO()), width=200, soft_wrap=True)
    plan_text.print_steps(out, steps)
    return stream.getvalue().splitlines()


def test_at_the_end_each_step_is_a_row() -> None:
    assert printed(
        StepResult(id="each", status="completed", cost_usd="1.5", attempts=4, items=3, completed=3),
        StepResult(id="write", status="failed", reason="no answer", attempts=1),
    ) == [
        "Steps       1 completed, 1 failed",
        "  each   completed  3/3  4 attempts  $1.50",
        "  write  failed                             no answer",
    ]


def test_of_many_steps_those_are_listed_that_failed_and_some_that_were_skipped() -> None:
    good = [StepResult(id=f"s{n}", status="completed") for n in range(1500)]
    skipped = [StepResult(id=f"t{n}", status="skipped", reason="step 'bad' failed: gone") for n in range(400)]

    assert printed(*good, StepResult(id="bad", status="failed", reason="gone"), *skipped) == [
        "Steps       1,500 completed, 1 failed, 400 skipped",
        "  bad  failed   gone",
        "  t0   skipped  step 'bad' failed: gone",
        "  t1   skipped  step 'bad' failed: gone",
        "  t2   skipped  step 'bad' failed: gone",
        "  and 397 more that did not end well",
    ]
