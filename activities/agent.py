"""Start of a run: the agent that it works under, and the first message of its conversation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from mandate.activities import failures, session
from mandate.activities.children import AskedCalls, NoSuchCall
from mandate.activities.context.calibration import Calibration
from mandate.activities.context.limits import find_excess
from mandate.activities.context.sizes import AgentSizes, measure_message
from mandate.activities.origin import NoOrigin, NotBegun, OriginFound, Origins
from mandate.activities.people.directory import DirectoryUnavailable
from mandate.activities.people.requesters import Requester, RequesterRefused, Requesters
from mandate.activities.people.signatures import KeysUnavailable
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.providers.prices import find_window, pin_price
from mandate.activities.toolbox.schema import find_misfit
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.activities.transcript.conversation import NOTE
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import AgentPin, Pinned, PinnedAgent, PinRequest
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.changes import LOOP
from mandate.workflows.contracts.children import ChildRequest
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.origin import ContinuesRequest
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.session import SessionRecord
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.transcript import AssistantMessage, TextPart, UserMessage
from mandate.workflows.contracts.verification import CheckPin, CheckSpec, ProbePin, ProbeSpec
from mandate.workflows.rules import routing
from mandate.workflows.rules.period_budgets import Spender
from mandate.workflows.rules.plain_text import shorten

KEY_ATTEMPTS = 4
"""Number of looks for keys before a start is given up; as many as for a decision."""

RUNS_KEPT = 20
"""Runs of a session without an answer of which it is known that they began."""

GOAL_CHARACTERS = 500
"""As `start.goal_of` has of other runs."""

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
    children: Mapping[Digest, bytes] = field(default_factory=dict)
    """Contents of the agents that may work below it, by their addresses."""


class Plans(Protocol):
    """Plans that runs can be started with."""

    def names(self) -> list[str]:
        """Return the names of those that files describe."""
        ...

    def find(self, name: str) -> OfferedAgent | None:
        """Return the plan of a file."""
        ...

    async def make(self, plan: PlanSpec) -> OfferedAgent:
        """Return a plan that is data; raise `ValueError` with what is wrong in it."""
        ...


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
        origins: Origins | None = None,
        agents: PinnedAgents | None = None,
        plans: Plans | None = None,
    ) -> None:
        """Take what runs can be started with; `slow` are names of `local_activities` that wait for others here."""
        self._slow = tuple(slow)
        self._budgets = budgets
        self._origins = origins
        self._plans = plans
        self._children = AskedCalls(transcript, agents or PinnedAgents(transcript.blobs))
        self._kept: set[Digest] = set()
        """Agents of children that this process has put into the store."""
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
        if request.child is not None:
            return await self._pin_child(request, request.child)
        if request.is_plan:
            return await self._pin_plan(request)
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
        if request.in_session and requester.name:
            text = f"[{requester.name} says] {text}"
        salt = sensitive_arguments.make_salt(offered.pinned.tools)
        message = UserMessage(role="user", parts=(TextPart(kind="text", text=text),), salt=salt)
        if (excess := find_excess(offered.pinned, message)) is not None:
            raise _bad_input(f"input: {excess}")
        with failures.translate_store_errors():
            earlier = await self._find_earlier(offered.pinned) if request.in_session else None
            found = earlier.broken_off if earlier is not None else None
            if earlier is None and request.continues is not None:
                found = await self._find_origin(request.continues)
            if found is not None:
                chain = await self._go_on(offered, found.chain.head)
                chain = await self._transcript.append(chain, offered.digest, [_tell_origin(found, text, earlier)])
            elif earlier is not None:
                chain = await self._go_on(offered, earlier.state.head)
            else:
                chain = await self._transcript.start(offered.digest, message, offered.content)
            await self._keep_children(offered)
            store = await self._transcript.blobs.identity()
        is_hiding = sensitive_arguments.find_salt(chain.conversation) is not None
        log.info("agent_pinned", agent=request.agent, digest=offered.digest, head=chain.head)
        pin = _pin(offered, store, self._search_attributes, requester).model_copy(update={"hides": is_hiding})
        return Pinned(
            agent=pin,
            head=chain.head,
            earlier=earlier.state.model_dump_json(exclude_defaults=True) if earlier is not None else None,
            origin=found.origin if found is not None else None,
            tainted=found is not None and found.state.tainted,
            requester=requester.name,
            slow=self._slow,
            route=route,
            estimate=self._estimate(offered, message),
            is_counted=await self._is_counted(request, requester),
        )

    async def _pin_plan(self, request: PinRequest) -> Pinned:
        """Open the conversation of a plan with its input.

        Raises:
            ApplicationError: as `pin_agent`.
        """
        offered = await self._find_plan(request)
        assert offered.pinned.plan is not None
        assert isinstance(request.input, str)
        schema = offered.pinned.plan.input_schema
        asked = json.loads(request.input)
        if schema is not None and (misfit := find_misfit(schema, asked)) is not None:
            raise _bad_input(f"input: {misfit if asked is not None else _describe_missing(schema)}")
        requester = await self._requester(request, offered.pinned)
        message = UserMessage(
            role="user",
            parts=(TextPart(kind="text", text=request.input),),
            salt=sensitive_arguments.make_salt(offered.pinned.tools),
        )
        with failures.translate_store_errors():
            chain = await self._transcript.start(offered.digest, message, offered.content)
            await self._keep_children(offered)
            store = await self._transcript.blobs.identity()
        is_hiding = sensitive_arguments.find_salt(chain.conversation) is not None
        log.info("plan_pinned", plan=offered.pinned.name, digest=offered.digest, head=chain.head)
        pin = _pin(offered, store, self._search_attributes, requester).model_copy(update={"hides": is_hiding})
        return Pinned(agent=pin, head=chain.head, requester=requester.name, slow=self._slow)

    async def _find_plan(self, request: PinRequest) -> OfferedAgent:
        if self._plans is None:
            raise _bad_input("plan: these workers have no plans")
        if request.plan is not None:
            try:
                return await self._plans.make(request.plan)
            except ValueError as error:
                raise _bad_input(f"plan: {error}") from None
        offered = self._plans.find(request.agent)
        if offered is None:
            known = ", ".join(self._plans.names()) or "none"
            raise ApplicationError(
                f"plan: {request.agent!r} is not a plan of these workers; they have: {known}",
                type=FailureType.UNKNOWN_AGENT,
                non_retryable=True,
                category=failures.EXPECTED,
            )
        return offered

    async def _keep_children(self, offered: OfferedAgent) -> None:
        """Store the agents that may work below one, once a process: its runs keep them whatever files say later."""
        missing = [digest for digest in offered.children if digest not in self._kept]
        if missing:
            await self._transcript.blobs.put(*(offered.children[digest] for digest in missing))
            self._kept.update(missing)

    async def _pin_child(self, request: PinRequest, child: ChildRequest) -> Pinned:
        """Open the conversation of a child with the call of its parent; its agent was stored with the parent's.

        Raises:
            ApplicationError: as `pin_agent`.
        """
        with failures.translate_store_errors():
            try:
                start = await self._children.read_start(child)
            except (NoSuchCall, ValueError) as error:
                raise _bad_input(str(error)) from None
            requester = await self._requester(request, start.agent)
            offered = OfferedAgent(start.digest, start.content, start.agent)
            salt = sensitive_arguments.make_salt(start.agent.tools)
            message = UserMessage(role="user", parts=(TextPart(kind="text", text=start.text),), salt=salt)
            if start.agent.models and (excess := find_excess(start.agent, message)) is not None:
                raise _bad_input(f"input: {excess}")
            if start.below:
                await self._transcript.blobs.put(*start.below)
            chain = await self._transcript.start(offered.digest, message, offered.content)
            store = await self._transcript.blobs.identity()
        log.info("child_pinned", agent=start.agent.name, digest=offered.digest, head=chain.head)
        pin = _pin(offered, store, self._search_attributes, requester).model_copy(update={"hides": salt is not None})
        return Pinned(
            agent=pin,
            head=chain.head,
            goal=shorten(start.goal, GOAL_CHARACTERS),
            tainted=child.tainted,
            requester=requester.name,
            slow=self._slow,
            estimate=self._estimate(offered, message) if start.agent.models else 0,
            is_counted=await self._is_counted(request, requester),
        )

    async def _find_earlier(self, agent: PinnedAgent) -> "_Earlier | None":
        """Return the session's earlier run, and note that this one goes on with it; `None` for one that begins.

        Raises:
            ApplicationError: `BadInput`, the session is one of another agent; as `_find_origin`.
        """
        info, blobs = activity.info(), self._transcript.blobs
        workflow_id, run_id = info.workflow_id or "", info.workflow_run_id
        record = await session.find_session(blobs, workflow_id) or SessionRecord(number=0)
        earlier = _Earlier(RunState.model_validate_json(record.state)) if record.state is not None else None
        others = [begun for begun in reversed(record.begun) if begun != run_id]
        if (broken_off := await self._find_broken_off(workflow_id, [*others, record.run_id], earlier)) is not None:
            earlier = _Earlier(broken_off.state, broken_off)
        if earlier is not None and earlier.state.agent.name != agent.name:
            raise _bad_input(
                f"agent: the session {workflow_id!r} is one of the agent {earlier.state.agent.name!r}, "
                f"not of {agent.name!r}"
            )
        if run_id not in record.begun:
            begun = (*record.begun, run_id or "")[-RUNS_KEPT:]
            await session.keep_record(blobs, workflow_id, record.model_copy(update={"begun": begun}))
        return earlier

    async def _find_broken_off(
        self, workflow_id: str, run_ids: Sequence[str | None], earlier: "_Earlier | None"
    ) -> OriginFound | None:
        """Return the newest of a session's runs if its last turn was left open: somebody ended or stopped it.

        One that never began its work is passed over.
        """
        if self._origins is None:
            return None
        is_open, found = False, None
        if earlier is not None:
            chain = await self._transcript.load(earlier.state.head)
            newest = chain.conversation[-1]
            is_open = isinstance(newest, AssistantMessage) and bool(newest.calls)
        for run_id in filter(None, run_ids):
            try:
                found = await self._origins.find_broken_off(workflow_id, run_id, is_open=is_open)
                break
            except NotBegun as error:
                log.info("session_part_passed_over", workflow_id=workflow_id, reason=str(error))
            except NoOrigin as error:
                # What it did is not known: to go on without it might do that again.
                raise ApplicationError(
                    f"start request: the session {workflow_id!r} cannot go on now: {error}",
                    type=FailureType.CHECK_UNAVAILABLE,
                    category=failures.EXPECTED,
                ) from None
            except RPCError as error:
                raise _not_now(workflow_id, error) from None
        if found is None and is_open and earlier is not None:
            return await self._origins.find_forgotten(workflow_id, earlier.state)
        return found

    async def _find_origin(self, asked: ContinuesRequest) -> OriginFound:
        """Return where the run that this one goes on from stood.

        Raises:
            ApplicationError: `BadInput`, it cannot be gone on from; `CheckUnavailable`, retried, it does not answer.
        """
        assert self._origins is not None
        try:
            return await self._origins.find(asked)
        except NoOrigin as error:
            raise _bad_input(f"continues.{error}") from None
        except (BlobMissing, BlobCorrupted) as error:
            raise _bad_input(f"continues: the conversation of {asked.run!r} cannot be read here: {error}") from None
        except RPCError as error:
            raise _not_now(asked.run, error) from None

    async def _go_on(self, offered: OfferedAgent, head: Digest) -> Chain:
        """Return the conversation at `head`, for a run that goes on with it.

        Raises:
            ApplicationError: `BadInput`, it began without what hides sensitive arguments.
        """
        await self._transcript.blobs.put(offered.content)
        chain = await self._transcript.load(head)
        is_hiding = sensitive_arguments.make_salt(offered.pinned.tools) is not None
        if is_hiding and sensitive_arguments.find_salt(chain.conversation) is None:
            raise _bad_input(
                "the conversation to go on with began under an agent without sensitive arguments, and this one has "
                "some; begin another conversation"
            )
        return chain

    def _estimate(self, offered: OfferedAgent, message: UserMessage) -> int:
        """Return the tokens of the first request."""
        tokens = self._sizes.measure(offered.digest, offered.pinned) + measure_message(message)
        return Calibration.of(offered.pinned.models[0]).estimate(tokens)

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
            raise _bad_input(str(refused)) from None
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


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The earlier run of a session."""

    state: RunState
    broken_off: OriginFound | None = None
    """Set where somebody ended it from outside."""


def _tell_origin(found: OriginFound, text: str, earlier: _Earlier | None) -> UserMessage:
    """Return the first message of a run that goes on from another one: what is open, what that did later, the task.

    The messages of a session are told by the run itself.
    """
    origin = found.origin
    place = f"step {origin.step} of the run {origin.run}"
    lines = [
        f"{NOTE} You go on from {place}, in a run of your own; approvals of there do not count here."
        if earlier is None
        else f"{NOTE} The run was ended from outside, and goes on now. Open approvals are void."
    ]
    if origin.calls:
        lines.append(
            "After that step the other run made these calls. Do not make them again; they are done, or may be:"
        )
        lines += [
            f"- {call.line}: {'done' if call.outcome == 'done' else 'not known whether it was done'}"
            for call in origin.calls
        ]
    told = (TextPart(kind="text", text="\n".join(lines)),)
    task = (TextPart(kind="text", text=text),) if earlier is None else ()
    return UserMessage(role="user", parts=(*found.results, *told, *task))


def _not_now(run: str, error: RPCError) -> ApplicationError:
    return ApplicationError(
        f"start request: continues: {run!r} does not answer now ({error.message})",
        type=FailureType.CHECK_UNAVAILABLE,
        category=failures.EXPECTED,
    )


def _describe_missing(schema: JsonObject) -> str:
    """Say what a plan takes that was started without input."""
    properties, kind = schema.get("properties"), schema.get("type")
    if not isinstance(properties, dict) or not properties:
        return f"is missing; the plan takes {shorten(json.dumps(schema, ensure_ascii=False), GOAL_CHARACTERS)}"
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    keys = [repr(name) for name in properties if name in needed]
    keys += [f"{name!r} (may be left out)" for name in properties if name not in needed]
    return f"is missing; the plan takes an {kind or 'object'} with {shorten(', '.join(keys), GOAL_CHARACTERS)}"


def _bad_input(reason: str) -> ApplicationError:
    return ApplicationError(
        f"start request: {reason}", type=FailureType.BAD_INPUT, non_retryable=True, category=failures.EXPECTED
    )


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
        raise _bad_input(
            f"model: {shorten(model, 200)!r} {why}; "
            f"allowed are {allowed} (`models_allowed` in the agent file allows more)"
        )
    named = route[0]
    price, window = named.price or pin_price(model, None), named.window or find_window(model)
    if price is None and agent.budget.cost_usd is not None:
        raise _bad_input(
            f"model: no price is known for {shorten(model, 200)!r}, and runs of {agent.name!r} are "
            "limited in 'cost_usd'; its price belongs under `prices` in the agent file"
        )
    return (named.model_copy(update={"price": price, "window": window}),)


def _pin(offered: OfferedAgent, store: str, search_attributes: tuple[str, ...], requester: Requester) -> AgentPin:
    pinned = offered.pinned
    return AgentPin(
        name=pinned.name,
        digest=offered.digest,
        base=pinned.base,
        handed_down=pinned.handed_down,
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
        records=pinned.records,
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
