"""Receipts of workflow tasks, by which a run in memory knows what of it stands in its history.

A query may reach a worker together with events that no workflow task has taken in yet: a result that came while the
query waited for a dead or busy worker. The SDK's core takes them in to answer, sends nothing of what they brought
about, and keeps the run as it is then. The workflow task of these events would find them taken in, and do the rest in
another order than any replay does: the run would be nondeterministic for ever. So no workflow task may go on from what
was computed for a query.

No activation says whether the one before it was sent to the server. So each one that is no replay leaves a receipt, a
lang flag of its own, which core gives back once it has made the completion of a workflow task with it. A direct query
that finds the last receipt missing is refused: who asked asks again, core throws the run out of memory, and the server,
which has a workflow task for the run by then, keeps the next query until that is done. So nobody is told what is not in
the history yet.

It rests on three habits of the SDK, each held by a test in `tests/integration/workers/test_receipts.py`: the query id
`legacy_query`, flags that come back only after a completion, runs that leave memory when an activation of theirs fails.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from mandate.workflows.contracts.failures import AHEAD

SPOILED = "a query took the run ahead of its history on this worker; it is replayed"
"""Answer to the server for a workflow task that came to such a run."""

FIRST_RECEIPT = 2_000_000
"""Flags from here on are receipts; the SDK counts its own from 1. As a varint each takes three bytes of history."""

PATIENCE_SECONDS = 3.0
"""Seconds for which a run is refused to those who ask: when it was closed meanwhile, no workflow task comes."""

DIRECT_QUERY = "legacy_query"
"""Core's id of a query that came by itself, and not with a workflow task whose completion carries its answer."""

Activate = Callable[[WorkflowActivation], WorkflowActivationCompletion]


class Refusals:
    """Times at which each run was first refused at the point where it is; the oldest of many are forgotten."""

    def __init__(
        self,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        limit: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._limit = limit
        self._clock = clock
        self._first: OrderedDict[tuple[str, int], float] = OrderedDict()
        # Workflow tasks of several runs are worked on in several threads.
        self._lock = Lock()

    def may_refuse(self, run_id: str, history_length: int) -> bool:
        """Return whether the run, at this length of its history, is not refused for too long already."""
        with self._lock:
            now = self._clock()
            first = self._first.setdefault((run_id, history_length), now)
            if len(self._first) > self._limit:
                self._first.popitem(last=False)
            return now - first < self._patience_seconds

    def __len__(self) -> int:
        return len(self._first)


PROCESS = Refusals()
"""Those of all workers of this process: what is refused is thrown out of memory, so no run in memory can hold them."""


class Receipts:
    """Record of what the server knows of one run in memory."""

    def __init__(self, refusals: Refusals = PROCESS) -> None:
        self._refusals = refusals
        self._owed: int | None = None
        """Receipt of the last activation; `None` after a replay, which has all it did from the history."""
        self._is_spoiled = False

    def drive(self, act: WorkflowActivation, activate: Activate) -> WorkflowActivationCompletion:
        """Let `activate` do what `act` says, unless the run must not: then the completion is a failed one."""
        given = _taken_out(act)
        jobs = {job.WhichOneof("variant") for job in act.jobs}
        if jobs == {"query_workflow"}:
            if _is_direct(act) and self._owed is not None and self._owed not in given:
                # Marked before anybody is answered: a workflow task is not done on it, whatever core does with the run.
                self._is_spoiled = True
                if self._refusals.may_refuse(act.run_id, act.history_length):
                    return _failed(AHEAD)
            return activate(act)
        if "remove_from_cache" in jobs:
            return activate(act)
        if self._is_spoiled:
            return _failed(SPOILED)
        done = activate(act)
        self._owed = None
        if not act.is_replaying and not done.HasField("failed"):
            # Of the run's own and not an event's number: the server drops the task of a message that was refused, and
            # its event ids come again, while core has the flag already.
            self._owed = max([FIRST_RECEIPT, *given]) + 1
            done.successful.used_internal_flags.append(self._owed)
        return done


def _taken_out(act: WorkflowActivation) -> list[int]:
    """Take the receipts out of `act`, which keeps only the flags that the SDK knows."""
    given = [flag for flag in act.available_internal_flags if flag >= FIRST_RECEIPT]
    if given:
        own = [flag for flag in act.available_internal_flags if flag < FIRST_RECEIPT]
        del act.available_internal_flags[:]
        act.available_internal_flags.extend(own)
    return given


def _is_direct(act: WorkflowActivation) -> bool:
    return any(job.query_workflow.query_id == DIRECT_QUERY for job in act.jobs)


def _failed(message: str) -> WorkflowActivationCompletion:
    completion = WorkflowActivationCompletion()
    completion.failed.failure.message = message
    completion.failed.failure.application_failure_info.type = "AheadOfHistory"
    return completion
