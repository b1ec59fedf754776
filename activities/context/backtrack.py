"""Ways back: a conversation that goes on from an earlier step, as a cut that leaves out what came after it."""

from collections.abc import Sequence

from mandate.activities.context.left_out import list_calls
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.conversation import NOTE
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.model import ModelRequest
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    Cut,
    LeftOut,
    Message,
    ResultPart,
    Segment,
    TextPart,
    UserMessage,
)

LEFT_BEHIND = f"{NOTE} You have gone back in this conversation; what you left behind is not shown."


async def go_back(transcript: TranscriptLog, agent: PinnedAgent, chain: Chain, request: ModelRequest) -> Chain:
    """Return the chain after a cut that keeps what was known at an earlier step; each attempt makes the same one.

    Calls of the branch that is left out count on: the same call has another idempotency key.

    Raises:
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    assert request.back is not None
    segments = [found async for found in transcript.segments(chain.head)]
    place = _find_step(segments, request.back.to, steps=request.step - 1)
    base = await transcript.load(segments[place][0])
    later = segments[place + 1 :]
    results = _find_results(base, later)
    note = TextPart(kind="text", text=f"{NOTE} {request.back.note}")
    told = UserMessage(role="user", parts=(*results, note))
    left = tuple(message for _, segment in later for message in segment.messages)
    salt = sensitive_arguments.find_salt(base.conversation)
    earlier = await transcript.earlier_calls.add(
        base.cut.earlier if base.cut is not None else (), list_calls(agent, left, salt)
    )
    before = chain.cut
    cut = Cut(
        messages=(*_mark_begin(base), told),
        number=1 + (before.number if before is not None else 0),
        count=chain.count,
        kept_from=chain.segment.position + 1,
        earlier=earlier,
        left_out=base.cut.left_out if base.cut is not None else LeftOut(),
        summary=base.cut.summary if base.cut is not None else (),
        limit=before.limit if before is not None else None,
        measured=chain.last_measured,
    )
    return await transcript.append(chain, request.agent, (), cut=cut)


def _find_step(segments: Sequence[tuple[Digest, Segment]], to: int, *, steps: int) -> int:
    """Return the position of the segment with the answer of a step; the run has taken `steps`, others came before."""
    answers = [
        place
        for place, (_, segment) in enumerate(segments)
        for message in segment.messages
        if isinstance(message, AssistantMessage)
    ]
    return answers[len(answers) - steps + to - 1]


def _find_results(base: Chain, later: Sequence[tuple[Digest, Segment]]) -> tuple[ResultPart, ...]:
    """Return the results of the last calls of `base`, as the answer after them was told."""
    newest = base.conversation[-1]
    calls = {call.call_id for call in newest.calls} if isinstance(newest, AssistantMessage) else set()
    messages = later[0][1].messages if later and calls else ()
    parts = [part for message in messages if isinstance(message, UserMessage) for part in message.parts]
    return tuple(part for part in parts if isinstance(part, ResultPart) and part.call_id in calls)


def _mark_begin(base: Chain) -> tuple[Message, ...]:
    """Return the messages of `base`, a note after the first as every cut has it."""
    messages = tuple(base.conversation)
    if base.cut is not None:
        return messages
    return (messages[0], UserMessage(role="user", parts=(TextPart(kind="text", text=LEFT_BEHIND),)), *messages[1:])
