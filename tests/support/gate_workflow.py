"""A small workflow that asks for a decision once a result is there, and takes it by update and by signal."""

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

TIMER_SECONDS = 8


@activity.defn
async def step() -> str:
    """Activities named `held-...` are completed from outside."""
    if activity.info().activity_id.startswith("held-"):
        activity.raise_complete_async()
    return "done"


@workflow.defn(name="Gate")
class GateWorkflow:
    """Takes a result in, opens request r2, and waits for a decision on it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        """Requests that are seen and take no decision yet."""
        self.open: list[str] = []
        self.is_paused = self.is_decided = False

    @workflow.run
    async def run(self, first: str, steps: str) -> str:
        """`first` is what comes before the request, `steps` the task queue of the activities."""
        self.steps = steps
        match first:
            case "timer":
                await workflow.sleep(timedelta(seconds=TIMER_SECONDS))
            case "activity":
                await self._step("held-model")
        if first == "young":
            # r2 is shown at once, and takes decisions once an activity of its workflow task has completed.
            await self._step("held-model")
            self.shown.append("r2")
            await self._step("stand")
            self.open.append("r2")
        elif first == "ready":
            # The same one step on: r2 was shown before, and that activity completes.
            self.shown.append("r2")
            await self._step("held-notify")
            self.open.append("r2")
            await self._step("stand")
        elif not self.is_paused:
            self.open.append("r2")
            await self._step("notify")
        await workflow.wait_condition(lambda: self.is_decided and not self.is_paused)
        return "decided"

    async def _step(self, name: str) -> None:
        await workflow.execute_activity(
            step, activity_id=name, task_queue=self.steps, start_to_close_timeout=timedelta(minutes=5)
        )

    async def _decide(self, request: str) -> None:
        if request not in self.open:
            raise ApplicationError(f"no request {request} is open", non_retryable=True)
        await self._step("check")
        self.is_decided = True

    @workflow.update
    async def decide(self, request: str) -> str:
        await self._decide(request)
        return "taken"

    @workflow.update
    async def decide_checked(self, request: str) -> str:
        await self._decide(request)
        return "taken"

    @decide_checked.validator
    def check(self, request: str) -> None:
        if request not in self.open:
            raise ApplicationError(f"{request} takes no decision yet")

    @workflow.signal
    async def decide_signal(self, request: str) -> None:
        if request in self.open:
            await self._decide(request)

    @workflow.update
    async def pause(self) -> str:
        self.is_paused = True
        return "paused"

    @workflow.signal
    def pause_signal(self) -> None:
        self.is_paused = True

    @workflow.update
    async def note(self) -> str:
        return "noted"

    @workflow.signal
    def poke(self) -> None:
        """It only has to come."""

    @workflow.query
    def requests(self) -> dict[str, Any]:
        return {"open": self.open or self.shown, "paused": self.is_paused}
