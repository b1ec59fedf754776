"""One model call: tell the model what is new, read its answer, extend the conversation."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures, heartbeat
from mandate.activities.context import backtrack
from mandate.activities.context.assembly import Assembled, ContextAssembler
from mandate.activities.context.sizes import write_instructions
from mandate.activities.context.summary import Allowance
from mandate.activities.own_files import PATIENCE
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.providers.base import Completion, MakeProvider, Prompt, Provider
from mandate.activities.providers.breaker import Breakers
from mandate.activities.purse import Purse
from mandate.activities.streams import Streams
from mandate.activities.toolbox import arguments, schema
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.conversation import NOTE
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import (
    ANSWER_SPARE,
    CHILD_OUTPUT_BYTES,
    OUTPUT_INLINE_BYTES,
    Finish,
    ModelReply,
    ModelRequest,
    Usage,
)
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.transcript import AssistantMessage, Message, TextPart, UserMessage
from mandate.workflows.rules import budget, routing

log = structlog.stdlib.get_logger(__name__)

TEXT_PREVIEW_CHARACTERS = 80

SHORTEST_CALL = 1.0
"""Seconds that a call has at least, also where the time of its attempt is over."""


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
        self._streams = Streams(transcript)

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
        structlog.contextvars.bind_contextvars(step=request.step)
        purse, ends_at = Purse.read(request.grant, self._budgets), time.monotonic() + _find_time(activity.info())
        async with heartbeat.send_heartbeats(purse.describe):
            try:
                return await self._try_once(request, purse, ends_at)
            except ApplicationError as error:
                # Whatever this attempt failed at: what it took, and those before it, is told.
                purse.fail(error)
            except BaseException:
                purse.leave()
                raise

    async def _try_once(self, request: ModelRequest, purse: Purse, ends_at: float) -> ModelReply:
        """Make one attempt, whose answer is there at `ends_at` of this process's clock."""
        with failures.translate_store_errors():
            agent = await self._agents.get(request.agent)
        await purse.enter(agent, request.payer)
        allowance = _allow_summaries(agent, request, purse, ends_at)
        with failures.translate_store_errors():
            chain = await self._transcript.load(request.head)
            if request.back is not None:
                chain = await backtrack.go_back(self._transcript, agent, chain, request)
            messages = await self._build_message(agent, chain, request)
            assembled = await self._context.assemble(agent, chain, messages, request, allowance=allowance)
        while True:
            try:
                completion, seconds = await self._complete(agent, assembled, request, purse, ends_at)
                break
            except ApplicationError as error:
                if error.type != FailureType.CONTEXT_TOO_LONG:
                    raise
                # The model takes less than is known of it.
                with failures.translate_store_errors():
                    assembled = await self._context.shorten(agent, assembled, request, error, allowance=allowance)
        completion = _count_cached(completion, request)
        use = purse.period_use
        told: dict[str, object] = {
            "latency": round(seconds, 2) if agent.prefer == "latency" else 0.0,
            # All but the one that was answered; what it took is told with its answer, or else it is lost.
            "lost": purse.lost - 1,
            "period_cost_usd": use.cost_usd if use is not None else None,
            "beside": purse.usage if purse.usage.model_calls else None,
        }
        with failures.translate_store_errors():
            reply = await self._reply(agent, assembled, request, completion, beside=purse.usage)
        return reply.model_copy(update=told) if any(told.values()) else reply

    async def _build_message(self, agent: PinnedAgent, chain: Chain, request: ModelRequest) -> tuple[Message, ...]:
        """Return the results of the last turn's calls, the runtime's note and people's messages, as one message."""
        parts = await results.build_parts(self._transcript.blobs, agent, chain.conversation, request.results)
        note = (TextPart(kind="text", text=f"{NOTE} {request.note}"),) if request.note else ()
        words = tuple(TextPart(kind="text", text=f"[{word.by} says] {word.text}") for word in request.words)
        contents = (*parts, *note, *words)
        return (UserMessage(role="user", parts=contents),) if contents else ()

    async def _complete(
        self, agent: PinnedAgent, assembled: Assembled, request: ModelRequest, purse: Purse, ends_at: float
    ) -> tuple[Completion, float]:
        """Ask the model within what the run has for it, and return its answer and the seconds that it took."""
        purse.check(assembled.estimate)
        name = request.model or agent.models[0]
        provider, _, model = name.partition(":")
        longest, price = _find_longest(agent, request, routing.find_pin(agent.route, name)), agent.price(name)
        asked = await self.provider(provider)
        seconds = 0.0
        tell: Callable[[str], None] | None = None

        async def ask() -> Completion:
            nonlocal seconds
            # There may have been a wait for room in a budget beyond the run.
            began = time.monotonic()
            prompt = Prompt(
                model=model,
                instructions=write_instructions(agent),
                tools=agent.tools,
                agent=request.agent,
                conversation=assembled.conversation,
                max_output_tokens=longest,
                is_last=request.is_last,
                price=price,
                timeout=_find_rest(ends_at),
                attempt=purse.number,
                has_others=request.has_others,
                params=agent.params.get(name, {}),
                on_text=tell,
            )
            answer = await asked.complete(prompt)
            seconds = time.monotonic() - began
            return answer

        size = budget.CallSize(assembled.estimate, longest, price)
        async with self._streams.open(request.step) as stream:
            tell = stream.tell if stream is not None else None
            completion = await purse.buy(name, size, ask, within=_find_rest(ends_at))
            if stream is not None and not stream.has_text:
                stream.tell(completion.message.text)
        log.info(
            "model_answered",
            model=name,
            step=request.step,
            finish=str(completion.finish),
            calls=len(completion.message.calls),
            input_tokens=completion.usage.input_tokens,
            output_tokens=completion.usage.output_tokens,
        )
        return completion, seconds

    async def _reply(
        self,
        agent: PinnedAgent,
        assembled: Assembled,
        request: ModelRequest,
        completion: Completion,
        *,
        beside: Usage,
    ) -> ModelReply:
        """Keep an answer and return it; `beside` is what other calls took that were made for it."""
        message, chain, messages = completion.message, assembled.chain, assembled.told
        usage = completion.usage + beside
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
                context_tokens=_find_context(completion.usage, beside),
            )
        text, finish, problem = _final(agent, completion)
        content = text.encode(errors="replace")
        most = CHILD_OUTPUT_BYTES if request.is_child else OUTPUT_INLINE_BYTES
        long = len(json.dumps(text, ensure_ascii=False)) > most or len(content) > most
        extended = await self._transcript.append(
            chain, request.agent, (*messages, message), *((content,) if long else ()), measured=measured
        )
        return ModelReply(
            head=extended.head,
            text=content[:1000].decode(errors="ignore") if long else text,
            output_digest=digest_of(content) if long else None,
            output_size=len(content) if long else None,
            usage=usage,
            finish=finish,
            problem=problem,
            estimate=assembled.estimate if request.grant is not None else 0,
            cut=assembled.is_cut,
            context_tokens=_find_context(completion.usage, beside),
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


def _allow_summaries(agent: PinnedAgent, request: ModelRequest, purse: Purse, ends_at: float) -> Allowance:
    """Return what summaries for this call may take: each takes the place of an attempt, and no more than it may."""
    grant = request.grant
    if grant is None:
        return Allowance(purse, ends_at)
    price = agent.price(request.model or agent.models[0])
    return Allowance(
        purse, ends_at, budget.measure_call(budget.CallSize(grant.input_tokens, grant.output_tokens, price))
    )


def _find_time(info: activity.Info) -> float:
    """Return the seconds for all calls of an attempt, so that its answer can be stored after them."""
    whole = info.start_to_close_timeout or timedelta(minutes=10)
    calls = max(whole - ANSWER_SPARE, whole * 0.8) if whole < 5 * ANSWER_SPARE else whole - ANSWER_SPARE
    return calls.total_seconds()


def _find_rest(ends_at: float) -> timedelta:
    return timedelta(seconds=max(ends_at - time.monotonic(), SHORTEST_CALL))


def _find_longest(agent: PinnedAgent, request: ModelRequest, pin: RoutePin | None) -> int:
    """Return the most output tokens that the answer may have."""
    if request.grant is not None:
        return request.grant.output_tokens
    return (pin and pin.max_output_tokens) or agent.max_output_tokens


def _find_context(usage: Usage, beside: Usage) -> int:
    """Return the tokens of the conversation, where those of the reply's usage are more; else 0."""
    return usage.input_tokens + usage.output_tokens if beside.model_calls else 0


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
