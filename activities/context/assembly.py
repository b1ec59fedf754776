"""The request of one step: what a model is sent, within its window, from chain, agent, model and what is new.

Between cuts a request goes on from the one before it, byte for byte. A cut is a segment of the chain, so that a
repeated attempt and every later step begin with the same bytes, in whichever worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.context import cuts, limits, summary
from mandate.activities.context.calibration import Calibration
from mandate.activities.context.estimate import Tokens
from mandate.activities.context.left_out import list_calls
from mandate.activities.context.limits import Limits
from mandate.activities.context.sizes import AgentSizes, measure_first, measure_message
from mandate.activities.context.summary import Allowance
from mandate.activities.providers.base import GetProvider
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.conversation import Conversation
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, digest_of
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelRequest, NotSent, Usage
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    Cut,
    LeftOut,
    Measured,
    Message,
    Segment,
    SummaryLine,
    TextPart,
    UserMessage,
)

log = structlog.stdlib.get_logger(__name__)

REFUSED_SHARE = 0.7
"""Of the estimate of a refused request: what the next one has at most."""

UNCORRECTED = (1.0, 1.0, 1.0, 1.0)
"""Told to older workers, which estimate in another way."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """One request, before it is sent."""

    chain: Chain
    """The conversation that the answer follows."""
    told: tuple[Message, ...]
    """What the answer follows in it and is not stored yet."""
    conversation: Conversation
    """Both, as the model is sent it."""
    tokens: Tokens
    estimate: int
    calibration: Calibration
    is_cut: bool = False


class ContextAssembler:
    """Assembler of requests, and maker of cuts."""

    def __init__(self, transcript: TranscriptLog, provider: GetProvider) -> None:
        self._transcript = transcript
        self._provider = provider
        self._sizes = AgentSizes()

    async def assemble(
        self,
        agent: PinnedAgent,
        chain: Chain,
        told: tuple[Message, ...],
        request: ModelRequest,
        *,
        allowance: Allowance,
    ) -> Assembled:
        """Return the request that tells the model `told`; make a cut first if the run has said how it stands.

        Raises:
            ApplicationError: `NeedsState`: the conversation is to be cut.
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        model = request.model or agent.models[0]
        assembled = self._measure(agent, chain, told, request.agent, model)
        if not request.cuts:
            return assembled
        found = limits.find_limits(agent, model, chain.cut.limit if chain.cut is not None else None)
        if request.state is not None:
            return await self._cut(agent, assembled, request, found, too_long=request.too_long, allowance=allowance)
        if found is None or assembled.estimate <= self._find_room(agent, assembled, request.agent, found):
            return assembled
        raise _needs_state(assembled.estimate)

    async def shorten(
        self,
        agent: PinnedAgent,
        refused: Assembled,
        request: ModelRequest,
        error: ApplicationError,
        *,
        allowance: Allowance,
    ) -> Assembled:
        """Return a shorter request in place of one that the model refused as too long.

        Raises:
            ApplicationError: `NeedsState`; or `error` where there is nothing left to cut.
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        if not request.cuts:
            raise error
        if request.state is None:
            raise _needs_state(refused.estimate, too_long=refused.estimate)
        model = request.model or agent.models[0]
        found = limits.find_limits(agent, model)
        shorter = await self._cut(agent, refused, request, found, too_long=refused.estimate, allowance=allowance)
        if shorter.tokens.total > 0.95 * refused.tokens.total:
            raise error
        return shorter

    @staticmethod
    def measure_answer(assembled: Assembled, model: str, usage: Usage) -> Measured | None:
        """Return the size of the request as its answer reports it; `None` when it does not."""
        if usage.input_tokens <= 0:
            return None
        return Measured(
            model=model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            messages=len(assembled.conversation),
            rates=assembled.calibration.learn(assembled.tokens, usage.input_tokens),
            ratios=UNCORRECTED,
        )

    def _measure(
        self, agent: PinnedAgent, chain: Chain, told: tuple[Message, ...], digest: Digest, model: str
    ) -> Assembled:
        conversation = chain.conversation.extend(*told)
        fixed, every = self._sizes.measure(digest, agent), measure_first(conversation, len(conversation))
        last = chain.last_measured
        calibration = Calibration.of(model, last)
        estimate = calibration.estimate(fixed + every)
        if last is not None and last is chain.measured and last.model == model and chain.segment.agent == digest:
            place = last.messages if last.messages is not None else _find_answer(conversation)
            before, until = measure_first(conversation, place), measure_first(conversation, place + 1)
            estimate = calibration.estimate_next(last, fixed + before, answer=until - before, new=every - until)
        return Assembled(chain, told, conversation, fixed + every, estimate, calibration)

    def _find_room(self, agent: PinnedAgent, assembled: Assembled, digest: Digest, found: Limits) -> int:
        """Return the tokens above which a cut is made: more than the limit where what is never cut needs it."""
        fixed = self._sizes.measure(digest, agent) + measure_message(assembled.conversation[0])
        needed = assembled.calibration.estimate(fixed)
        return max(found.limit, min(found.most, ceil(needed * 1.5)))

    async def _cut(
        self,
        agent: PinnedAgent,
        whole: Assembled,
        request: ModelRequest,
        found: Limits | None,
        *,
        too_long: int,
        allowance: Allowance,
    ) -> Assembled:
        """Store a cut of the conversation, which begins what the model is sent from here on."""
        model = request.model or agent.models[0]
        learned = whole.chain.cut.limit if whole.chain.cut is not None else None
        if too_long:
            learned = min(ceil(too_long * REFUSED_SHARE), learned or too_long)
        found = found if found is None or learned is None else replace(found, limit=min(found.limit, learned))
        cutter = _Cutter(self._sizes.measure(request.agent, agent), agent, whole, request.state or "")
        limit = found.limit if found is not None else learned or ceil(whole.estimate * limits.AIM)
        lines, kept_from = self._lines_before(whole), 0
        key = _name_cut(whole, request, model, too_long)
        aim = ceil(limit * limits.AIM)
        if agent.context.summary is not None:
            if (kept := await self._transcript.blobs.find_first(key)) is not None:
                return await self._resume(agent, kept, request.agent, model)
            draft = cutter.cut(aim, ())
            lines, kept_from = await self._sum_up(agent, whole, draft, model, limit=limit, allowance=allowance)
        plan = cutter.cut(aim, lines)
        salt = sensitive_arguments.find_salt(whole.conversation)
        earlier = await self._transcript.earlier_calls.add(
            whole.chain.cut.earlier if whole.chain.cut is not None else (), list_calls(agent, plan.dropped, salt)
        )
        cut = Cut(
            messages=plan.messages,
            number=1 + (whole.chain.cut.number if whole.chain.cut is not None else 0),
            count=whole.chain.count + len(whole.told),
            kept_from=kept_from,
            earlier=earlier,
            left_out=plan.left_out,
            summary=lines,
            limit=learned,
            measured=whole.chain.last_measured,
        )
        chain = await self._transcript.append(whole.chain, request.agent, whole.told, cut=cut)
        if agent.context.summary is not None:
            first = await self._transcript.blobs.keep_first(key, chain.head.encode())
            if first != chain.head.encode():
                return await self._resume(agent, first, request.agent, model)
        cut_down = self._begin(agent, chain, request.agent, model)
        log.info("context_cut", step=request.step, number=cut.number, before=whole.estimate, after=cut_down.estimate)
        return cut_down

    def _begin(self, agent: PinnedAgent, chain: Chain, digest: Digest, model: str) -> Assembled:
        assert chain.cut is not None
        return replace(self._measure(agent, chain, (), digest, model), is_cut=True)

    @staticmethod
    def _lines_before(whole: Assembled) -> tuple[SummaryLine, ...]:
        return whole.chain.cut.summary if whole.chain.cut is not None else ()

    async def _resume(self, agent: PinnedAgent, head: bytes, digest: Digest, model: str) -> Assembled:
        """Go on from the cut that an earlier attempt made here: no summary is written twice in different words."""
        return self._begin(agent, await self._transcript.load(head.decode()), digest, model)

    async def _sum_up(
        self, agent: PinnedAgent, whole: Assembled, draft: "_Plan", model: str, *, limit: int, allowance: Allowance
    ) -> tuple[tuple[SummaryLine, ...], int]:
        """Return the lines in place of all that was left out, and where what is kept begins."""
        before = whole.chain.cut
        first = before.kept_from if before is not None else 0
        segments = await self._transcript.read_back(whole.chain.head, first)
        answers = sum(isinstance(message, AssistantMessage) for message in draft.messages)
        dropped = _leave_last(segments, answers)
        lines = self._lines_before(whole)
        if not draft.dropped or not dropped:
            return lines, first
        sources = await summary.list_sources(self._transcript, agent, lines, dropped)
        task = summary.Task(agent, model, limit, lines, sources, allowance)
        made = await summary.summarise(task, self._provider, attempt=activity.info().attempt)
        return made, dropped[-1][1].position


def _name_cut(whole: Assembled, request: ModelRequest, model: str, too_long: int) -> str:
    """Return a name of the cut that is the same in each attempt of this step, whatever is reserved for it."""
    told = "".join(message.model_dump_json() for message in whole.told)
    parts = ("cut", whole.chain.head, request.agent, model, str(too_long), told)
    return digest_of("\n".join(parts).encode(errors="replace"))


def _find_answer(conversation: Conversation) -> int:
    """Return the place of the newest answer."""
    return max(place for place, message in enumerate(conversation) if isinstance(message, AssistantMessage))


def _leave_last(segments: Sequence[tuple[Digest, Segment]], answers: int) -> list[tuple[Digest, Segment]]:
    """Return the segments without the last ones that hold so many answers."""
    end = len(segments)
    while end > 0 and answers > 0:
        end -= 1
        answers -= sum(isinstance(message, AssistantMessage) for message in segments[end][1].messages)
    # What was told before the first answer that is kept stands in one segment with it.
    return list(segments[: end + 1])


def _needs_state(estimate: int, *, too_long: int = 0) -> ApplicationError:
    return ApplicationError(
        f"the conversation has about {estimate} tokens and is to be cut",
        NotSent(input_tokens=estimate, too_long=too_long),
        type=FailureType.NEEDS_STATE,
        non_retryable=True,
        category=failures.EXPECTED,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A conversation that is cut, and what it leaves out."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...]
    left_out: LeftOut


class _Cutter:
    """Cutter of one conversation."""

    def __init__(self, fixed: Tokens, agent: PinnedAgent, whole: Assembled, state: str) -> None:
        self._whole = whole
        self._state = state
        self._fixed = fixed
        self._context = agent.context
        before = whole.chain.cut
        messages = list(whole.conversation)
        self._goal = messages[0]
        self._words = tuple(_list_words(messages[1])) if before is not None else ()
        self._body = messages[1:] if before is None else messages[2:]
        self._left_out = before.left_out if before is not None else LeftOut()

    def cut(self, aim: int, lines: tuple[SummaryLine, ...]) -> _Plan:
        """Return the conversation cut down to `aim` tokens, as far as what is never cut allows."""
        recall = self._context.recall
        division = cuts.divide(
            self._body, room=self._find_room(aim, lines), keep=self._context.keep, size=self._size, recall=recall
        )
        left_out = cuts.count_left_out(self._left_out, division.dropped, recall=recall)
        words = cuts.collect_words(self._words, division.dropped)
        note = UserMessage(
            role="user",
            parts=(TextPart(kind="text", text=cuts.write_note(self._state, left_out, lines)), *words),
        )
        return _Plan((self._goal, note, *division.kept), division.dropped, left_out)

    def _find_room(self, aim: int, lines: tuple[SummaryLine, ...]) -> int:
        """Return the tokens that there are for what is kept, beside what every request has."""
        note = cuts.write_note(self._state, self._left_out, lines)
        words = "".join(part.text for part in self._words)
        always = self._whole.calibration.estimate(
            self._fixed
            + measure_message(self._goal)
            + measure_message(UserMessage(role="user", parts=(TextPart(kind="text", text=note + words),)))
        )
        return max(aim - always, aim // 3)

    def _size(self, message: Message) -> int:
        return self._whole.calibration.estimate(measure_message(message))


def _list_words(note: Message) -> list[TextPart]:
    return [part for part in note.parts[1:] if isinstance(part, TextPart)]
