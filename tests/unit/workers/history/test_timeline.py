"""Bars of runs, from histories as servers have written them."""

from datetime import UTC, timedelta

import pytest
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from mandate.workers.converter import data_converter
from mandate.workers.history.local_activities import LocalTimes, read_local_activity
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.timeline import Timeline, write_length
from mandate.workers.history.timeline_reader import TimelineReader
from mandate.workflows.contracts.plan import StepResult
from tests.support.timelines import bar, load, read, timeline

MODEL = "scripted:{}.script.yaml"


def shown(line: Timeline) -> list[tuple[str, str, int, str]]:
    return [(one.kind, one.label, one.step, one.state) for one in line.drawn()]


async def test_a_run_is_model_calls_and_tools_in_their_order() -> None:
    line, _ = await read(load("0.1-completed"))

    assert shown(line) == [
        ("model", MODEL.format("completed"), 1, "done"),
        ("tool", "look what=a", 1, "done"),
        ("tool", "look what=b", 1, "done"),
        ("tool", "pay order=1", 1, "done"),
        ("model", MODEL.format("completed"), 2, "done"),
        ("tool", "nothing", 2, "misfit"),
        ("tool", "pay order=1", 2, "done"),
        ("tool", "pay order=2", 2, "done"),
        ("model", MODEL.format("completed"), 3, "done"),
        ("tool", "send to=Ann", 2, "refused"),
    ]
    assert line.begun_at is not None
    assert line.ended_at is not None
    assert all(line.begun_at <= one.begun_at <= (one.ended_at or one.begun_at) <= line.ended_at for one in line.bars)


async def test_calls_of_one_turn_overlap() -> None:
    line, _ = await read(load("0.1-completed"))
    first, second = (one for one in line.bars if one.label.startswith("look"))

    assert first.ended_at is not None
    assert second.begun_at < first.ended_at


async def test_waits_for_people_last_from_the_question_to_the_decision() -> None:
    line, _ = await read(load("0.2-decided"))
    waits = {one.name: one for one in line.bars if one.kind == "person"}

    assert {name: (one.label, one.request, one.state, one.reason) for name, one in waits.items()} == {
        "r1": ("pay order=1?", "approval", "done", "r1 is approved: bob@example.com and ann@example.com approved it"),
        "r2": ("pay order=2?", "approval", "done", "r2 is approved: bob@example.com and ann@example.com approved it"),
        "r3": ("send to=Ann?", "approval", "done", "ann@example.com chose reject on r3: too dear"),
        "r4": ("Which colour?", "question", "done", "r4 is answered: ann@example.com answered"),
    }
    assert [request.id for request in line.requests] == list(waits)
    assert all(one.begun_at == request.requested_at for one, request in zip(waits.values(), line.requests, strict=True))


async def test_a_request_that_nobody_answers_is_told_as_expired_and_pauses_are_bars() -> None:
    line, _ = await read(load("0.2-parked"))

    assert [(one.kind, one.name, one.state) for one in line.bars if one.kind in {"person", "pause"}] == [
        ("person", "r1", "done"),
        ("pause", "", "done"),
        ("person", "r2", "expired"),
    ]


async def test_checks_and_probes_are_bars_with_what_they_found() -> None:
    checked, _ = await read(load("0.3-checked"))
    probed, _ = await read(load("0.3-probed"))

    assert [(one.label, one.state) for one in checked.bars if one.kind == "check"] == [
        ("pay_expect_1 of pay order=1 amount=2.0", "failed"),
        ("final_schema_1 of the answer", "failed"),
        ("final_schema_1 of the answer", "done"),
    ]
    assert [(one.label, one.name) for one in probed.bars if one.kind == "probe"] == [
        ("find_letter for send to=Bob lose_first=true", "find_letter"),
        ("find_letter for send to=Ann lose_reply=true", "find_letter"),
    ]


async def test_local_activities_have_the_times_of_their_markers() -> None:
    line, _ = await read(load("0.5-local"))
    local = [one for one in line.bars if one.is_local and one.kind == "tool" and one.state == "done"]

    assert local
    assert all(one.taken_at == one.begun_at for one in local)
    assert all(one.ended_at is not None and one.ended_at >= one.begun_at for one in local)
    assert any(one.ended_at != one.begun_at for one in local)


async def test_each_child_is_a_bar_with_its_id() -> None:
    line, _ = await read(load("0.9-led"))

    assert [(one.name, one.state, one.reason) for one in line.bars if one.kind == "child"] == [
        ("led-87b63797/c1", "done", ""),
        ("led-87b63797/c2", "done", ""),
        ("led-87b63797/c3", "declined", "it was terminated: by hand"),
    ]


async def test_a_server_that_asks_has_not_failed() -> None:
    line, _ = await read(load("0.5-inquired"))

    assert [(one.label, one.state) for one in line.bars if one.label.startswith("ship")] == [
        ("ship order=1", "asked"),
        ("ship order=1", "asked"),
        ("ship order=1", "done"),
    ]


async def test_a_session_waits_for_messages() -> None:
    line, _ = await read(load("0.8-conversed"))
    waits = [one for one in line.bars if one.kind == "idle"]

    assert len(waits) > 1
    assert {one.state for one in waits} == {"done"}


async def test_what_goes_on_has_no_end_and_the_attempt_that_the_server_tells() -> None:
    history = load("0.1-completed")
    events, scheduled = [], None
    for event in history.events:
        events.append(event)
        if event.activity_task_scheduled_event_attributes.activity_type.name == "run_tool":
            scheduled = event.activity_task_scheduled_event_attributes.activity_id
            break
    reader, its = TimelineReader(), RunHistory(data_converter())
    for event in events:
        await reader.take(event, its)
    described = DescribeWorkflowExecutionResponse()
    pending = described.pending_activities.add(activity_id=scheduled, attempt=3)
    pending.last_failure.message = "the line broke"

    reader.note_pending(described)

    last = reader.timeline.bars[-1]
    assert (last.state, last.ended_at, last.attempts, last.reason) == ("open", None, 3, "the line broke")
    assert reader.timeline.ended_at is None


async def test_what_cannot_be_read_is_counted_and_shown_by_its_times() -> None:
    history = load("0.1-completed")
    for event in history.events:
        for payload in _payloads(event):
            payload.metadata["encoding"], payload.data = b"binary/encrypted", b"?"

    line, its = await read(history)

    assert line.unreadable > 0
    assert [one.kind for one in line.drawn()] == ["model", "tool", "tool", "tool", "model", "tool", "tool", "model"]
    assert all(one.ended_at is not None for one in line.bars)
    assert line.ended_at is not None
    assert its.agent is None


def _payloads(event: object) -> list[object]:
    """Return all payloads of an event, however deep."""
    found: list[object] = []
    for field, value in event.ListFields():  # type: ignore[attr-defined]
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [one for one in value.values() if hasattr(one, "ListFields")]
        else:
            values = list(value) if field.is_repeated else [value]
        for one in values:
            found += [one] if one.DESCRIPTOR.name == "Payload" else _payloads(one)
    return found


def test_bars_of_a_plan_stand_below_their_step() -> None:
    calls = [bar("tool", 0, 4, index=0), bar("tool", 1, 2, index=1), bar("tool", 3, 9, index=2), bar("person", 2, 3)]
    line = timeline(*calls, ended=9)
    steps = [
        StepResult(id="a", status="completed"),
        StepResult(id="b", status="failed", items=2, completed=1, failed=1),
    ]

    line.name_plan_steps({0: "a", 1: "b", 2: "b"}, [*steps, StepResult(id="c", status="skipped")])

    assert [(one.kind, one.plan_step, one.label, one.state) for one in line.drawn()] == [
        ("step", "a", "a", "done"),
        ("tool", "a", "tool", "done"),
        ("step", "b", "b 2 of 2 items", "failed"),
        ("tool", "b", "tool", "done"),
        ("tool", "b", "tool", "done"),
        ("person", "", "person", "done"),
    ]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-1, "0ms"),
        (0, "0ms"),
        (0.0084, "8ms"),
        (0.9996, "1.0s"),
        (59.94, "59.9s"),
        (59.96, "1m"),
        (125, "2m 5s"),
        (3600, "1h"),
        (12_000, "3h 20m"),
        (86_399.9, "1d"),
        (187_200, "2d 4h"),
    ],
)
def test_a_length_has_at_most_two_units(seconds: float, written: str) -> None:
    assert write_length(timedelta(seconds=seconds)) == written


async def test_a_local_activity_that_took_long_is_long() -> None:
    """It took 400 ms, of which the two times of its marker say nothing: the second is before the first."""
    line, _ = await read(load("0.5-local"))
    lengths = [one.ended_at - one.begun_at for one in line.bars if one.is_local and one.ended_at is not None]

    assert timedelta(seconds=0.39) < max(lengths) < timedelta(seconds=0.42)
    assert sorted(lengths)[-2] < timedelta(seconds=0.05)


@pytest.mark.parametrize("name", ["0.5-local", "0.6-spent", "0.9-led", "1.0-planned"])
async def test_the_first_local_activity_does_not_last_from_the_start_of_the_run(name: str) -> None:
    """A run may wait long for its first worker, and that is no work."""
    times, history = LocalTimes(), load(name)
    for event in history.events:
        times.note(event)
        done = read_local_activity(event)
        if done is not None and done.kind == "pin_agent":
            begun_at, ended_at = times.time(done, event.event_time.ToDatetime(UTC))
            break

    assert timedelta(0) <= ended_at - begun_at < timedelta(seconds=0.05)
