"""Notifications of requests, in the background: nothing waits for them."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.request import Notice, NotifyRequest, Request
from mandate.workflows.loop import approvals
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import local_activities

NOTICES = 25
"""Requests that one activity tells people of."""

Occasion = Literal["asked", "reminder", "escalated"]


class Notifications:
    """Notifications that are on their way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # In the order in which they began: a replay has to cancel them in the same one.
        self._under_way: dict[asyncio.Task[None], None] = {}

    @property
    def is_quiet(self) -> bool:
        """True if no notification is on its way."""
        return not self._under_way

    def tell(self, requests: Sequence[Request], occasion: Occasion) -> None:
        """Notify people, in the background: nothing waits for it."""
        number = 0 if occasion == "asked" else int(workflow.now().timestamp())
        its = self._run.state
        for first in range(0, len(requests), NOTICES):
            told = NotifyRequest(
                workflow_id=workflow.info().workflow_id,
                run_id=workflow.info().first_execution_run_id,
                agent=its.agent.name,
                requester=its.requester,
                labels=its.labels,
                notices=tuple(
                    Notice(request=approvals.view(self._run, request), occasion=occasion, number=number)
                    for request in requests[first : first + NOTICES]
                ),
            )
            task = asyncio.create_task(self._notify(told))
            self._under_way[task] = None
            task.add_done_callback(self._under_way.pop)

    def cancel(self) -> None:
        """Cancel what is under way as the run ends: whoever has not been told need not be."""
        for task in tuple(self._under_way):
            task.cancel()

    async def _notify(self, told: NotifyRequest) -> None:
        try:
            notified = await steps.notify_people(told, locally=self._run.perform_locally(local_activities.NOTICES))
            failures = notified.failures
        except ActivityError as error:
            if is_cancelled_exception(error):
                return
            failures = (f"people could not be notified: {error.cause or error}",)
        for failure in failures:
            self._run.record_step(failure)
