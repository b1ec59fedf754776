"""Results of read tools that answer equal calls for a while.

Calls are equal if the tool is defined in the same way, has the same arguments, is called with the same credentials and
in the same place: namespace, task queue and store. The key under which a result is kept is a mark of all that, so it
tells nothing of it to whoever can read the store.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import assert_never

import structlog
from pydantic import JsonValue
from temporalio import activity

from mandate.activities import failures
from mandate.activities.keyring import Keyring
from mandate.activities.stores.base import KeptResult
from mandate.activities.toolbox.base import ResolveSecrets
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts import templates
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.tool import (
    CacheHit,
    Effect,
    HttpBinding,
    ToolDefinition,
    ToolRequest,
    ToolResult,
)
from mandate.workflows.contracts.transcript import AssistantMessage, Message

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The run that makes a call."""

    agent: str
    workflow_id: str
    run_id: str
    requester: str | None
    acted: int
    """Step of its last call that may have changed the world; 0 before the first."""


class ResultCache:
    """The kept results of one installation, as one worker may see and add to them."""

    def __init__(self, blobs: Blobs, keyring: Keyring, resolve: ResolveSecrets) -> None:
        self._blobs = blobs
        self._keyring = keyring
        self._resolve = resolve

    async def open_slot(
        self,
        request: ToolRequest,
        agent: PinnedAgent,
        conversation: Conversation,
        definition: ToolDefinition,
        arguments: JsonObject,
    ) -> "Slot | None":
        """Return the place of a call's result; `None` where each call is made.

        Only for tools that the worker's own files name: it reads the secrets of the call.
        """
        tool = definition.tool
        # A call that goes on after people answered has more than its arguments: what they said.
        if definition.cache is None or tool.effect is not Effect.READ or tool.sensitive or request.answers is not None:
            return None
        info = activity.info()
        acted = _find_last_act(agent, request, conversation)
        caller = Caller(agent.name, info.workflow_id or "", info.workflow_run_id or "", request.requester, acted)
        try:
            place = (info.namespace, info.task_queue, await self._blobs.identity())
        except failures.STORE_ERRORS as error:
            _tell_unavailable(tool.name, error)
            return None
        compute_key = partial(self._compute_key, place, definition, arguments, caller)
        if (key := compute_key()) is None:
            return None
        return Slot(self._blobs, key, compute_key, definition.cache, tool.name, caller, request.step)

    def _compute_key(
        self, place: Sequence[str], definition: ToolDefinition, arguments: JsonObject, caller: Caller
    ) -> str | None:
        """Return the key of a call's result; `None` for a call that its toolbox will refuse."""
        try:
            content = canonical_json(
                [
                    definition.model_dump(mode="json"),
                    arguments,
                    self._fill_credentials(definition),
                    _find_run_values(definition, caller),
                ]
            )
        except (LookupError, ValueError):
            # A secret is missing, or the call cannot be made so: its toolbox says why.
            return None
        return self._keyring.sign("result", place, content).hex()

    def _fill_credentials(self, definition: ToolDefinition) -> dict[str, JsonValue]:
        """Return all that a call is allowed by: names and values of headers and environment."""
        binding = definition.binding
        texts: Mapping[str, str] = {}
        match binding.kind:
            case "http":
                texts = binding.headers
            case "mcp":
                texts = {**binding.server.env, **binding.server.headers}
            case "python" | "activity" | "agent" | "builtin":
                pass
            case _:
                assert_never(binding.kind)
        return {name: self._resolve(text) for name, text in texts.items()}


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one call's result in the cache. Nothing here raises: without the store, the call is made."""

    _blobs: Blobs
    _key: str
    _compute_key: Callable[[], str | None] = field(repr=False)
    _lifetime: timedelta
    _tool: str
    _caller: Caller
    _step: int

    async def find(self) -> ToolResult | None:
        """Return the result that is kept for such a call, with the call that it is of."""
        try:
            kept = await self._blobs.store.cached(self._key)
            if kept is None or not self._is_seen_since(kept):
                return None
            content = await self._blobs.get(kept.digest)
        except failures.STORE_ERRORS as error:
            _tell_unavailable(self._tool, error)
            return None
        seconds = int(kept.age.total_seconds())
        hit = CacheHit(run=kept.run, run_id=kept.run_id, step=kept.step, seconds=seconds)
        log.info("tool_answered_from_cache", tool=self._tool, made_by=hit.run, made_in=hit.step, seconds=hit.seconds)
        return results.refer_to(content, kept.digest).model_copy(update={"cached": hit})

    def _is_seen_since(self, kept: KeptResult) -> bool:
        """Return whether a result is from after the run's last call that may have changed the world.

        A run must see what it did. Of the results of other runs nothing tells whether they are from before.
        """
        caller = self._caller
        return caller.acted == 0 or (kept.run_id == caller.run_id and kept.step > caller.acted)

    async def keep(self, result: ToolResult) -> None:
        """Keep the result of the call for others; errors, questions and what is not the tool's own word are not."""
        if result.error or result.stands_in or result.asking is not None:
            return
        if self._compute_key() != self._key:
            # A secret was changed meanwhile: nobody can tell which one the call was made with.
            return
        try:
            digest, size = result.digest, result.size
            if digest is None or size is None:
                content = (result.text or "").encode()
                (digest,), size = await self._blobs.put(content), len(content)
            its = self._caller
            kept = KeptResult(self._tool, its.agent, digest, size, its.workflow_id, its.run_id, self._step)
            await self._blobs.store.keep(self._key, kept, self._lifetime)
        except failures.STORE_ERRORS as error:
            _tell_unavailable(self._tool, error)


def _find_last_act(agent: PinnedAgent, request: ToolRequest, conversation: Conversation) -> int:
    """Return the step of the last call that may have changed the world; 0 if there is none.

    Of steps that the conversation does not go back to, nothing is known: then it is the last of these.
    """
    acting = {definition.tool.name for definition in agent.tools if definition.tool.effect.changes_world}

    def is_acting(message: Message, _: object) -> bool | None:
        if not isinstance(message, AssistantMessage):
            return None
        return any(call.tool in acting for call in message.calls)

    step = request.step
    for acts in reversed(conversation.map_messages(f"acts {request.agent}", is_acting)):
        if acts:
            return step
        step -= acts is not None
    return max(step, 0)


def _find_run_values(definition: ToolDefinition, caller: Caller) -> dict[str, JsonValue]:
    """Return what a request says of its run; its answer may depend on it.

    Raises:
        ValueError: it names the call's key, which no other call has.
    """
    if not isinstance(definition.binding, HttpBinding):
        return {}
    named = _list_run_values(definition.binding)
    if templates.KEY in named:
        raise ValueError("the request names its key")
    known: dict[str, JsonValue] = {templates.REQUESTER: caller.requester, templates.WORKFLOW_ID: caller.workflow_id}
    return {name: known[name] for name in named}


def _list_run_values(binding: HttpBinding) -> Sequence[str]:
    texts = (binding.url, *binding.headers.values(), json.dumps(binding.body))
    return sorted({name for text in texts for name in templates.find_run_values(text)})


def _tell_unavailable(tool: str, error: Exception) -> None:
    log.warning("result_cache_unavailable", tool=tool, reason=str(error))
