"""Start of a run: the agent that it works under, and the first message of its conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.context.limits import find_excess
from mandate.activities.people.directory import DirectoryUnavailable
from mandate.activities.people.requesters import Requester, RequesterRefused, Requesters
from mandate.activities.people.signatures import KeysUnavailable
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.log import TranscriptLog
from mandate.workflows.contracts.agent import AgentPin, Pinned, PinnedAgent, PinRequest
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.changes import LOOP
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from mandate.workflows.contracts.verification import CheckPin, CheckSpec, ProbePin, ProbeSpec

KEY_ATTEMPTS = 4
"""Number of looks for keys before a start is given up; as many as for a decision."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OfferedAgent:
    """An agent that runs can be started with."""

    digest: Digest
    content: bytes
    """The `PinnedAgent` as it is stored; its address is `digest`."""
    pinned: PinnedAgent


class AgentActivities:
    """Agents that the worker's files describe."""

    def __init__(
        self,
        offered: Mapping[str, OfferedAgent],
        transcript: TranscriptLog,
        requesters: Requesters,
        search_attributes: Sequence[str],
        *,
        slow: Sequence[str] = (),
    ) -> None:
        """Take what runs can be started with; `slow` are names of `local_activities` that wait for others here."""
        self._slow = tuple(slow)
        self._offered = offered
        self._transcript = transcript
        self._requesters = requesters
        self._search_attributes = tuple(search_attributes)

    @activity.defn
    async def pin_agent(self, request: PinRequest) -> Pinned:
        """Store the agent as it is now and open the conversation, once it is sure who asks.

        Raises:
            ApplicationError: `UnknownAgent`, or `BadInput` when the requester may not ask, not retried; a store
                failure, or `CheckUnavailable` when the file of people or the keys cannot be read now, retried.
        """
        offered = self._offered.get(request.agent)
        if offered is None:
            known = ", ".join(sorted(self._offered)) or "none"
            raise ApplicationError(
                f"agent: {request.agent!r} is not an agent of these workers; they have: {known}",
                type=FailureType.UNKNOWN_AGENT,
                non_retryable=True,
                category=failures.EXPECTED,
            )
        requester = await self._requester(request, offered.pinned)
        text = request.input if isinstance(request.input, str) else canonical_json(request.input).decode()
        salt = sensitive_arguments.make_salt(offered.pinned.tools)
        message = UserMessage(role="user", parts=(TextPart(kind="text", text=text),), salt=salt)
        if (excess := find_excess(offered.pinned, message)) is not None:
            raise ApplicationError(
                f"start request: input: {excess}",
                type=FailureType.BAD_INPUT,
                non_retryable=True,
                category=failures.EXPECTED,
            )
        with failures.translate_store_errors():
            chain = await self._transcript.start(offered.digest, message, offered.content)
            store = await self._transcript.blobs.identity()
        log.info("agent_pinned", agent=request.agent, digest=offered.digest, head=chain.head)
        pin = _pin(offered, store, self._search_attributes, requester).model_copy(update={"hides": salt is not None})
        return Pinned(agent=pin, head=chain.head, requester=requester.name, slow=self._slow)

    async def _requester(self, request: PinRequest, agent: PinnedAgent) -> Requester:
        try:
            with failures.translate_store_errors():
                return await self._requesters.check(request, agent, activity.info())
        except RequesterRefused as refused:
            raise ApplicationError(
                f"start request: {refused}",
                type=FailureType.BAD_INPUT,
                non_retryable=True,
                category=failures.EXPECTED,
            ) from None
        except (DirectoryUnavailable, KeysUnavailable) as error:
            log.warning("requester_unchecked", agent=request.agent, reason=str(error))
            # A key that a token names and nobody has may be a new one, and mostly is a wrong one.
            is_over = isinstance(error, KeysUnavailable) and activity.info().attempt >= KEY_ATTEMPTS
            raise ApplicationError(
                f"start request: it cannot be checked now who asks ({error})",
                type=FailureType.CHECK_UNAVAILABLE,
                non_retryable=is_over,
                category=failures.EXPECTED,
            ) from None


def _pin(offered: OfferedAgent, store: str, search_attributes: tuple[str, ...], requester: Requester) -> AgentPin:
    pinned = offered.pinned
    return AgentPin(
        name=pinned.name,
        digest=offered.digest,
        models=pinned.models,
        route=pinned.route,
        prefer=pinned.prefer,
        models_allowed=pinned.models_allowed,
        prices=pinned.prices,
        max_output_tokens=pinned.max_output_tokens,
        tools=tuple(definition.tool for definition in pinned.tools),
        policy=pinned.policy,
        people=pinned.people,
        requester=requester.standing,
        asks=True,
        checks=tuple(_check(check) for check in pinned.checks),
        probes={tool: _probe(probe) for tool, probe in pinned.probes.items()},
        compensable=tuple(pinned.compensations),
        attempts=pinned.attempts,
        after_failure=pinned.after_failure,
        same_call=pinned.same_call,
        recovers=True,
        controls=requester.is_controlled,
        loop=LOOP,
        budget=pinned.budget,
        tainted=pinned.tainted,
        structured=pinned.output_schema is not None,
        store=store,
        search_attributes=search_attributes,
    )


def _check(check: CheckSpec) -> CheckPin:
    assert check.name is not None
    return CheckPin(
        name=check.name,
        after=check.after,
        kind=check.kind,
        when=check.when,
        tool=check.tool,
        arguments=check.arguments,
        unable=check.unable,
        timeout=check.timeout,
        retries=check.retries,
    )


def _probe(probe: ProbeSpec) -> ProbePin:
    return ProbePin(tool=probe.tool, arguments=probe.arguments, patience=probe.patience)
