"""One call of one tool: read it from the conversation, check it again, make it, store what came back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from temporalio import activity

from mandate.activities import failures, guard, heartbeat
from mandate.activities.board import Boards
from mandate.activities.heartbeat import Heart, Stopwatch
from mandate.activities.own_files import OwnFiles
from mandate.activities.people.signatures import KeysUnavailable, Signatures
from mandate.activities.people.signed_calls import SignedCall, SignedCalls, Unsigned
from mandate.activities.result_cache import ResultCache, Slot
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox import arguments, dialogues
from mandate.activities.toolbox.base import AsksPeople, CallContext, Toolbox, ToolText, make_attempt
from mandate.activities.toolbox.raised_errors import describe_error
from mandate.activities.toolbox.read_result import read_result
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import Dialogue
from mandate.workflows.contracts.tool import Effect, Tool, ToolDefinition, ToolRequest, ToolResult
from mandate.workflows.rules import local_activities, plain_text
from mandate.workflows.rules.patience import QUICK_ATTEMPTS

log = structlog.stdlib.get_logger(__name__)

FAILED_MARK = "mandate:failed"
"""Left in the heartbeat by an attempt that failed, with what is known of it and of those before."""

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
        *,
        cache: ResultCache | None = None,
    ) -> None:
        """Take the toolboxes; `own` is what the worker's files name, `None` for all; `signatures` are people's.

        Without `cache` each call is made.
        """
        self._cache = cache
        self._signed = SignedCalls(signatures, transcript)
        self._toolboxes = toolboxes
        self._own = own
        self._agents = agents
        self._transcript = transcript
        self._boards = Boards(transcript.blobs)

    @activity.defn
    async def run_tool(self, request: ToolRequest) -> ToolResult:
        """Make one attempt of one call.

        Raises:
            ApplicationError: `ToolFailed` with what is known of the attempt; retried where that is safe.
        """
        info, stopwatch = activity.info(), Stopwatch()
        attempt, mark = info.attempt, _read_mark(info)
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
                may_be_local = local_activities.name_tool(definition.tool) is not None
                slot = await self._open_slot(request, agent, chain, definition, whole)
                if slot is not None and (kept := await slot.find()) is not None:
                    return _finish(kept, attempt, quick=may_be_local and stopwatch.is_quick)
                try:
                    text = await self._call(request, chain, definition, whole, heart)
                except AsksPeople as asks:
                    return await self._ask(asks, definition, whole, attempt)
                refusal = ToolError(Outcome.NOT_DONE, text.text, is_of_key=text.is_of_key)
                reached = request.reached or not _has_sent_nothing(info, mark)
                if text.error and reached and not failures.tells_of_all(refusal, effect):
                    raise refusal
                stored = await self._store(text, definition, attempt, sensitive_arguments.find_salt(chain.conversation))
                if slot is not None:
                    await slot.keep(stored)
                return _finish(stored, attempt, quick=may_be_local and stopwatch.is_quick)
        except ToolError as failed:
            error = failed if definition is None else _strike_error(failed, definition.tool, whole)
            log.warning("tool_failed", outcome=str(error.outcome), reason=error.reason)
            sent_before = request.reached or not _has_sent_nothing(info, mark)
            has_reached = sent_before or error.outcome is Outcome.UNKNOWN
            number = (mark.failed if mark is not None else 0) + 1
            if effect is not Effect.ONCE:
                heartbeat.leave(*_Mark(attempt, number, has_reached).to_details())
            if request.patience is None or definition is None:
                raise failures.make_tool_failure(error, effect, attempt, sent_before=sent_before) from None
            tool = definition.tool.model_copy(update={"effect": effect})
            rest = _find_rest(info, request.patience, stopwatch, lost=attempt - number)
            count = failures.AttemptCount(tool, attempt, request.failed + number, rest)
            raise failures.make_patient_failure(error, count, sent_before=sent_before) from None

    async def _read(self, request: ToolRequest) -> tuple[PinnedAgent, Chain, ToolDefinition, JsonObject]:
        try:
            agent = await self._agents.get(request.agent)
            chain = await self._transcript.load(request.head)
            part = chain.conversation.find_call(request.index)
            definition = agent.definition(part.tool) if part is not None else None
            if part is None or definition is None:
                raise ToolError(
                    Outcome.NOT_SENT, f"the conversation at {request.head} has no call {request.index}", lasting=True
                )
            blobs, conversation = self._transcript.blobs, chain.conversation
            whole = await arguments.load_call(blobs, conversation, definition, part, request.edited)
            return agent, chain, definition, whole
        except failures.STORE_ERRORS as error:
            raise ToolError(Outcome.NOT_SENT, str(error), retry_after=STORE_PATIENCE) from None
        except ValueError as error:
            raise ToolError(Outcome.NOT_SENT, str(error), lasting=True) from None

    async def _check_signatures(self, call: SignedCall) -> None:
        try:
            await self._signed.check(call)
        except Unsigned as unsigned:
            raise ToolError(Outcome.NOT_SENT, f"not signed: {unsigned}", lasting=True) from None
        except (KeysUnavailable, *failures.STORE_ERRORS) as error:
            raise ToolError(Outcome.NOT_SENT, str(error), retry_after=STORE_PATIENCE) from None

    async def _open_slot(
        self, request: ToolRequest, agent: PinnedAgent, chain: Chain, definition: ToolDefinition, whole: JsonObject
    ) -> Slot | None:
        """Return the place of the call's result in the cache, for tools whose results are kept."""
        if self._cache is None or definition.cache is None:
            return None
        if self._own is not None:
            self._own.refuse_others(definition)
        return await self._cache.open_slot(request, agent, chain.conversation, definition, whole)

    async def _call(
        self, request: ToolRequest, chain: Chain, definition: ToolDefinition, whole: JsonObject, heart: Heart
    ) -> ToolText:
        structlog.contextvars.bind_contextvars(tool=definition.tool.name)
        log.info("tool_called")
        if definition.binding.kind == "builtin":
            try:
                return await self._call_builtin(request, chain, definition, whole)
            except failures.STORE_ERRORS as error:
                raise ToolError(Outcome.NOT_SENT, str(error)) from None
        toolbox = self._toolboxes.get(definition.binding.kind)
        if toolbox is None:
            raise ToolError(Outcome.NOT_SENT, f"this worker cannot call tools of kind {definition.binding.kind!r}")
        if self._own is not None:
            self._own.refuse_others(definition)
        context = replace(_context(request, definition), dialogue=await self._read_dialogue(request))
        if definition.tool.effect is Effect.ONCE:
            await self._claim(_claimed_key(context.idempotency_key, request), request.instead_of)
        if definition.tool.effect.changes_world and heart.has_stood_still:
            raise ToolError(Outcome.NOT_SENT, "this worker stood still for so long that the attempt was given up")
        limit = asyncio.timeout(definition.tool.timeout.total_seconds() if request.patience is not None else None)
        try:
            async with limit:
                return await make_attempt(toolbox, definition, whole, context)
        except TimeoutError as error:
            reason = "the call took longer than its timeout" if limit.expired() else describe_error(error)
            raise ToolError(Outcome.UNKNOWN, reason) from None

    async def _call_builtin(
        self, request: ToolRequest, chain: Chain, definition: ToolDefinition, whole: JsonObject
    ) -> ToolText:
        if request.board is None:
            return await read_result(self._transcript, chain, whole)
        key = _context(request, definition).idempotency_key
        return await self._boards.call(definition.tool.name, whole, request.board, key, tainted=request.tainted)

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

    async def _read_dialogue(self, request: ToolRequest) -> Dialogue | None:
        """Return what the tool's server has asked in this call, with what people answered."""
        if request.answers is None:
            return None
        try:
            return await dialogues.load(self._transcript.blobs, request.answers)
        except failures.STORE_ERRORS as error:
            raise ToolError(Outcome.NOT_SENT, str(error), retry_after=STORE_PATIENCE) from None

    async def _ask(self, asks: AsksPeople, definition: ToolDefinition, whole: JsonObject, attempt: int) -> ToolResult:
        """Store what the tool's server asks, for people and for the call that goes on."""
        if definition.tool.sensitive:
            # The other side may have repeated what is shown nowhere.
            texts = (strike_sensitive(question.text, definition.tool, whole) for question in asks.questions)
            asks.questions = tuple(
                replace(question, text=text) for question, text in zip(asks.questions, texts, strict=True)
            )
        log.info("tool_asks", server=asks.server, questions=len(asks.questions), round=asks.dialogue.round)
        try:
            asking = await dialogues.store(self._transcript.blobs, asks)
        except failures.STORE_ERRORS as error:
            raise ToolError(asks.outcome, str(error)) from None
        text = "the tool asks a question" if definition.tool.sensitive else plain_text.shorten(asks.whole)
        return ToolResult(text=text, error=True, asking=asking, attempts=attempt)

    async def _store(self, text: ToolText, definition: ToolDefinition, attempt: int, salt: bytes | None) -> ToolResult:
        """Store the result and return it as it travels; a done effect stays done when its result cannot be stored."""
        tool = definition.tool
        try:
            salt = salt if tool.sensitive else None
            stored = await results.store(self._transcript.blobs, text.text, error=text.error, salt=salt)
            return stored.model_copy(
                update={
                    "stands_in": text.is_lost,
                    "tainted": text.tainted,
                    **({"preview": ""} if tool.sensitive else {}),
                }
            )
        except failures.STORE_ERRORS as error:
            # The same key gets the same answer: another attempt may find the store again.
            again = QUICK_ATTEMPTS - 1 if tool.retries is None else tool.retries
            if not tool.effect.changes_world or (tool.effect is not Effect.ONCE and attempt <= again):
                raise ToolError(Outcome.UNKNOWN, str(error)) from None
            log.warning("result_lost", reason=str(error))
            lost = "done, but its result was lost: the store did not take it"
            return ToolResult(text=lost, error=text.error, stands_in=not text.error)


def _finish(result: ToolResult, attempt: int, *, quick: bool) -> ToolResult:
    """Return a result with what the run keeps of the attempt."""
    return result.model_copy(update={"attempts": attempt, "quick": quick})


def _claimed_key(key: str, request: ToolRequest) -> str:
    """Return the key under which a call is entered: each round of one that goes on acts once."""
    return key if request.answers is None else digest_of(canonical_json([key, request.answers.state]))


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
        attempt=request.failed + info.attempt,
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


@dataclass(frozen=True, slots=True)
class _Mark:
    """Mark that a failed attempt leaves behind for the next one."""

    attempt: int
    failed: int
    """Attempts that failed, lost ones not counted."""
    has_reached: bool
    """One of them may have changed something."""

    def __str__(self) -> str:
        return f"{FAILED_MARK} {self.attempt} {self.failed} {self.has_reached}"

    def to_details(self) -> tuple[object, ...]:
        return (FAILED_MARK, self.attempt, self.failed, self.has_reached, guard.sign_heartbeat(str(self)))


def _read_mark(info: activity.Info) -> _Mark | None:
    """Return what the attempt before this one left; one that was lost left nothing."""
    match tuple(info.heartbeat_details):
        case (str(name), int(attempt), int(failed), bool(has_reached), signature) if name == FAILED_MARK:
            mark = _Mark(attempt, failed, has_reached)
            if attempt == info.attempt - 1 and guard.is_own_heartbeat(str(mark), signature):
                return mark
    return None


def _has_sent_nothing(info: activity.Info, mark: _Mark | None) -> bool:
    """Return whether each attempt of this activity before this one is known to have changed nothing."""
    return info.attempt == 1 or (mark is not None and not mark.has_reached)


def _find_rest(info: activity.Info, patience: timedelta, stopwatch: Stopwatch, *, lost: int) -> timedelta:
    """Return the rest of the call's patience; attempts whose worker was lost use nothing of it up."""
    before = info.started_time - info.scheduled_time
    given_back = max(lost, 0) * (info.heartbeat_timeout or timedelta(0))
    return patience - before - timedelta(seconds=stopwatch.seconds) + given_back
