"""Nothing touches a run while a task of it is still being worked on, in another thread or not."""

import gc
import time
from concurrent.futures import wait
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest
from temporalio.api.enums.v1 import CommandType
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance
from temporalio.worker._command_aware_visitor import CommandInfo

from mandate.workers import sandbox
from mandate.workers.sandbox import Uninterrupted, WorkflowThreads


@dataclass(eq=False)
class Running:
    """What the SDK has of a run: its tasks and its eviction are calls of one method."""

    begun: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    steps: list[str] = field(default_factory=list)

    def activate(self, name: str) -> str:
        self.steps.append(f"{name} begins")
        self.begun.set()
        assert self.go_on.wait(10)
        self.steps.append(f"{name} ends")
        return name


def test_calls_of_one_run_come_one_after_another() -> None:
    run = Running()
    with WorkflowThreads(4) as threads:
        task = threads.submit(run.activate, "task")
        assert run.begun.wait(10)
        eviction = threads.submit(run.activate, "eviction")
        time.sleep(0.1)
        before = list(run.steps)
        run.go_on.set()

        assert (task.result(10), eviction.result(10)) == ("task", "eviction")

    assert before == ["task begins"]
    assert run.steps == ["task begins", "task ends", "eviction begins", "eviction ends"]


def test_runs_do_not_wait_for_each_other() -> None:
    runs = [Running() for _ in range(4)]
    with WorkflowThreads(4) as threads:
        tasks = [threads.submit(run.activate, "task") for run in runs]
        assert all(run.begun.wait(10) for run in runs)
        for run in runs:
            run.go_on.set()
        wait(tasks, 10)

    assert [task.result() for task in tasks] == ["task"] * 4


def test_no_thread_waits_for_a_task_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WAIT_SECONDS", 0.05)
    run = Running()
    with WorkflowThreads(2) as threads:
        task = threads.submit(run.activate, "task")
        assert run.begun.wait(10)
        with pytest.raises(RuntimeError, match="a task of this run is still being worked on"):
            threads.submit(run.activate, "eviction").result(10)
        run.go_on.set()
        task.result(10)

        assert threads.submit(run.activate, "eviction").result(10) == "eviction"


def test_failures_and_plain_functions_come_through() -> None:
    class Broken:
        def activate(self) -> None:
            raise KeyError("broken")

    broken = Broken()
    with WorkflowThreads(2) as threads:
        for _ in range(2):
            with pytest.raises(KeyError, match="broken"):
                threads.submit(broken.activate).result(10)
        assert threads.submit(max, 1, 2).result(10) == 2


def test_nothing_says_in_which_thread_a_run_is() -> None:
    """The SDK interrupts a workflow task in the thread that its instance names."""

    class Inner(WorkflowInstance):
        def activate(self, act: Any) -> Any:
            return WorkflowActivationCompletion(run_id=act.run_id)

        def get_serialization_context(self, command_info: Any) -> Any:
            return command_info

        def get_external_store_context(self, command_info: Any) -> Any:
            return command_info

        def get_info(self) -> Any:
            return "info"

        def get_thread_id(self) -> int | None:
            return 7

    run = Uninterrupted(Inner())

    assert run.get_thread_id() is None
    assert (run.activate(WorkflowActivation(run_id="r")).run_id, run.get_info()) == ("r", "info")


def test_payloads_cost_no_visit_to_the_sandbox() -> None:
    """The SDK asks twice for each payload; a child's payloads are kept with the child."""
    asked: list[Any] = []

    class Inner(WorkflowInstance):
        def activate(self, act: Any) -> Any:
            return WorkflowActivationCompletion(run_id=act.run_id)

        def get_serialization_context(self, command_info: Any) -> Any:
            asked.append(command_info)
            return command_info

        def get_external_store_context(self, command_info: Any) -> Any:
            asked.append(command_info)
            return command_info or "this run"

        def get_info(self) -> Any:
            return "info"

    run = Uninterrupted(Inner())
    activity = CommandInfo(CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK, 1)
    child = CommandInfo(CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION, 2)

    assert [run.get_serialization_context(one) for one in (None, activity, child)] == [None, None, None]
    assert [run.get_external_store_context(one) for one in (None, activity, child)] == ["this run", "this run", child]
    assert asked == [None, child]


def test_runs_that_are_gone_are_forgotten() -> None:
    with WorkflowThreads(1) as threads:
        run = Running()
        run.go_on.set()
        threads.submit(run.activate, "task").result(10)
        threads.submit(max, 1, 2).result(10)
        del run
        gc.collect()

        assert len(threads._locks) == 0
