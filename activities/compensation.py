"""The turn of a stopped run in which what it did is taken back: written into the conversation like a model's."""

import json
from collections import Counter

import structlog
from temporalio import activity

from activities import failures, results, turns
from activities.blobs import BlobCorrupted, BlobMissing
from activities.conversation import Conversation
from activities.findings import Unable, value_of
from activities.pinned import PinnedAgents
from activities.transcript import TranscriptLog
from activities.work import call_of, text_of
from workflows.contracts.agent import PinnedAgent
from workflows.contracts.base import Digest, JsonObject
from workflows.contracts.compensation import Compensable, CompensationRequest
from workflows.contracts.model import Finish, ModelReply
from workflows.contracts.tool import CallRequest
from workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage
from workflows.rules import checking
from workflows.rules.cel import Unevaluable

log = structlog.stdlib.get_logger(__name__)

SAYS = "The run was stopped. What it did is taken back, the last first, as far as policy and people allow it."


class CompensationActivities:
    """The agents and conversations that compensations are made from."""

    def __init__(self, agents: PinnedAgents, transcript: TranscriptLog) -> None:
        self._agents = agents
        self._transcript = transcript

    @activity.defn
    async def plan_compensation(self, request: CompensationRequest) -> ModelReply:
        """The calls that take back `request.calls`, in their order; one whose arguments cannot be computed is a misfit.

        Raises:
            ApplicationError: a store failure, retried.
        """
        structlog.contextvars.bind_contextvars(step=request.step)
        with failures.of_store():
            agent = await self._agents.get(request.agent)
            chain = await self._transcript.load(request.head)
            told = await results.parts(self._transcript.blobs, agent, chain.conversation, request.results)
            before = (UserMessage(role="user", parts=tuple(told)),) if told else ()
            planned = [await self._planned(agent, done) for done in request.calls]
            taken_back = _made_by_the_agent(agent, chain.conversation.extended(*before))
            parts = [
                CallPart(kind="call", call_id=f"undo-{request.step}-{number}", tool=tool, arguments=json.dumps(given))
                for number, (tool, given, _) in enumerate(planned)
            ]
            message = AssistantMessage(
                role="assistant",
                parts=(TextPart(kind="text", text=SAYS), *parts),
                protocol="runtime",
                model="compensation",
            )
            calls = turns.calls_of(agent, turns.digests(agent, chain), message, Finish.COMPLETE)
            extended = await self._transcript.append(chain, request.agent, (*before, message))
        log.info("compensation_planned", calls=len(calls))
        undoing = [
            call.model_copy(update={"undoes": done.key, "misfit": fault or call.misfit or _own(call, taken_back)})
            for call, done, (_, _, fault) in zip(calls, request.calls, planned, strict=True)
        ]
        return ModelReply(head=extended.head, text=SAYS, calls=tuple(undoing))

    async def _planned(self, agent: PinnedAgent, done: Compensable) -> tuple[str, JsonObject, str | None]:
        """Tool and arguments that take a call back, and why they cannot be computed."""
        spec = agent.compensations.get(done.tool)
        if spec is None:
            return done.tool, {}, "the agent has no compensation for it"
        try:
            earlier = await self._transcript.load(done.head)
            _, args = await call_of(self._transcript, agent, earlier, done.index, done.edited)
            text = "null" if done.result.stands_in else await text_of(self._transcript, done.result)
        except Unable as unable:
            return spec.tool, {}, unable.reason
        except (BlobMissing, BlobCorrupted) as error:
            # What the other calls need is there; a store that does not answer is asked again.
            return spec.tool, {}, str(error)
        made = checking.arguments_of(spec.arguments, args, done.key, result=value_of(text))
        if isinstance(made, Unevaluable):
            return spec.tool, {}, made.reason
        return spec.tool, made, None


def _made_by_the_agent(agent: PinnedAgent, conversation: Conversation) -> Counter[Digest]:
    """How often each call that changes the world was made in the conversation, and not refused or failed."""
    made, open_calls = Counter[Digest](), dict[str, Digest]()
    for message in conversation:
        if isinstance(message, AssistantMessage):
            found = turns.calls_of(agent, (), message, Finish.COMPLETE)
            open_calls = {
                part.call_id: call.digest
                for part, call in zip(message.calls, found, strict=True)
                if call.digest is not None
            }
            continue
        for part in message.parts:
            if isinstance(part, ResultPart) and not part.error and part.call_id in open_calls:
                made[open_calls[part.call_id]] += 1
    return made


def _own(call: CallRequest, made: Counter[Digest]) -> str | None:
    """Why a call is not made: the agent itself has made the same one, for one call that would be taken back."""
    if call.digest is None or not made[call.digest]:
        return None
    made[call.digest] -= 1
    return "the agent has taken it back itself"
