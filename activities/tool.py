"""One call of one tool: read it from the conversation, check it again, make it, store what came back."""

from collections.abc import Mapping

import structlog
from temporalio import activity

from mandate.activities import failures, guard, heartbeat
from mandate.activities.failures import ToolError
from mandate.activities.heartbeat import Heart
from mandate.activities.own_files import OwnFiles
from mandate.activities.people.signatures import KeysUnavailable, Signatures
from mandate.activities.people.signed_calls import SignedCall, SignedCalls, Unsigned
from mandate.activities.toolbox import arguments, builtin
from mandate.activities.toolbox.base import CallContext, Toolbox, ToolText, make_attempt
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, Tool, ToolDefinition, ToolRequest, ToolResult
from mandate.workflows.rules import plain_text

log = structlog.stdlib.get_logger(__name__)

NOT_SENT_MARK = "mandate:not-sent"
"""Left in the heartbeat by an attempt that sent nothing, or was told definitely that nothing was done."""

STORE_PATIENCE = 15.0
"""Seconds before another attempt when the store does not have what it should: another worker may have it."""


class ToolActivities:
    """Toolboxes by the kind of binding that they serve."""

    def __init__(
        self,
        toolboxes: Mapping[str, Toolbox],
        agents: PinnedAgents,
        transcript: TranscriptLog,
        own: OwnFiles | None = None,
        signatures: Signatures | None = None,
    ) -> None:
        """Take the toolboxes; `own` is what the worker's files name, `None` for all; `signatures` are people's."""
        self._signed = SignedCalls(signatures, transcript)
        self._toolboxes = toolboxes
        self._own = own
        self._agents = agents
        self._transcript = transcript

    @activity.defn
    async def run_tool(self, request: ToolRequest) -> ToolResult:
        """Make one attempt of one call.

        Raises:
            ApplicationError: `ToolFailed` with what is known of the attempt; retried where that is safe.
        """
        attempt = activity.info().attempt
        # Until the definition is read, repeating is bounded by the workflow alone, which has no retries for `once`.
        effect = Effect.KEYED
        definition: ToolDefinition | None = None
        whole: JsonObject = {}
        structlog.contextvars.bind_contextvars(step=request.step, call=request.index)
        try:
            async with heartbeat.send_heartbeats() as heart:
                agent, chain, definition, whole = await self._read(request)
                effect = definition.tool.effect
                if _is_forgotten(definition.tool):
                    effect = Effect.ONCE
                    raise ToolError(Outcome.NOT_SENT, "the other side may have forgotten the idempotency key by now")
                await self._check_signatures(SignedCall(request, agent, chain, definition, whole))
                text = await self._call(request, chain, definition, whole, heart)
                refusal = ToolError(Outcome.NOT_DONE, text.text, is_of_key=text.is_of_key)
                if text.error and not _has_sent_nothing() and not failures.tells_of_all(refusal, effect):
                    raise refusal
                stored = await self._store(text, definition, attempt, sensitive_arguments.find_salt(chain.conversation))
                return stored if attempt == 1 else stored.model_copy(update={"attempts": attempt})
        except ToolError as failed:
            error = failed if definition is None else _strike_error(failed, definition.tool, whole)
            log.warning("tool_failed", outcome=str(error.outcome), reason=error.reason)
            sent_before = not _has_sent_nothing()
            if error.outcome in (Outcome.NOT_SENT, Outcome.NOT_DONE) and not sent_before:
                activity.heartbeat(NOT_SENT_MARK, attempt, guard.sign_heartbeat(_format_mark(attempt)))
            raise failures.make_tool_failure(error, effect, attempt, sent_before=sent_before) from None

    async def _read(self, request: ToolRequest) -> tuple[PinnedAgent, Chain, ToolDefinition, JsonObject]:
        try:
            agent = await self._agents.get(request.agent)
            chain = await self._transcript.load(request.head)
            last = chain.conversation.last_assistant()
            part = last.calls[request.index] if last is not None else None
            definition = agent.definition(part.tool) if part is not None else None
            if part is None or definition is None:
                raise ToolError(Outcome.NOT_SENT, f"the conversation at {request.head} has no call {request.index}")
            blobs, conversation = self._transcript.blobs, chain.conversation
            whole = await arguments.load_call(blobs, conversation, definition, part, request.edited)
            return agent, chain, definition, whole
        except failures.STORE_ERRORS as error:
            raise ToolError(Outcome.NOT_SENT, str(error), retry_after=STORE_PATIENCE) from None
        except ValueError as error:
            raise ToolError(Outcome.NOT_SENT, str(error)) from None

    async def _check_signatures(self, call: SignedCall) -> None:
        try:
            await self._signed.check(call)
        except Unsigned as unsigned:
            raise ToolError(Outcome.NOT_SENT, f"not signed: {unsigned}") from None
        except (KeysUnavailable, *failures.STORE_ERRORS) as error:
            raise ToolError(Outcome.NOT_SENT, str(error), retry_after=STORE_PATIENCE) from None

    async def _call(
        self, request: ToolRequest, chain: Chain, definition: ToolDefinition, whole: JsonObject, heart: Heart
    ) -> ToolText:
        structlog.contextvars.bind_contextvars(tool=definition.tool.name)
        log.info("tool_called")
        if definition.binding.kind == "builtin":
            try:
                return await builtin.read_result(self._transcript.blobs, chain.conversation, whole)
            except failures.STORE_ERRORS as error:
                raise ToolError(Outcome.NOT_SENT, str(error)) from None
        toolbox = self._toolboxes.get(definition.binding.kind)
        if toolbox is None:
            raise ToolError(Outcome.NOT_SENT, f"this worker cannot call tools of kind {definition.binding.kind!r}")
        if self._own is not None:
            self._own.refuse_others(definition)
        context = _context(request, definition)
        if definition.tool.effect is Effect.ONCE:
            await self._claim(context.idempotency_key, request.instead_of)
        if definition.tool.effect.changes_world and heart.has_stood_still:
            raise ToolError(Outcome.NOT_SENT, "this worker stood still for so long that the attempt was given up")
        return await make_attempt(toolbox, definition, whole, context)

    async def _claim(self, key: str, instead_of: str | None) -> None:
        """Enter a call that must not be repeated into the ledger, directly before it acts.

        With the key of the attempt that it replaces: a worker that was frozen before it entered that one finds it
        there when it wakes.
        """
        try:
            if instead_of is not None:
                await self._transcript.blobs.claim(instead_of)
            is_first = await self._transcript.blobs.claim(key)
        except failures.STORE_ERRORS as error:
            raise ToolError(Outcome.NOT_SENT, str(error)) from None
        if not is_first:
            reason = "the call was begun before, and what became of it then is not known; it was not made again"
            raise ToolError(Outcome.UNKNOWN, reason)

    async def _store(self, text: ToolText, definition: ToolDefinition, attempt: int, salt: bytes | None) -> ToolResult:
        """Store the result and return it as it travels; a done effect stays done when its result cannot be stored."""
        tool = definition.tool
        try:
            salt = salt if tool.sensitive else None
            stored = await results.store(self._transcript.blobs, text.text, error=text.error, salt=salt)
            return stored.model_copy(update={"stands_in": text.is_lost, **({"preview": ""} if tool.sensitive else {})})
        except failures.STORE_ERRORS as error:
            # The same key gets the same answer: another attempt may find the store again.
            if not tool.effect.changes_world or (tool.effect is not Effect.ONCE and attempt <= tool.retries):
                raise ToolError(Outcome.UNKNOWN, str(error)) from None
            log.warning("result_lost", reason=str(error))
            lost = "done, but its result was lost: the store did not take it"
            return ToolResult(text=lost, error=text.error, stands_in=not text.error)


def _strike_error(error: ToolError, tool: Tool, whole: JsonObject) -> ToolError:
    """Return `error` without the call's sensitive arguments, which the other side may have repeated."""
    if tool.sensitive:
        error.reason = plain_text.shorten(strike_sensitive(error.whole, tool, whole))
    return error


def _context(request: ToolRequest, definition: ToolDefinition) -> CallContext:
    info = activity.info()
    key = request.key or digest_of(canonical_json([info.workflow_run_id, request.head, request.index]))
    return CallContext(
        workflow_id=info.workflow_id or "",
        run_id=info.workflow_run_id or "",
        step=request.step,
        idempotency_key=key,
        attempt=info.attempt,
        timeout=definition.tool.timeout,
        requester=request.requester,
    )


def _is_forgotten(tool: Tool) -> bool:
    """Return whether this attempt began after the time for which the other side knows the key of the first one.

    Both times are the server's, so clocks that differ do not matter.
    """
    info = activity.info()
    return (
        tool.effect is Effect.KEYED
        and tool.key_valid is not None
        and info.started_time - info.scheduled_time > tool.key_valid
    )


def _has_sent_nothing() -> bool:
    """Return whether each attempt before this one is known to have changed nothing: the last one left its number.

    An attempt that was lost leaves none of its own, and the number of the one before it does not fit.
    """
    info = activity.info()
    if info.attempt == 1:
        return True
    match tuple(info.heartbeat_details):
        case (str(mark), int(attempt), signature) if mark == NOT_SENT_MARK and attempt == info.attempt - 1:
            return guard.is_own_heartbeat(_format_mark(attempt), signature)
    return False


def _format_mark(attempt: int) -> str:
    return f"{NOT_SENT_MARK} {attempt}"
