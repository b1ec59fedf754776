"""Intake of events: each starts its run or is said to its session once, however often it comes.

Temporal keeps what has been taken in: the workflow id of a run is that of its event, the id of a message is its key.
So an event may be delivered again after any crash, and whoever delivers it may forget it once `take` has returned.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, assert_never

from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.client import AgentClient
from mandate.workers.client.earlier_run import UsedId
from mandate.workers.client.trace_context import CALLER
from mandate.workers.client.updates import MessageError, NoAnswer
from mandate.workers.events.cloud_event import CloudEvent
from mandate.workers.events.routing import Ignored, Speak, Start, StartPlan, Unusable, find_route
from mandate.workers.events.triggers import Trigger
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import sessions

PATIENCE_SECONDS = 30.0
"""Time for which one event is tried before its sender is told to send it again."""

LOOK_SECONDS = 1.0
"""Time after which a session that has not answered is asked whether it knows the message."""

Status = Literal["accepted", "duplicate", "ignored", "dead"]
"""`dead`: nothing can be done with it, and whoever took it keeps it as a dead letter."""


class Unavailable(Exception):
    """Temporal or the workers do not answer: the event may have been taken in, and is to be sent again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of one event, as it was taken in."""

    status: Status
    trigger: str | None = None
    """`None` where none matches."""
    workflow_id: str | None = None
    """Of the run that it started or the session that it was said to."""
    reason: str | None = None
    """Why it is dead, in one sentence."""


class Intake:
    """Takes events in by the triggers of a file."""

    def __init__(
        self, client: AgentClient, triggers: Sequence[Trigger], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._client = client
        self._triggers = triggers
        self._patience_seconds = patience_seconds

    async def take(self, event: CloudEvent) -> Outcome:
        """Do what the first trigger that matches says, and return when Temporal has it.

        Raises:
            Unavailable: it is not known to be done; to take it again is safe.
        """
        route = find_route(self._triggers, event)
        if isinstance(route, Unusable):
            return Outcome("dead", route.trigger.id if route.trigger is not None else None, reason=route.reason)
        if isinstance(route, Ignored):
            return Outcome("ignored", route.trigger.id)
        # The extension "distributed tracing" of CloudEvents.
        caller = CALLER.set(event.attributes.get("traceparent", ""))
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._perform(route, event)
        except TimeoutError:
            raise Unavailable(f"there was no answer within {self._patience_seconds:g} s") from None
        except NoAnswer as error:
            raise Unavailable(str(error)) from None
        except (ValueError, MessageError) as error:
            return Outcome("dead", route.trigger.id, reason=str(error))
        except RPCError as error:
            said = " ".join(error.message.split())
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                return Outcome("dead", route.trigger.id, reason=f"Temporal refuses it: {said}")
            raise Unavailable(f"Temporal does not answer: {said}") from None
        finally:
            CALLER.reset(caller)

    async def _perform(self, route: Start | StartPlan | Speak, event: CloudEvent) -> Outcome:
        match route:
            case Start() | StartPlan():
                return await self._start(route, event.workflow_id)
            case Speak():
                await self._speak(route, event.key)
                return Outcome("accepted", route.trigger.id, route.workflow_id)
            case _:
                assert_never(route)

    async def _start(self, route: Start | StartPlan, workflow_id: str) -> Outcome:
        trigger, client = route.trigger, self._client
        budget = trigger.budget.model_dump(mode="json", exclude_none=True) if trigger.budget is not None else None
        try:
            if isinstance(route, Start):
                await client.start(
                    route.agent,
                    route.input,
                    workflow_id=workflow_id,
                    requester=route.requester,
                    labels=trigger.labels,
                    budget=budget,
                    model=route.model,
                    tainted=trigger.untrusted,
                )
            else:
                await client.start_plan(
                    route.plan,
                    route.input,
                    workflow_id=workflow_id,
                    requester=route.requester,
                    labels=trigger.labels,
                    budget=budget,
                    tainted=trigger.untrusted,
                )
        except UsedId:
            return Outcome("duplicate", trigger.id, workflow_id)
        return Outcome("accepted", trigger.id, workflow_id)

    async def _speak(self, route: Speak, message_id: str) -> None:
        """Say something, and return when the session knows it: its reply may take as long as people do."""
        trigger = route.trigger
        saying = asyncio.ensure_future(
            self._client.say(
                route.workflow_id,
                route.agent,
                route.text,
                by=route.by,
                message_id=message_id,
                idle=route.idle,
                tainted=trigger.untrusted,
                labels=trigger.labels,
                budget=trigger.budget.model_dump(mode="json", exclude_none=True) if trigger.budget else None,
                model=route.model,
                patience_seconds=self._patience_seconds,
            )
        )
        try:
            while True:
                await asyncio.wait({saying}, timeout=LOOK_SECONDS)
                if saying.done():
                    saying.result()
                    return
                if await self._is_known(route.workflow_id, message_id):
                    return
        finally:
            saying.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await saying

    async def _is_known(self, workflow_id: str, message_id: str) -> bool:
        # Only a worker that has taken the message in can say so: an update that was accepted may still be refused.
        try:
            state = await self._client.handle(workflow_id).query("state", result_type=RunState)
        except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            return False
        return state.session is not None and sessions.is_known(state.session, message_id)
