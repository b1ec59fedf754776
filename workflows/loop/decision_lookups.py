"""Decisions that come together are looked up together: one activity for fifty of them, in place of fifty."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.decision_lookups import DecisionChecks
from mandate.workflows.contracts.request import MOST_DECISIONS, Checked, DecisionCheck

TOGETHER_BYTES = 512 * 1024
"""Of checks in one activity, as JSON: Temporal carries two megabytes."""

Waiting = tuple[DecisionCheck, asyncio.Future[Checked]]


class Lookups:
    """The lookups of one run."""

    def __init__(self, locally: Callable[[], steps.Locally | None]) -> None:
        """Take `locally`, which says whether the next lookup may run within the workflow task."""
        self._locally = locally
        self._waiting: list[Waiting] = []
        self._under_way: dict[asyncio.Task[None], None] = {}

    async def checked(self, check: DecisionCheck) -> Checked:
        """Check as `steps.check_decision`; all that ask in one turn of the event loop share an activity."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Checked] = loop.create_future()
        self._waiting.append((check, found))
        if len(self._waiting) == 1:
            loop.call_soon(self._begin)
        return await found

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        for some in _together(waiting):
            task = asyncio.create_task(self._look_up(some))
            self._under_way[task] = None
            task.add_done_callback(self._under_way.pop)

    async def _look_up(self, some: Sequence[Waiting]) -> None:
        try:
            checked = await self._check([check for check, _ in some])
        except ActivityError as error:
            if len(some) > 1 and _may_be_of_one(error):
                await asyncio.gather(*(self._look_up([one]) for one in some))
                return
            _fail(some, error)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits raises it, which this task would do unheard
            _fail(some, error)
            return
        for (_, found), one in zip(some, checked, strict=True):
            if not found.done():
                found.set_result(one)

    async def _check(self, checks: Sequence[DecisionCheck]) -> Sequence[Checked]:
        locally = self._locally()
        if len(checks) == 1:
            return [await steps.check_decision(checks[0], locally=locally)]
        return (await steps.check_decisions(DecisionChecks(checks=tuple(checks)), locally=locally)).checked


def _fail(some: Sequence[Waiting], error: Exception) -> None:
    for _, found in some:
        if not found.done():
            found.set_exception(error)


def _may_be_of_one(error: ActivityError) -> bool:
    """Return whether others may be checked all the same; a worker that has no time has it for none of them."""
    return isinstance(error.cause, ApplicationError) and not is_cancelled_exception(error)


def _together(waiting: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Group those that fit into one activity each; changed arguments, which come back whole, go by themselves."""
    some: list[Waiting] = []
    size = 0
    for one in waiting:
        check = one[0]
        if check.request.kind == "approval" and check.decision.value is not None:
            yield [one]
            continue
        its = len(check.model_dump_json())
        if some and (len(some) == MOST_DECISIONS or size + its > TOGETHER_BYTES):
            yield some
            some, size = [], 0
        some.append(one)
        size += its
    if some:
        yield some
