"""One model call: tell the model what is new, read its answer, extend the conversation."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from temporalio import activity

from mandate.activities import failures, heartbeat
from mandate.activities.own_files import PATIENCE
from mandate.activities.providers.base import Completion, MakeProvider, Prompt, Provider
from mandate.activities.toolbox import arguments, schema
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.model import OUTPUT_INLINE_BYTES, Finish, ModelReply, ModelRequest
from mandate.workflows.contracts.transcript import AssistantMessage, Message, TextPart, UserMessage

log = structlog.stdlib.get_logger(__name__)

TEXT_PREVIEW_CHARACTERS = 80
SPARE = timedelta(seconds=10)
"""Rest of the activity's time after the longest model call, to store the answer."""


class ModelActivities:
    """Providers that the worker is configured for; each is made at its first use."""

    def __init__(self, providers: Mapping[str, MakeProvider], agents: PinnedAgents, transcript: TranscriptLog) -> None:
        self._makers = providers
        self._providers: dict[str, asyncio.Task[Provider]] = {}
        self._agents = agents
        self._transcript = transcript

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
            ApplicationError: `ModelRejected` or `ContextTooLong`, not retried; `ModelUnavailable` and store failures,
                retried, after the provider's `retry-after` if it gave one.
        """
        async with heartbeat.send_heartbeats():
            with failures.translate_store_errors():
                agent = await self._agents.get(request.agent)
                chain = await self._transcript.load(request.head)
                messages = await self._build_message(agent, chain, request)
            completion = await self._complete(agent, chain, messages, request)
            with failures.translate_store_errors():
                return await self._reply(agent, chain, messages, request, completion)

    async def _build_message(self, agent: PinnedAgent, chain: Chain, request: ModelRequest) -> tuple[Message, ...]:
        """Return the results of the last turn's calls, the runtime's note and people's messages, as one message."""
        parts = await results.build_parts(self._transcript.blobs, agent, chain.conversation, request.results)
        note = (TextPart(kind="text", text=f"[Note from the runtime] {request.note}"),) if request.note else ()
        words = tuple(TextPart(kind="text", text=f"[{word.by} says] {word.text}") for word in request.words)
        contents = (*parts, *note, *words)
        return (UserMessage(role="user", parts=contents),) if contents else ()

    async def _complete(
        self, agent: PinnedAgent, chain: Chain, messages: tuple[Message, ...], request: ModelRequest
    ) -> Completion:
        provider, _, model = (request.model or agent.models[0]).partition(":")
        info = activity.info()
        prompt = Prompt(
            model=model,
            instructions=agent.instructions,
            tools=agent.tools,
            agent=request.agent,
            conversation=chain.conversation.extend(*messages),
            max_output_tokens=agent.max_output_tokens,
            timeout=(info.start_to_close_timeout or timedelta(minutes=10)) - SPARE,
            attempt=info.attempt,
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
        self,
        agent: PinnedAgent,
        chain: Chain,
        messages: tuple[Message, ...],
        request: ModelRequest,
        completion: Completion,
    ) -> ModelReply:
        message = completion.message
        if message.calls:
            salt = sensitive_arguments.find_salt(chain.conversation)
            calls = toolbox_calls.read_calls(
                agent, toolbox_calls.list_digests(agent, chain), message, completion.finish, salt=salt
            )
            extended = await self._transcript.append(chain, request.agent, (*messages, message))
            text = _strike(message, agent)[:TEXT_PREVIEW_CHARACTERS]
            return ModelReply(head=extended.head, text=text, calls=calls, usage=completion.usage)
        text, finish, problem = _final(agent, completion)
        content = text.encode(errors="replace")
        long = len(json.dumps(text, ensure_ascii=False)) > OUTPUT_INLINE_BYTES or len(content) > OUTPUT_INLINE_BYTES
        extended = await self._transcript.append(
            chain, request.agent, (*messages, message), *((content,) if long else ())
        )
        return ModelReply(
            head=extended.head,
            text=content[:1000].decode(errors="ignore") if long else text,
            output_digest=digest_of(content) if long else None,
            usage=completion.usage,
            finish=finish,
            problem=problem,
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
            task = self._providers[name] = asyncio.ensure_future(_await(self._makers[name]))
        return await asyncio.shield(task)


async def _await(make: MakeProvider) -> Provider:
    return await make()


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
