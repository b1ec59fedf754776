"""Start of a run: the agent that it works under, and the first message of its conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.context import calibration
from mandate.activities.context.limits import find_excess
from mandate.activities.context.sizes import AgentSizes, measure_message
from mandate.activities.people.directory import DirectoryUnavailable
from mandate.activities.people.requesters import Requester, RequesterRefused, Requesters
from mandate.activities.people.signatures import KeysUnavailable
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.providers.prices import find_window, pin_price
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.log import TranscriptLog
from mandate.workflows.contracts.agent import AgentPin, Pinned, PinnedAgent, PinRequest
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.changes import LOOP
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from mandate.workflows.contracts.verification import CheckPin, CheckSpec, ProbePin, ProbeSpec
from mandate.workflows.rules import routing
from mandate.workflows.rules.period_budgets import Spender
from mandate.workflows.rules.plain_text import shorten

KEY_ATTEMPTS = 4
"""Number of looks for keys before a start is given up; as many as for a decision."""

ALLOWED_CHARACTERS = 500
"""Of the models that a refusal names."""

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
        budgets: PeriodBudgets | None = None,
    ) -> None:
        """Take what runs can be started with; `slow` are names of `local_activities` that wait for others here."""
        self._slow = tuple(slow)
        self._budgets = budgets
        self._sizes = AgentSizes()
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
        route = _name_route(offered.pinned, request.model)
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
        return Pinned(
            agent=pin,
            head=chain.head,
            requester=requester.name,
            slow=self._slow,
            route=route,
            estimate=self._estimate(offered, message),
            is_counted=await self._is_counted(request, requester),
        )

    def _estimate(self, offered: OfferedAgent, message: UserMessage) -> int:
        """Return the tokens of the first request."""
        tokens = self._sizes.measure(offered.digest, offered.pinned) + measure_message(message)
        return calibration.estimate_request(0, tokens, calibration.UNKNOWN)

    async def _is_counted(self, request: PinRequest, requester: Requester) -> bool:
        if self._budgets is None:
            return False
        spender = Spender(request.agent, requester.name or request.requester, request.labels)
        return bool(await self._budgets.find_shares(spender))

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


def _name_route(agent: PinnedAgent, model: str | None) -> tuple[RoutePin, ...]:
    """Return the route of a run that names its model; empty when it follows the agent's.

    Raises:
        ApplicationError: `BadInput`, the agent does not allow that model, or limits money and nobody knows its price.
    """
    if model is None:
        return ()
    if not (route := routing.name_route(agent, model)):
        allowed = shorten(", ".join(routing.list_allowed(agent)), ALLOWED_CHARACTERS)
        why = f"is not a model that runs of {agent.name!r} may name"
        if "*" in model:
            why = "is a pattern, and a run names one model without `*`"
        raise ApplicationError(
            f"start request: model: {shorten(model, 200)!r} {why}; "
            f"allowed are {allowed} (`models_allowed` in the agent file allows more)",
            type=FailureType.BAD_INPUT,
            non_retryable=True,
            category=failures.EXPECTED,
        )
    named = route[0]
    price, window = named.price or pin_price(model, None), named.window or find_window(model)
    if price is None and agent.budget.cost_usd is not None:
        raise ApplicationError(
            f"start request: model: no price is known for {shorten(model, 200)!r}, and runs of {agent.name!r} are "
            "limited in 'cost_usd'; its price belongs under `prices` in the agent file",
            type=FailureType.BAD_INPUT,
            non_retryable=True,
            category=failures.EXPECTED,
        )
    return (named.model_copy(update={"price": price, "window": window}),)


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
        models=check.route,
    )


def _probe(probe: ProbeSpec) -> ProbePin:
    return ProbePin(tool=probe.tool, arguments=probe.arguments, patience=probe.patience)
