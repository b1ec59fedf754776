"""One model call: tell the model what is new, read its answer, extend the conversation."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures, heartbeat
from mandate.activities.checks.purse import Purse
from mandate.activities.context.assembly import Assembled, ContextAssembler
from mandate.activities.context.estimate import estimate_tokens
from mandate.activities.context.sizes import write_instructions
from mandate.activities.context.summary import Allowance
from mandate.activities.grants import Attempts, may_be_billed
from mandate.activities.own_files import PATIENCE
from mandate.activities.period_budgets import Held, PeriodBudgets
from mandate.activities.providers.base import Completion, MakeProvider, Prompt, Provider
from mandate.activities.providers.breaker import Breakers
from mandate.activities.toolbox import arguments, schema
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import (
    ANSWER_SPARE,
    OUTPUT_INLINE_BYTES,
    Finish,
    ModelReply,
    ModelRequest,
    Payer,
    Usage,
)
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.transcript import AssistantMessage, Message, TextPart, UserMessage
from mandate.workflows.rules import budget, routing
from mandate.workflows.rules.period_budgets import Spender

log = structlog.stdlib.get_logger(__name__)

TEXT_PREVIEW_CHARACTERS = 80


class ModelActivities:
    """Providers that the worker is configured for; each is made at its first use."""

    def __init__(
        self,
        providers: Mapping[str, MakeProvider],
        agents: PinnedAgents,
        transcript: TranscriptLog,
        budgets: PeriodBudgets | None = None,
    ) -> None:
        """Take the makers of providers; `budgets` are those beyond one run."""
        self._budgets = budgets
        self._makers = providers
        self._providers: dict[str, asyncio.Task[Provider]] = {}
        self._agents = agents
        self._transcript = transcript
        self.breakers = Breakers()
        self._context = ContextAssembler(transcript, self.provider)

    async def open(self, names: Sequence[str]) -> None:
        """Make the named providers now, so that their imports hold up no call."""
        for name in names:
            if name in self._makers:
                await self.provider(name)

    async def close(self) -> None:
        for task in self._providers.values():
            if task.done() and not task.exception():
                await task.result().close()

    @activity.defn
    async def call_model(self, request: ModelRequest) -> ModelReply:
        """Ask one model for one answer.

        Raises:
            ApplicationError: `NeedsState`: the conversation is to be cut, and nothing was sent; `ModelRejected` or
                `ContextTooLong`, not retried; `ModelUnavailable` and store failures, retried, after the provider's
                `retry-after` if it gave one.
        """
        attempts = Attempts.read(request.grant)
        async with heartbeat.send_heartbeats(attempts.describe()):
            try:
                return await self._try_once(attempts, request)
            except ApplicationError as error:
                # Whatever this attempt failed at: those that were lost before it are told.
                attempts.fail(error)

    async def _try_once(self, attempts: Attempts, request: ModelRequest) -> ModelReply:
        with failures.translate_store_errors():
            agent = await self._agents.get(request.agent)
        await self._assume_lost(agent, request)
        with failures.translate_store_errors():
            chain = await self._transcript.load(request.head)
            messages = await self._build_message(agent, chain, request)
            allowance = self._allow_summaries(agent, request, attempts)
            assembled = await self._context.assemble(agent, chain, messages, request, allowance=allowance)
        attempts.count_beside(assembled.usage, assembled.lost)
        attempts.check(assembled.estimate)
        held = await self._hold(agent, assembled.estimate, request)
        began = time.monotonic()
        try:
            assembled, completion = await self._complete_within(agent, assembled, request, attempts)
        except ApplicationError as error:
            if held is not None:
                await (held.assume() if may_be_billed(error) else held.settle(Amount()))
            raise
        except asyncio.CancelledError:
            # Cut off by a limit of time, or by the end of the worker: the provider may go on, and bill it.
            if held is not None:
                await held.assume()
            raise
        attempts.is_answered = True
        completion = _count_cached(completion, request)
        seconds = round(time.monotonic() - began, 2) if agent.prefer == "latency" else 0.0
        told: dict[str, object] = {"latency": seconds, "lost": attempts.lost + attempts.lost_beside}
        if held is not None:
            usage = completion.usage
            await (held.assume() if usage.unpriced_calls else held.settle(budget.measure_usage(usage)))
            told["period_cost_usd"] = held.use.cost_usd if held.use is not None else None
        with failures.translate_store_errors():
            reply = await self._reply(agent, assembled, request, completion)
        return reply.model_copy(update=told) if any(told.values()) else reply

    def _allow_summaries(self, agent: PinnedAgent, request: ModelRequest, attempts: Attempts) -> Allowance:
        """Return what summaries for this call may take: one takes the place of an attempt, and no more than it may."""
        payer, grant = request.payer, request.grant
        spender = Spender(agent.name, payer.requester, payer.labels) if payer is not None else None
        purse = Purse(estimate_tokens, budgets=self._budgets, spender=spender)
        if grant is None:
            return Allowance(purse)
        price = agent.price(request.model or agent.models[0])
        worth = budget.measure_call(budget.CallSize(grant.input_tokens, grant.output_tokens, price))
        return Allowance(purse, worth, attempts.spare)

    async def _assume_lost(self, agent: PinnedAgent, request: ModelRequest) -> None:
        """Count what attempts before this one still hold, whatever becomes of this one: their workers were lost."""
        info = activity.info()
        if info.attempt > 1 and self._budgets is not None and request.payer is not None:
            earlier = [_name_reservation(info, attempt) for attempt in range(1, info.attempt)]
            await self._budgets.assume_lost(earlier, _make_spender(agent, request.payer))

    async def _hold(self, agent: PinnedAgent, input_tokens: int, request: ModelRequest) -> Held | None:
        """Hold what this attempt may take in the budgets beyond the run that it counts in."""
        if self._budgets is None or request.payer is None:
            return None
        info, model = activity.info(), request.model or agent.models[0]
        price = agent.price(model)
        longest = _find_longest(agent, request, routing.find_pin(agent.route, model))
        return await self._budgets.hold(
            _name_reservation(info, info.attempt),
            _make_spender(agent, request.payer),
            budget.measure_call(budget.CallSize(input_tokens, longest, price)),
            unpriced_model=model if price is None else None,
        )

    async def _complete_within(
        self, agent: PinnedAgent, assembled: Assembled, request: ModelRequest, attempts: Attempts
    ) -> tuple[Assembled, Completion]:
        """Return the answer and the request that it is to: a shorter one where the model takes less than is known."""
        while True:
            try:
                return assembled, await self._complete(agent, assembled, request)
            except ApplicationError as error:
                if error.type != FailureType.CONTEXT_TOO_LONG:
                    raise
                with failures.translate_store_errors():
                    allowance = self._allow_summaries(agent, request, attempts)
                    assembled = await self._context.shorten(agent, assembled, request, error, allowance=allowance)
                attempts.count_beside(assembled.usage, assembled.lost)

    async def _build_message(self, agent: PinnedAgent, chain: Chain, request: ModelRequest) -> tuple[Message, ...]:
        """Return the results of the last turn's calls, the runtime's note and people's messages, as one message."""
        parts = await results.build_parts(self._transcript.blobs, agent, chain.conversation, request.results)
        note = (TextPart(kind="text", text=f"[Note from the runtime] {request.note}"),) if request.note else ()
        words = tuple(TextPart(kind="text", text=f"[{word.by} says] {word.text}") for word in request.words)
        contents = (*parts, *note, *words)
        return (UserMessage(role="user", parts=contents),) if contents else ()

    async def _complete(self, agent: PinnedAgent, assembled: Assembled, request: ModelRequest) -> Completion:
        provider, _, model = (request.model or agent.models[0]).partition(":")
        info = activity.info()
        pin = routing.find_pin(agent.route, f"{provider}:{model}")
        prompt = Prompt(
            model=model,
            instructions=write_instructions(agent),
            tools=agent.tools,
            agent=request.agent,
            conversation=assembled.conversation,
            max_output_tokens=_find_longest(agent, request, pin),
            is_last=request.is_last,
            price=agent.price(f"{provider}:{model}"),
            timeout=_find_time(info),
            attempt=info.attempt,
            has_others=request.has_others,
            params=agent.params.get(f"{provider}:{model}", {}),
        )
        completion = await (await self.provider(provider)).complete(prompt)
        log.info(
            "model_answered",
            model=f"{provider}:{model}",
            step=request.step,
            finish=str(completion.finish),
            calls=len(completion.message.calls),
            input_tokens=completion.usage.input_tokens,
            output_tokens=completion.usage.output_tokens,
        )
        return completion

    async def _reply(
        self, agent: PinnedAgent, assembled: Assembled, request: ModelRequest, completion: Completion
    ) -> ModelReply:
        message, chain, messages = completion.message, assembled.chain, assembled.told
        usage = completion.usage + assembled.usage
        measured = self._context.measure_answer(assembled, request.model or agent.models[0], completion.usage)
        if message.calls:
            salt = sensitive_arguments.find_salt(chain.conversation)
            digests = await toolbox_calls.list_digests(agent, chain, self._transcript)
            calls = toolbox_calls.read_calls(agent, digests, message, completion.finish, salt=salt)
            extended = await self._transcript.append(chain, request.agent, (*messages, message), measured=measured)
            text = _strike(message, agent)[:TEXT_PREVIEW_CHARACTERS]
            return ModelReply(
                head=extended.head,
                text=text,
                calls=calls,
                usage=usage,
                estimate=assembled.estimate if request.grant is not None else 0,
                cut=assembled.is_cut,
                context_tokens=_find_context(assembled, completion.usage),
            )
        text, finish, problem = _final(agent, completion)
        content = text.encode(errors="replace")
        long = len(json.dumps(text, ensure_ascii=False)) > OUTPUT_INLINE_BYTES or len(content) > OUTPUT_INLINE_BYTES
        extended = await self._transcript.append(
            chain, request.agent, (*messages, message), *((content,) if long else ()), measured=measured
        )
        return ModelReply(
            head=extended.head,
            text=content[:1000].decode(errors="ignore") if long else text,
            output_digest=digest_of(content) if long else None,
            usage=usage,
            finish=finish,
            problem=problem,
            estimate=assembled.estimate if request.grant is not None else 0,
            cut=assembled.is_cut,
            context_tokens=_find_context(assembled, completion.usage),
        )

    async def provider(self, name: str) -> Provider:
        """Return the provider of this name, made at its first use; raise as `call_model` does when there is none."""
        if name not in self._makers:
            configured = ", ".join(sorted(self._makers)) or "none"
            # Not sent: the file of providers of another worker may name it.
            raise failures.make_model_failure(
                "configuration",
                f"this worker has no provider {name!r}; it has: {configured}",
                retryable=True,
                retry_after=PATIENCE,
            )
        task = self._providers.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._providers[name] = asyncio.ensure_future(self._make(name))
        return await asyncio.shield(task)

    async def _make(self, name: str) -> Provider:
        return self.breakers.guard(name, await self._makers[name]())


def _name_reservation(info: activity.Info, attempt: int) -> str:
    """Return the name under which an attempt of this activity holds: each may be billed."""
    return f"{info.workflow_run_id}:{info.activity_id}:{attempt}"


def _make_spender(agent: PinnedAgent, payer: Payer) -> Spender:
    return Spender(agent.name, payer.requester, payer.labels)


def _find_time(info: activity.Info) -> timedelta:
    """Return the time for the whole call, so that its answer can be stored after it."""
    whole = info.start_to_close_timeout or timedelta(minutes=10)
    return max(whole - ANSWER_SPARE, whole * 0.8) if whole < 5 * ANSWER_SPARE else whole - ANSWER_SPARE


def _find_longest(agent: PinnedAgent, request: ModelRequest, pin: RoutePin | None) -> int:
    """Return the most output tokens that the answer may have."""
    if request.grant is not None:
        return request.grant.output_tokens
    return (pin and pin.max_output_tokens) or agent.max_output_tokens


def _find_context(assembled: Assembled, usage: Usage) -> int:
    """Return the tokens of the conversation, where those of the reply's usage are more; else 0."""
    return usage.input_tokens + usage.output_tokens if assembled.usage.model_calls else 0


def _count_cached(completion: Completion, request: ModelRequest) -> Completion:
    """Return the completion, its usage with the kept results that the model is told."""
    cached = sum(result.cached is not None for result in request.results)
    if not cached:
        return completion
    return replace(completion, usage=completion.usage.model_copy(update={"cached_results": cached}))


def _strike(message: AssistantMessage, agent: PinnedAgent) -> str:
    """Return what a model says beside its calls, without the sensitive arguments of these."""
    text = message.text
    for part in message.calls:
        definition = agent.definition(part.tool)
        if definition is not None and definition.tool.sensitive:
            text = strike_sensitive(text, definition.tool, arguments.read_loosely(part.arguments))
    return text


def _final(agent: PinnedAgent, completion: Completion) -> tuple[str, Finish, str | None]:
    """Return the final answer, its ending, and why it cannot be taken."""
    text = completion.message.text
    if completion.finish is Finish.COMPLETE and not text.strip():
        return text, Finish.EMPTY, "the answer was empty"
    if completion.finish is not Finish.COMPLETE or agent.output_schema is None:
        return text, completion.finish, completion.problem
    try:
        value = schema.parse_arguments(schema.remove_fence(text))
    except ValueError as error:
        return (
            text,
            Finish.MISFIT,
            str(error).replace("the arguments are", "the answer is", 1).replace("the arguments", "the answer", 1),
        )
    fault = schema.find_misfit(agent.output_schema, value)
    if fault is not None:
        return text, Finish.MISFIT, fault
    return json.dumps(value, ensure_ascii=False), Finish.COMPLETE, None
