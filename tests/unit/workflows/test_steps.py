"""Steps and activities are two sides of one contract."""

import inspect
import types
import typing
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow

from mandate.activities.agent import AgentActivities
from mandate.activities.children import ChildActivities
from mandate.activities.compensation import CompensationActivities
from mandate.activities.decision import PeopleActivities
from mandate.activities.model import ModelActivities
from mandate.activities.notification import NotificationActivities
from mandate.activities.plan import PlanActivities
from mandate.activities.session import SessionActivities
from mandate.activities.tool import ToolActivities
from mandate.activities.verification import VerificationActivities
from mandate.workflows import marks, steps
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.outcomes import Attempted

ACTIVITIES: dict[str, Callable[..., Any]] = {
    activity._Definition.must_from_callable(function).name or "": function
    for holder in (
        AgentActivities,
        ChildActivities,
        CompensationActivities,
        ModelActivities,
        NotificationActivities,
        PlanActivities,
        PeopleActivities,
        SessionActivities,
        ToolActivities,
        VerificationActivities,
    )
    for _, function in inspect.getmembers(holder, inspect.isfunction)
    if activity._Definition.from_callable(function) is not None
}

REMOTE = "call_remote_activity"
"""Its activity is somebody else's."""

CHILDREN = {"start_child", "tell_child", "tell_parent_waits", "report_to_parent"}
"""What passes between a run and those below it, which no activity does."""

STEPS = {
    name: function
    for name, function in inspect.getmembers(steps, inspect.iscoroutinefunction)
    if function.__module__ == steps.__name__ and not name.startswith("_")
}


def test_every_activity_has_a_step_and_every_step_an_activity() -> None:
    assert set(STEPS) - {REMOTE, *CHILDREN} == set(ACTIVITIES)


@pytest.mark.parametrize("name", sorted(set(STEPS) - {REMOTE, *CHILDREN}))
def test_step_and_activity_take_and_return_the_same_types(name: str) -> None:
    step, act = typing.get_type_hints(STEPS[name]), typing.get_type_hints(ACTIVITIES[name])
    returned = ToolResult if step["return"] is Attempted else step["return"]

    first, *_ = inspect.signature(STEPS[name]).parameters
    assert list(inspect.signature(ACTIVITIES[name]).parameters) == ["self", first]
    assert step[first] == act[first]
    assert returned == act["return"]


@pytest.mark.parametrize("name", ["run_tool", "start_child", REMOTE])
def test_whatever_reaches_the_world_needs_a_verdict(name: str) -> None:
    parameter = inspect.signature(STEPS[name]).parameters["verdict"]

    assert parameter.default is inspect.Parameter.empty


WORDS = ("execute_activity", "start_activity", "execute_local_activity", "child_workflow(")


def test_only_steps_schedule_activities() -> None:
    """No route to the world goes around the verdict: no other workflow module starts an activity."""
    scheduling = [
        path.name
        for path in Path(steps.__file__).parent.rglob("*.py")
        if any(word in path.read_text() for word in WORDS)
    ]
    assert scheduling == ["steps.py"]


class _Counter:
    def __init__(self) -> None:
        self.running = 0

    def note_activity(self, change: int) -> None:
        self.running += change


def test_a_coroutine_that_is_thrown_away_within_another_run_leaves_that_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The garbage collector ends the coroutines of a dropped run wherever it runs, in the middle of another run too."""
    thrown_away, other = _Counter(), _Counter()
    current = [thrown_away]

    @types.coroutine
    def never(*_: Any, **__: Any) -> Generator[None, None, None]:
        yield

    monkeypatch.setattr(workflow, "instance", lambda: current[0])
    monkeypatch.setattr(workflow, "in_workflow", lambda: True)
    monkeypatch.setattr(workflow, "execute_activity", never)
    monkeypatch.setattr(steps, "_next_activity_id", lambda: "1")
    monkeypatch.setattr(marks, "activity_place", lambda *_: ())
    monkeypatch.setattr(marks, "mark", lambda *_: None)
    step = steps._perform("run_tool", ToolResult(text=""), ToolResult, summary="")
    step.send(None)
    assert thrown_away.running == 1

    current[0] = other
    step.close()

    assert other.running == 0
