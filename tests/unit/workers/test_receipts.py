"""What was computed for a query is the base of no workflow task, in whatever order tasks and queries come."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from temporalio.bridge.proto.workflow_activation import WorkflowActivation, WorkflowActivationJob
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker._workflow_instance import _WorkflowLogicFlag

from mandate.workers.receipts import FIRST_RECEIPT, SPOILED, Receipts, Refusals
from mandate.workflows.contracts.failures import AHEAD


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Core:
    """One run in the SDK's core, as far as receipts go, and the workflow code that it drives."""

    refusals: Refusals
    given: set[int] = field(default_factory=set)
    """Flags of which a completion was made; those of the SDK among them."""
    used: set[int] = field(default_factory=set)
    """Flags since the last completion."""
    is_unsent: bool = False
    """Whether the run in memory did something that was not sent."""
    seen: list[list[int]] = field(default_factory=list)
    """Flags that workflow code was shown."""
    receipts: Receipts = field(init=False)

    def __post_init__(self) -> None:
        self.receipts = Receipts(self.refusals)

    def _drive(self, job: WorkflowActivationJob, *, is_replaying: bool = False) -> WorkflowActivationCompletion:
        act = WorkflowActivation(
            run_id="run", history_length=len(self.given), is_replaying=is_replaying, jobs=[job],
            available_internal_flags=sorted(self.given),
        )  # fmt: skip
        done = self.receipts.drive(act, self._workflow)
        self.used |= set(done.successful.used_internal_flags)
        return done

    def _workflow(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self.seen.append(list(act.available_internal_flags))
        done = WorkflowActivationCompletion()
        done.successful.SetInParent()
        return done

    def task(self) -> WorkflowActivationCompletion:
        """A workflow task of one activation, sent unless it failed."""
        done = self._drive(_work())
        if not done.HasField("failed"):
            self.given |= self.used
            self.used, self.is_unsent = set(), False
        return done

    def replay(self) -> WorkflowActivationCompletion:
        return self._drive(_work(), is_replaying=True)

    def take_in(self) -> WorkflowActivationCompletion:
        """What a query does with events that no workflow task has taken in."""
        done = self._drive(_work())
        self.is_unsent = self.is_unsent or not done.HasField("failed")
        return done

    def query(self, query_id: str = "legacy_query") -> WorkflowActivationCompletion:
        job = WorkflowActivationJob()
        job.query_workflow.query_id = query_id
        return self._drive(job)

    def evict(self) -> WorkflowActivationCompletion:
        job = WorkflowActivationJob()
        job.remove_from_cache.message = "gone"
        done = self._drive(job)
        self.receipts, self.used, self.is_unsent = Receipts(self.refusals), set(), False
        return done


def _work() -> WorkflowActivationJob:
    job = WorkflowActivationJob()
    job.fire_timer.seq = 1
    return job


def new_core(**refusals: Callable[[], float] | int) -> Core:
    return Core(Refusals(**refusals))  # type: ignore[arg-type]


def error_of(done: WorkflowActivationCompletion) -> str | None:
    return done.failed.failure.message if done.HasField("failed") else None


def test_a_query_ahead_of_the_history_is_refused() -> None:
    core = new_core()
    core.task()
    core.take_in()

    assert error_of(core.query()) == AHEAD


def test_a_query_of_what_is_in_the_history_is_answered() -> None:
    core = new_core()
    answers = [core.task(), core.query(), core.task(), core.query(), core.query()]

    assert [error_of(done) for done in answers] == [None] * 5


def test_a_query_of_a_replayed_run_is_answered() -> None:
    core = new_core()
    core.replay()

    assert error_of(core.query()) is None


def test_a_query_that_comes_with_a_workflow_task_is_answered() -> None:
    """Its answer goes out with the completion of the task."""
    core = new_core()
    core.take_in()

    assert error_of(core.query("2f0e")) is None


def test_a_receipt_of_a_replay_is_owed_no_more() -> None:
    core = new_core()
    core.take_in()
    core.replay()

    assert error_of(core.query()) is None


def test_no_workflow_task_is_done_on_a_run_that_was_refused() -> None:
    """Core evicts it for the refusal; were it not to, its workflow task fails and the run is replayed."""
    core = new_core()
    core.take_in()
    core.query()

    assert error_of(core.task()) == SPOILED
    assert error_of(core.evict()) is None
    assert error_of(core.task()) is None


def test_a_run_that_no_workflow_task_comes_to_answers_after_a_while_and_is_spoiled() -> None:
    clock = Clock()
    core = new_core(clock=clock)
    said = []
    for clock.now in (0.0, 1.0, 2.9, 3.0):
        core.evict()
        core.take_in()
        said.append(error_of(core.query()))

    assert said == [AHEAD, AHEAD, AHEAD, None]
    assert error_of(core.query()) is None
    assert error_of(core.task()) == SPOILED


def test_workflow_code_sees_the_flags_of_the_sdk_alone() -> None:
    core = new_core()
    core.given = {1, 2}
    core.task()
    core.task()
    core.query()

    assert core.seen == [[1, 2]] * 3


def test_receipts_are_none_of_the_flags_of_the_sdk() -> None:
    assert max(_WorkflowLogicFlag) < FIRST_RECEIPT // 1000
    assert FIRST_RECEIPT + 50_000 < 2**21, "a varint of three bytes"


def test_each_receipt_is_another_one_after_a_dropped_task() -> None:
    core = new_core()
    core.given = {1, FIRST_RECEIPT + 7}
    core.take_in()
    core.task()
    core.evict()
    core.task()

    assert sorted(core.given) == [1, FIRST_RECEIPT + 7, FIRST_RECEIPT + 8, FIRST_RECEIPT + 9]


def test_a_failed_activation_leaves_no_receipt() -> None:
    def fail(act: WorkflowActivation) -> WorkflowActivationCompletion:
        done = WorkflowActivationCompletion()
        done.failed.failure.message = "broken"
        return done

    done = Receipts(Refusals()).drive(WorkflowActivation(run_id="run", jobs=[_work()]), fail)

    assert (error_of(done), list(done.successful.used_internal_flags)) == ("broken", [])


STEPS = st.sampled_from(["task", "ahead", "query", "replay", "evict", "wait"])


@given(st.lists(STEPS, min_size=1, max_size=30), st.booleans())
def test_what_was_not_sent_is_seen_by_nobody_and_the_base_of_no_task(steps: list[str], evicts: bool) -> None:
    """Also were core not to evict what was refused; `wait` is longer than a run is refused."""
    clock = Clock()
    core = new_core(clock=clock)
    first: dict[int, float] = {}
    for step in steps:
        unsent, taken_in = core.is_unsent, len(core.seen)
        match step:
            case "wait":
                clock.now += 10
            case "evict":
                core.evict()
            case "replay":
                core.evict()
                assert error_of(core.replay()) is None
            case "task":
                said = error_of(core.task())
                assert said == (SPOILED if unsent else None)
                assert (len(core.seen) > taken_in) is not unsent
                if said is not None:
                    core.evict()
            case _:
                if step == "ahead":
                    core.take_in()
                is_new = clock.now - first.setdefault(len(core.given), clock.now) < 3 if core.is_unsent else False
                said = error_of(core.query())
                assert said == (AHEAD if core.is_unsent and is_new else None)
                if said is not None and evicts:
                    core.evict()


def test_refusals_are_forgotten_oldest_first() -> None:
    clock = Clock()
    refusals = Refusals(limit=3, clock=clock)
    for number in range(5):
        refusals.may_refuse(f"run {number}", 7)
    clock.now = 10.0

    assert len(refusals) == 3
    assert [refusals.may_refuse(f"run {number}", 7) for number in (4, 3, 2)] == [False] * 3
    assert refusals.may_refuse("run 0", 7)
    assert refusals.may_refuse("run 4", 8)


def test_refusals_are_counted_by_many_threads() -> None:
    refusals = Refusals(limit=50)
    with ThreadPoolExecutor(16) as threads:
        said = list(threads.map(lambda number: refusals.may_refuse(f"run {number % 200}", 1), range(20_000)))

    assert all(said)
    assert len(refusals) == 50
