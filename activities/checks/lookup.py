"""Calls of read tools that the runtime makes itself, to find out what is true of the world."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox import arguments
from mandate.activities.toolbox.base import CallContext, Toolbox, ToolText, is_read, make_attempt
from mandate.activities.toolbox.contained_tasks import is_cancelled
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.rules import quantities


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a read tool."""

    tool: str
    arguments: JsonObject
    about: tuple[str, ...]
    """Names what is asked about; equal in every attempt."""
    step: int
    requester: str | None = None


class ReadTools:
    """The toolboxes of `run_tool`, for reads only."""

    def __init__(self, toolboxes: Mapping[str, Toolbox]) -> None:
        self._toolboxes = toolboxes

    async def ask(self, agent: PinnedAgent, question: Question, *, within: timedelta) -> str:
        """Call the tool and return its result.

        Raises:
            ToolError: not done when it may not be called at all or not so, or says itself that it failed; else as
                its toolbox says, or it took too long.
            asyncio.CancelledError: the caller was cancelled, also where the tool returned nevertheless.
        """
        answer = await self._call(agent, question, within)
        if answer.error:
            raise ToolError(Outcome.NOT_DONE, f"{question.tool!r} says: {answer.text}")
        return answer.text

    async def look(self, agent: PinnedAgent, question: Question, *, within: timedelta) -> str:
        """Ask as `ask` does, and return `null` where the tool says that there is no such thing."""
        answer = await self._call(agent, question, within)
        if answer.error and not answer.is_missing:
            raise ToolError(Outcome.NOT_DONE, f"{question.tool!r} says: {answer.text}")
        return "null" if answer.error else answer.text

    async def _call(self, agent: PinnedAgent, question: Question, within: timedelta) -> ToolText:
        definition = agent.definition(question.tool)
        toolbox = self._toolboxes.get(definition.binding.kind) if definition is not None else None
        if definition is None or toolbox is None or not is_read(definition.tool):
            raise Unaskable(f"{question.tool!r} is no read tool that this worker can call")
        fault = arguments.find_misfit(definition, question.arguments)
        if fault is not None:
            raise Unaskable(f"the arguments for {question.tool!r} do not fit: {fault}")
        timeout = min(definition.tool.timeout, within)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                answer = await make_attempt(toolbox, definition, question.arguments, _context(question, timeout))
        except TimeoutError:
            reason = (
                f"{question.tool!r} did not answer within {quantities.write_seconds(round(timeout.total_seconds(), 1))}"
            )
            raise ToolError(Outcome.UNKNOWN, reason) from None
        if is_cancelled():
            # The tool returned in the same moment: who asks again and again would never end.
            raise asyncio.CancelledError
        return answer


class Unaskable(ToolError):
    """A question that will never be answered as it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(Outcome.NOT_SENT, reason)


def _context(question: Question, timeout: timedelta) -> CallContext:
    info = activity.info()
    run = info.workflow_run_id or ""
    return CallContext(
        workflow_id=info.workflow_id or "",
        run_id=run,
        step=question.step,
        idempotency_key=digest_of(canonical_json([run, *question.about, question.arguments])),
        attempt=info.attempt,
        timeout=timeout,
        requester=question.requester,
    )
