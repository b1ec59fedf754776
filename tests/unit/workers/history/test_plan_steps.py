"""Steps of a plan as they begin and end, read from its conversation."""

from decimal import Decimal
from typing import Any

import pytest

from mandate.workers.history.plan_steps import PlanReader
from mandate.workers.history.step_events import AttemptFailed, ItemEnded, StepBegun, StepEnded, StepEvent
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from tests.support.planned import Planned

LOOK: dict[str, Any] = {"tool": "look", "input": {"what": "'it'"}}


def look(_: CallRequest) -> ToolResult:
    return ToolResult(text="seen")


def fail(_: CallRequest) -> ToolResult:
    return ToolResult(text="it is gone", error=True)


def short(event: StepEvent) -> tuple[object, ...]:
    match event:
        case StepBegun(step, items):
            return ("begun", step.id, items)
        case AttemptFailed(step, index, attempt, reason):
            return ("again", step.id, index, attempt, reason)
        case ItemEnded(step, index, reason):
            return ("item", step.id, index, reason, event.ended)
        case StepEnded(step, status, reason, output):
            return (status, step.id, reason or output)


async def read(planned: Planned, heads: list[str]) -> list[tuple[object, ...]]:
    """Return what is read move by move, and at the end of the run."""
    reader = PlanReader(planned.blobs)
    found = [short(event) for head in heads async for events in reader.read(head) for event in events]
    return found + [short(event) for event in reader.close()]


async def test_a_step_is_told_as_it_begins_and_as_it_ends() -> None:
    planned = Planned([{"id": "a", **LOOK}, {"id": "b", **LOOK, "depends_on": ["a"]}])

    told = await read(planned, await planned.run(look))

    assert told == [("begun", "a", None), ("completed", "a", "seen"), ("begun", "b", None), ("completed", "b", "seen")]


async def test_an_attempt_that_failed_is_told_with_the_next_one() -> None:
    planned = Planned([{"id": "a", **LOOK, "attempts": 2}])

    told = await read(planned, await planned.run(fail))

    assert told == [("begun", "a", None), ("again", "a", None, 1, "it is gone"), ("failed", "a", "it is gone")]


async def test_an_output_that_is_no_success_is_a_failure() -> None:
    planned = Planned([{"id": "a", **LOOK, "success": "output == 'more'"}])

    told = await read(planned, await planned.run(look))

    assert told[-1] == ("failed", "a", "its output is no success: output == 'more'")


async def test_steps_that_never_begin_are_told_too() -> None:
    """One needs a step that failed, the condition of another does not hold, the input of a third cannot be told."""
    planned = Planned(
        [
            {"id": "a", **LOOK},
            {"id": "b", **LOOK, "depends_on": ["a"]},
            {"id": "c", **LOOK, "when": "1.0 > 2.0"},
            {"id": "d", "tool": "look", "input": {"what": "input.gone"}},
        ],
        given={},
    )

    told = {event[1]: event[0] for event in await read(planned, await planned.run(fail))}

    assert told == {"a": "failed", "b": "skipped", "c": "skipped", "d": "failed"}


async def test_what_was_under_way_when_the_run_ended_is_stopped() -> None:
    planned = Planned([{"id": "a", **LOOK}, {"id": "b", **LOOK, "depends_on": ["a"]}])
    heads = await planned.run(look)

    told = await read(planned, heads[:2])

    assert told == [
        ("begun", "a", None),
        ("stopped", "a", "the run ended while it was under way"),
        ("stopped", "b", "the plan is being stopped"),
    ]


async def test_items_are_told_with_how_far_all_of_them_are() -> None:
    planned = Planned([{"id": "a", **LOOK, "for_each": "input", "needs": 1}], given=[1, 2, 3])
    answers = iter([ToolResult(text="seen"), ToolResult(text="it is gone", error=True), ToolResult(text="seen")])

    told = await read(planned, await planned.run(lambda _: next(answers)))

    assert told == [
        ("begun", "a", 3),
        ("item", "a", 0, None, 1),
        ("item", "a", 1, "it is gone", 2),
        ("item", "a", 2, None, 3),
        ("completed", "a", ""),
    ]


async def test_the_end_of_a_fan_out_has_its_counts_and_cost() -> None:
    planned = Planned([{"id": "a", **LOOK, "for_each": "input", "needs": 0, "attempts": 2}], given=[1, 2])
    heads = await planned.run(fail)
    reader = PlanReader(planned.blobs)

    (end,) = [event async for events in reader.read(heads[-1]) for event in events if isinstance(event, StepEnded)]

    assert (end.items, end.completed, end.failed, end.attempts) == (2, 0, 2, 4)
    # Four calls of 0.1 each.
    assert end.cost_usd == Decimal("0.4")


async def test_read_at_once_is_what_is_read_move_by_move() -> None:
    steps = [{"id": f"s{n}", **LOOK, "depends_on": [f"s{n // 2}"] if n else []} for n in range(40)]
    planned = Planned(steps)
    heads = await planned.run(look, at_once=3)

    assert await read(planned, heads[-1:]) == await read(planned, heads)


async def test_sensitive_arguments_are_in_no_event() -> None:
    planned = Planned([{"id": "a", "tool": "look", "input": {"pin": "'81-29-11'"}, "attempts": 2}])
    answers = iter(
        [
            ToolResult(text="81-29-11 is no pin of ours", error=True),
            ToolResult(text="the pin 81-29-11 is right"),
        ]
    )

    told = await read(planned, await planned.run(lambda _: next(answers)))

    assert told == [
        ("begun", "a", None),
        ("again", "a", None, 1, "*** is no pin of ours"),
        ("completed", "a", "the pin *** is right"),
    ]


@pytest.mark.parametrize("count", [50, 200])
async def test_what_is_read_grows_with_the_plan_and_not_with_its_square(count: int) -> None:
    """For each move its segment is read twice, to find it and in its order, and at most one block of addresses."""
    steps = [{"id": f"s{n}", **LOOK, "depends_on": [f"s{n - 1}"] if n else []} for n in range(count)]
    planned = Planned(steps)
    heads = await planned.run(look)
    planned.store.gets.clear()

    await read(planned, heads)

    assert sum(map(len, planned.store.gets)) <= 3 * (count + 2)
