"""Signatures of a call, checked again by whoever makes it: no run, and nobody who acts as one, can leave them out."""

import json
from dataclasses import dataclass

from pydantic import JsonValue

from mandate.activities.people import edits
from mandate.activities.people.edits import EditRefused
from mandate.activities.people.signatures import KeysUnavailable, Signatures, TokenRefused
from mandate.activities.toolbox import arguments, calls
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.policy import Asking
from mandate.workflows.contracts.request import SignedDecision
from mandate.workflows.contracts.tool import SignedApproval, ToolDefinition, ToolRequest
from mandate.workflows.rules import decisions, policy


class Unsigned(Exception):
    """A call that lacks signatures which it needs; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call that is about to be made."""

    request: ToolRequest
    agent: PinnedAgent
    chain: Chain
    definition: ToolDefinition
    whole: JsonObject
    """Its arguments."""

    @property
    def tool(self) -> str:
        return self.definition.tool.name

    @property
    def salt(self) -> bytes | None:
        return arguments.find_salt(self.definition, self.chain.conversation)


class SignedCalls:
    """Tokens of people who approved a call, to be checked again."""

    def __init__(self, signatures: Signatures | None, transcript: TranscriptLog) -> None:
        """Take the means of checking; `signatures` is `None` for a worker that has no keys."""
        self._signatures = signatures
        self._transcript = transcript

    async def check(self, call: SignedCall) -> None:
        """Check that enough people have signed for `call`, or nobody has to.

        Raises:
            Unsigned: they have not.
            KeysUnavailable: it cannot be told now.
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        approval = call.request.signed
        wanted = _count_signers(call.agent, call.definition, approval)
        if not wanted:
            return
        if self._signatures is None:
            raise KeysUnavailable(
                "this worker has no keys to check signatures with (MANDATE_JWKS, MANDATE_TOKEN_ISSUER)"
            )
        people = set[str]()
        for address in dict.fromkeys(approval.evidence) if approval is not None else ():
            assert approval is not None
            kept = SignedDecision.model_validate_json(await self._transcript.blobs.get(address))
            await self._check_one(self._signatures, kept, approval, call)
            people.add(normalize_name(kept.decision.by or ""))
        for rule, quorum in wanted.items():
            if len(people) < quorum:
                name = f"rule {rule!r}" if rule is not None else "the agent"
                raise Unsigned(f"{name} wants {quorum} signed approvals of this call, which has {len(people)}")

    async def _check_one(
        self, signatures: Signatures, kept: SignedDecision, approval: SignedApproval, call: SignedCall
    ) -> None:
        decision = kept.decision
        before, asked = await self._find_original(kept, call)
        digest = decisions.compute_digest(
            approval.run,
            approval.request,
            kind="approval",
            tool=call.tool,
            arguments=asked,
            agent=call.request.agent,
        )
        try:
            made = (
                before
                if decision.value is None
                else edits.restore_hidden(decision.value, before, call.definition, call.salt)
            )
            read = arguments.read(call.definition, json.dumps(made))
        except (EditRefused, ValueError):
            raise Unsigned("a signed approval is of arguments that do not fit the tool") from None
        is_of_call = arguments.call_digest(call.tool, read) == arguments.call_digest(call.tool, call.whole)
        if decision.choice != "approve" or decision.digest != digest or not is_of_call:
            raise Unsigned("a signed approval is of another call")
        try:
            await signatures.check(decision.token or "", decision, digest, kept.at)
        except TokenRefused as refused:
            raise Unsigned(f"a signed approval does not count: its token {refused}") from None

    async def _find_original(self, kept: SignedDecision, call: SignedCall) -> tuple[JsonObject, JsonValue]:
        """Return the arguments that the person saw, whole and in the form that the request's digest holds."""
        if kept.edited_before is not None:
            edited = await self._of_call(call, kept.edited_before)
            return edited, arguments.call_digest(call.tool, edited, call.salt)
        found = call.chain.conversation.find_turn(call.request.index)
        assert found is not None
        turn, position = found
        seen = calls.read_calls(call.agent, (), turn, Finish.COMPLETE, salt=call.salt)[position]
        return await self._of_call(call, None), seen.digest or seen.arguments

    async def _of_call(self, call: SignedCall, edited: Digest | None) -> JsonObject:
        part = call.chain.conversation.find_call(call.request.index)
        assert part is not None
        return await arguments.load_call(self._transcript.blobs, call.chain.conversation, call.definition, part, edited)


def _count_signers(
    agent: PinnedAgent, definition: ToolDefinition, approval: SignedApproval | None
) -> dict[str | None, int]:
    """Return how many people must have signed, by rule.

    A rule without a condition is known to ask. Of the others, and of calls that no rule matched, the run says it.
    """
    if not agent.signed_calls:
        return {}
    named = approval.rules if approval is not None else ()
    wanted: dict[str | None, int] = {}
    for rule in agent.policy:
        asks = rule.verdict == "ask" and (rule.signature or agent.people.signature) == "required"
        if asks and (rule.id in named or (rule.when is None and policy.matches(rule.match, definition.tool))):
            wanted[rule.id] = _quorum(rule, agent.people)
    if None in named:
        wanted[None] = _quorum(agent.people, agent.people)
    return wanted


def _quorum(own: Asking, people: Asking) -> int:
    return own.quorum or people.quorum or 1
