"""The calls of one turn, as the workflow is told of them."""

from collections.abc import Sequence

from mandate.activities.toolbox import arguments, written_plans
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.tool import (
    CALLS_PER_TURN,
    REMOTE_LIMIT_BYTES,
    TURN_LIMIT_BYTES,
    CallRequest,
)
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Message
from mandate.workflows.rules import plain_text

MISFIT_CHARACTERS = 300
PLAN_MISFIT_CHARACTERS = 2000
"""Of a plan all that is wrong is told at once."""


def read_calls(
    agent: PinnedAgent,
    earlier: Sequence[Digest],
    message: AssistantMessage,
    finish: Finish,
    *,
    salt: bytes | None,
) -> tuple[CallRequest, ...]:
    """Return what the workflow is told of each call, within what Temporal carries for a turn; `salt` is the run's."""
    seen = list(earlier)
    share = TURN_LIMIT_BYTES // 2 // max(min(len(message.calls), CALLS_PER_TURN), 1)
    remote_bytes = 0
    requests = []
    for index, part in enumerate(message.calls):
        definition = agent.definition(part.tool)
        call = _call(agent, part, finish, salt) if index < CALLS_PER_TURN else _misfit(part.tool, _TOO_MANY)
        if call.misfit is None and definition is not None and arguments.is_unwritten(definition, part.arguments):
            call = _misfit(part.tool, _UNWRITTEN)
        if call.misfit is None and definition is not None:
            remote = definition.tool.remote is not None
            view = arguments.hide_sensitive(definition, call.arguments, salt)
            if not remote and written_plans.find_terms(definition) is None:
                view = arguments.shorten_texts(view, min(share, arguments.SHOWN_BYTES))
            size = len(canonical_json(view))
            remote_bytes += size if remote else 0
            limit = REMOTE_LIMIT_BYTES if remote else min(share, REMOTE_LIMIT_BYTES)
            call = call.model_copy(update={"arguments": view})
            if size > limit or (remote and remote_bytes > TURN_LIMIT_BYTES // 2):
                call = _misfit(part.tool, f"its arguments have {size} bytes; the limit is {limit}")
        if call.digest is not None:
            seen.append(call.digest)
            call = call.model_copy(update={"repeat": seen.count(call.digest) - 1})
        requests.append(call)
    return tuple(requests)


_UNWRITTEN = "its arguments are empty; write {} to call it with none"
_TOO_MANY = f"an answer may hold at most {CALLS_PER_TURN} calls"


def _call(agent: PinnedAgent, part: CallPart, finish: Finish, salt: bytes | None) -> CallRequest:
    """Return one call with its whole arguments, or why it cannot be made."""
    definition = agent.definition(part.tool)
    if definition is None:
        known = ", ".join(definition.tool.name for definition in agent.tools)
        unknown = f"there is no tool {part.tool[:64]!r}" if part.tool else "the call names no tool"
        return _misfit(part.tool, f"{unknown}; there are: {known}")
    if finish is Finish.TRUNCATED:
        return _misfit(part.tool, "the answer was cut off at the output limit; call it again")
    try:
        whole = arguments.read(definition, part.arguments)
    except ValueError as error:
        is_plan = written_plans.find_terms(definition) is not None
        return _misfit(part.tool, str(error), PLAN_MISFIT_CHARACTERS if is_plan else MISFIT_CHARACTERS)
    if not definition.tool.effect.changes_world:
        return CallRequest(tool=part.tool, arguments=whole)
    digest = arguments.call_digest(part.tool, whole, salt if definition.tool.sensitive else None)
    return CallRequest(tool=part.tool, arguments=whole, digest=digest)


def _misfit(tool: str, reason: str, length: int = MISFIT_CHARACTERS) -> CallRequest:
    return CallRequest(tool=tool[:64], misfit=plain_text.shorten(f"not called: {reason}", length))


async def list_digests(agent: PinnedAgent, chain: Chain, transcript: TranscriptLog) -> list[Digest]:
    """Return the digests of all earlier calls that change the world, invalid ones left out.

    Raises:
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    salt = sensitive_arguments.find_salt(chain.conversation)
    by_message = chain.conversation.map_messages("effects", lambda message, _: list_effects(agent, message, salt))
    digests = [digest for digests in by_message for digest in digests]
    if chain.cut is None:
        return digests
    earlier = await transcript.earlier_calls.list_effects(chain.cut.earlier)
    return [*(digest for digest, number in earlier.items() for _ in range(number)), *digests]


def list_effects(agent: PinnedAgent, message: Message, salt: bytes | None) -> tuple[Digest, ...]:
    """Return the digests of the calls in `message` that change the world."""
    if not isinstance(message, AssistantMessage):
        return ()

    def changes_world(name: str) -> bool:
        definition = agent.definition(name)
        return definition is not None and definition.tool.effect.changes_world

    calls = (_call(agent, part, Finish.COMPLETE, salt) for part in message.calls if changes_world(part.tool))
    return tuple(call.digest for call in calls if call.digest is not None)
