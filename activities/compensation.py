"""The turn of a stopped run in which what it did is taken back: written into the conversation like a model's."""

import json
from collections import defaultdict
from dataclasses import dataclass

import structlog
from temporalio import activity

from mandate.activities import failures
from mandate.activities.checks.findings import Unable, parse_value
from mandate.activities.checks.subject import load_call, load_text
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.activities.transcript.conversation import Conversation
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.compensation import Compensable, CompensationRequest
from mandate.workflows.contracts.model import Finish, ModelReply
from mandate.workflows.contracts.tool import CallRequest
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage
from mandate.workflows.rules import verification
from mandate.workflows.rules.cel.evaluation import Unevaluable

log = structlog.stdlib.get_logger(__name__)

SAYS = "The run was stopped. What it did is taken back, the last first, as far as policy and people allow it."


Place = tuple[int, int]
"""Of a result: message of the conversation, and which of its parts."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The call that takes another one back."""

    tool: str
    arguments: JsonObject
    fault: str | None = None
    """The reason why its arguments cannot be computed."""
    done_at: Place = (0, 0)
    """Place of the other one's result."""


class CompensationActivities:
    """The agents and conversations that compensations are made from."""

    def __init__(self, agents: PinnedAgents, transcript: TranscriptLog) -> None:
        self._agents = agents
        self._transcript = transcript

    @activity.defn
    async def plan_compensation(self, request: CompensationRequest) -> ModelReply:
        """Plan the calls that take back `request.calls`, in their order; where arguments cannot be computed: a misfit.

        Raises:
            ApplicationError: a store failure, retried.
        """
        structlog.contextvars.bind_contextvars(step=request.step)
        with failures.translate_store_errors():
            agent = await self._agents.get(request.agent)
            chain = await self._transcript.load(request.head)
            told = await results.build_parts(self._transcript.blobs, agent, chain.conversation, request.results)
            before = (UserMessage(role="user", parts=tuple(told)),) if told else ()
            planned = [await self._plan(agent, done) for done in request.calls]
            whole = chain.conversation if chain.cut is None else await self._transcript.load_whole(request.head)
            taken_back = _find_own_calls(agent, whole.extend(*before))
            parts = [
                CallPart(
                    kind="call",
                    call_id=f"undo-{request.step}-{number}",
                    tool=plan.tool,
                    arguments=json.dumps(plan.arguments),
                )
                for number, plan in enumerate(planned)
            ]
            message = AssistantMessage(
                role="assistant",
                parts=(TextPart(kind="text", text=SAYS), *parts),
                protocol="runtime",
                model="compensation",
            )
            salt = sensitive_arguments.find_salt(chain.conversation)
            calls = toolbox_calls.read_calls(
                agent,
                await toolbox_calls.list_digests(agent, chain, self._transcript),
                message,
                Finish.COMPLETE,
                salt=salt,
            )
            extended = await self._transcript.append(chain, request.agent, (*before, message))
        log.info("compensation_planned", calls=len(calls))
        undoing = [
            call.model_copy(
                update={
                    "undoes": done.key,
                    "misfit": plan.fault or call.misfit or _find_duplicate(call, taken_back, plan.done_at),
                }
            )
            for call, done, plan in zip(calls, request.calls, planned, strict=True)
        ]
        return ModelReply(head=extended.head, text=SAYS, calls=tuple(undoing))

    async def _plan(self, agent: PinnedAgent, done: Compensable) -> Planned:
        spec = agent.compensations.get(done.tool)
        if spec is None:
            return Planned(done.tool, {}, fault="the agent has no compensation for it")
        try:
            earlier = await self._transcript.load(done.head)
            _, args = await load_call(self._transcript, agent, earlier, done.index, done.edited)
            text = "null" if done.result.stands_in else await load_text(self._transcript, done.result)
        except Unable as unable:
            return Planned(spec.tool, {}, fault=unable.reason)
        except (BlobMissing, BlobCorrupted) as error:
            # What the other calls need is there; a store that does not answer is asked again.
            return Planned(spec.tool, {}, fault=str(error))
        computed = verification.compute_arguments(spec.arguments, args, done.key, result=parse_value(text))
        if isinstance(computed, Unevaluable):
            return Planned(spec.tool, {}, fault=computed.reason)
        return Planned(spec.tool, computed, done_at=(earlier.count, done.index))


def _find_own_calls(agent: PinnedAgent, conversation: Conversation) -> dict[Digest, list[Place]]:
    """Return the place of each call that changes the world in the conversation, refused and failed ones left out."""
    salt = sensitive_arguments.find_salt(conversation)
    places, open_calls = defaultdict[Digest, list[Place]](list), dict[str, Digest]()
    for position, message in enumerate(conversation):
        if isinstance(message, AssistantMessage):
            calls = toolbox_calls.read_calls(agent, (), message, Finish.COMPLETE, salt=salt)
            open_calls = {
                part.call_id: call.digest
                for part, call in zip(message.calls, calls, strict=True)
                if call.digest is not None
            }
            continue
        for index, part in enumerate(message.parts):
            if isinstance(part, ResultPart) and not part.error and part.call_id in open_calls:
                places[open_calls[part.call_id]].append((position, index))
    return places


def _find_duplicate(call: CallRequest, places: dict[Digest, list[Place]], done_at: Place) -> str | None:
    """Return why a call is not made: the agent has made the same one since, for one call that it takes back."""
    since = places.get(call.digest or "", [])
    if not since or since[-1] < done_at:
        return None
    since.pop()
    return "the agent has taken it back itself"
