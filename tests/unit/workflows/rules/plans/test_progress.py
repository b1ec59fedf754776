"""Progress of a plan that is told of one call after the other, and of all of them at once."""

import random
from decimal import Decimal
from typing import Any

import pytest

from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules.plans.order import map_needs
from mandate.workflows.rules.plans.progress import Ended, Label, Progress

NAMES = [1, 2, 3, 4, 5]


def new_plan(*steps: dict[str, Any], **keys: Any) -> PlanSpec:
    return PlanSpec.model_validate({"name": "any", "steps": steps, **keys})


def made_up(rng: random.Random) -> PlanSpec:
    """Return a plan of steps of all kinds, each of which may need some before it."""
    steps: list[dict[str, Any]] = []
    for number in range(rng.randint(2, 9)):
        step: dict[str, Any] = {"id": f"s{number}", "agent": "any", "attempts": rng.randint(1, 3)}
        earlier = [one["id"] for one in steps]
        step["depends_on"] = rng.sample(earlier, rng.randint(0, min(2, len(earlier))))
        if rng.random() < 0.3:
            step |= {"for_each": "input", "needs": rng.randint(0, 5), "max_parallel": rng.randint(1, 4)}
        if rng.random() < 0.2 and earlier:
            step["when"] = f"steps.{rng.choice(earlier)}.status == 'completed'"
        if rng.random() < 0.2:
            step["success"] = "output != 'bad'"
        if rng.random() < 0.2:
            step["input"] = rng.choice(["input.gone", "'a text'"])
        step["on_failure"] = rng.choice(["skip", "skip", "continue", "stop"])
        steps.append(step)
    return new_plan(*steps, max_parallel=rng.randint(2, 20))


def shown(progress: Progress) -> dict[str, object]:
    return {name: (its.status, its.reason, its.output, its.items) for name, its in progress.advance().standings.items()}


@pytest.mark.parametrize("seed", range(60))
def test_calls_told_one_after_the_other_come_to_what_all_at_once_come_to(seed: int) -> None:
    rng = random.Random(seed)
    plan = made_up(rng)
    needs = map_needs(plan)
    calls: dict[Label, Ended | None] = {}
    told = Progress(plan, needs, NAMES, {})
    while True:
        move = Progress(plan, needs, NAMES, calls).advance()
        begun: dict[Label, Ended | None] = {new.label: None for new in move.begin}
        calls |= begun
        told.take(begun)
        assert shown(told) == shown(Progress(plan, needs, NAMES, calls))
        under_way = [label for label, ended in calls.items() if ended is None]
        if not under_way:
            break
        ended = {
            label: Ended(rng.choice(["good", "bad"]), rng.choice([None, None, "it broke"]), Decimal("0.1"))
            for label in rng.sample(under_way, rng.randint(1, len(under_way)))
        }
        calls |= ended
        told.take(ended)

    for progress in (told, last := Progress(plan, needs, NAMES, calls, is_stopping=True)):
        progress.stop()
    assert shown(told) == shown(last)


def test_only_steps_that_a_move_may_have_changed_are_named() -> None:
    """An end is news of its step, and of those that need it: of no other."""
    chain = [{"id": "a", "agent": "any"}, {"id": "b", "agent": "any", "depends_on": ["a"]}]
    plan = new_plan(*chain, {"id": "c", "agent": "any"}, {"id": "d", "agent": "any", "depends_on": ["b"]})
    progress = Progress(plan, map_needs(plan), None, {Label("a"): None, Label("c"): None})
    progress.advance()

    progress.take({Label("a"): Ended("done")})

    assert set(progress.advance().changed) == {"a", "b"}
    assert progress.advance().changed == ()
