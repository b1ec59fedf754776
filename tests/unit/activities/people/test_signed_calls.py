"""Signatures of a call, as whoever makes it checks them: with a run that lies, and a store that holds what it likes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.people.signatures import KeysUnavailable, Signatures, value_digest
from mandate.activities.people.signed_calls import SignedCall, SignedCalls, Unsigned
from mandate.activities.toolbox import arguments
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.policy import Asking, Rule
from mandate.workflows.contracts.request import Decision, SignedDecision
from mandate.workflows.contracts.tool import Effect, PythonBinding, SignedApproval, Tool, ToolDefinition, ToolRequest
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, TextPart, UserMessage
from mandate.workflows.rules import decisions
from tests.support.memory_store import MemoryStore
from tests.support.signing import Issuer

AT = datetime(2026, 11, 29, 9, tzinfo=UTC)
RUN, AGENT = "0199-first", "A" * 43
CALL: JsonObject = {"order": 81, "amount": 120.0}
PAY = ToolDefinition(
    tool=Tool(name="pay", source="python", effect=Effect.KEYED),
    input_schema={"type": "object", "properties": {"order": {"type": "integer"}, "amount": {"type": "number"}}},
    binding=PythonBinding(kind="python", function="a:b"),
)
SIGN: dict[str, Any] = {"verdict": "ask", "signature": "required", "match": {"tools": ["pay"]}}


def agent(*rules: dict[str, Any], people: Asking | None = None, signed_calls: bool = True) -> PinnedAgent:
    return PinnedAgent(
        name="own",
        instructions="x",
        models=("scripted:x",),
        tools=(PAY,),
        policy=tuple(Rule.model_validate(rule) for rule in rules),
        people=people or Asking(),
        attempts=3,
        budget=Budget(),
        output_schema=None,
        max_output_tokens=100,
        signed_calls=signed_calls,
    )


ONE = agent({"id": "signs", **SIGN})
TWO = agent({"id": "signs", **SIGN, "quorum": 2})


class World:
    """A store, a conversation that ends with `CALL`, and an issuer of tokens."""

    def __init__(self, folder: Path, chain: Chain, transcript: TranscriptLog) -> None:
        self.issuer, self.other = Issuer(), Issuer()
        self.keys = self.issuer.write(folder / "jwks.json")
        self.chain = chain
        self.transcript = transcript

    @classmethod
    async def make(cls, folder: Path) -> "World":
        transcript = TranscriptLog(Blobs(MemoryStore()))
        chain = await transcript.start(AGENT, UserMessage(role="user", parts=(TextPart(kind="text", text="go"),)))
        call = CallPart(kind="call", call_id="c1", tool="pay", arguments=json.dumps(CALL))
        said = AssistantMessage(role="assistant", parts=(call,), protocol="scripted", model="x")
        return cls(folder, await transcript.append(chain, AGENT, [said]), transcript)

    def digest(self, given: JsonObject = CALL, *, run: str = RUN, request: str = "r1") -> str:
        asked = arguments.call_digest("pay", given)
        return decisions.compute_digest(run, request, kind="approval", tool="pay", arguments=asked, agent=AGENT)

    async def evidence(
        self, by: str = "ann@example.com", *, choice: str = "approve", issuer: Issuer | None = None,
        digest: str | None = None, value: JsonObject | None = None, before: JsonObject | None = None,
        at: datetime = AT, claims: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """The address of a signed decision, sound where it is not told otherwise."""
        asked = digest or self.digest(before or CALL)
        decision = Decision(request="r1", digest=asked, choice=choice, by=by, value=value)
        now = int(AT.timestamp())
        said = {
            "iss": "example", "aud": "mandate", "sub": by, "iat": now, "exp": now + 300, "request_digest": asked,
            "choice": choice, **({"value_digest": value_digest(decision)} if value is not None else {}),
            **(claims or {}),
        }  # fmt: skip
        token = (issuer or self.issuer).sign(said)
        edited = (await self.transcript.blobs.put(canonical_json(before)))[0] if before is not None else None
        kept = SignedDecision(
            decision=decision.model_copy(update={"token": token}), at=at, edited_before=edited
        ).model_dump_json()
        return (await self.transcript.blobs.put(kept.encode()))[0]

    async def check(
        self, of: PinnedAgent, *evidence: str, whole: JsonObject = CALL, run: str = RUN, request: str = "r1",
        rules: tuple[str | None, ...] | None = ("signs",), keys: bool = True,
    ) -> str | None:  # fmt: skip
        """Why a call is not made."""
        signatures = Signatures(self.keys, issuer="example") if keys else None
        approval = SignedApproval(run=run, request=request, rules=rules, evidence=evidence) if rules else None
        asked = ToolRequest(agent=AGENT, head=self.chain.head, step=1, signed=approval)
        try:
            await SignedCalls(signatures, self.transcript).check(SignedCall(asked, of, self.chain, PAY, whole))
        except Unsigned as unsigned:
            return str(unsigned)
        return None


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World.make(tmp_path)


async def test_signed_call_is_made(world: World) -> None:
    assert await world.check(ONE, await world.evidence()) is None


async def test_quorum_is_of_distinct_people(world: World) -> None:
    ann, bob = await world.evidence(), await world.evidence("bob@example.com")
    again = await world.evidence("ANN@example.com")

    assert await world.check(TWO, ann, bob) is None
    assert await world.check(TWO, ann) == "rule 'signs' wants 2 signed approvals of this call, which has 1"
    assert await world.check(TWO, ann, ann, again) == "rule 'signs' wants 2 signed approvals of this call, which has 1"


async def test_changed_call_is_made_as_it_was_changed(world: World) -> None:
    """By one person, then as another changed it again, who alone counts then."""
    first: JsonObject = {"order": 81, "amount": 80.0}
    second: JsonObject = {"order": 81, "amount": 60.0}
    changed = await world.evidence(value=first)
    again = await world.evidence("bob@example.com", value=second, before=first)

    assert await world.check(ONE, changed, whole=first) is None
    assert await world.check(ONE, again, whole=second) is None
    assert await world.check(ONE, changed, whole=CALL) == "a signed approval is of another call"
    assert await world.check(ONE, changed, again, whole=second) == "a signed approval is of another call"


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"issuer": "other"}, "its signature is not that of the key it names"),
        ({"claims": {"choice": "reject"}}, "is for another choice"),
        ({"choice": "reject"}, "a signed approval is of another call"),
        ({"claims": {"sub": "eve@example.com"}}, "is not of 'ann@example.com'"),
        ({"claims": {"request_digest": "x" * 43}}, "is for another request"),
        ({"digest": "x" * 43}, "a signed approval is of another call"),
        ({"at": AT + timedelta(hours=1)}, "was expired when the decision came"),
        ({"at": AT - timedelta(hours=1)}, "was not valid yet"),
        ({"before": {"order": 81, "amount": 5000.0}}, "a signed approval is of another call"),
        ({"value": {"order": 81, "amount": 5000.0}}, "a signed approval is of another call"),
        ({"value": {"order": "?"}}, "a signed approval is of arguments that do not fit the tool"),
    ],
)
async def test_token_of_anything_else_counts_for_nothing(world: World, lie: dict[str, Any], why: str) -> None:
    given = {**lie, "issuer": world.other} if "issuer" in lie else lie

    assert why in (await world.check(ONE, await world.evidence(**given)) or "")


async def test_signature_is_for_one_call_of_one_request_of_one_run(world: World) -> None:
    sound = await world.evidence()
    of_another = "a signed approval is of another call"

    assert await world.check(ONE, sound, run="0199-other") == of_another
    assert await world.check(ONE, sound, request="r2") == of_another
    assert await world.check(ONE, sound, whole={"order": 81, "amount": 5000.0}) == of_another


@pytest.mark.parametrize("rules", [None, (), ("other",)])
async def test_rule_without_a_condition_cannot_be_left_out(world: World, rules: tuple[str, ...] | None) -> None:
    assert await world.check(ONE, rules=rules) == "rule 'signs' wants 1 signed approvals of this call, which has 0"


async def test_rule_with_a_condition_asks_where_the_run_says_so(world: World) -> None:
    conditional = agent({"id": "signs", **SIGN, "when": "args.amount > 100.0"})

    assert await world.check(conditional, rules=None) is None
    assert "wants 1 signed" in (await world.check(conditional) or "")
    assert await world.check(conditional, await world.evidence()) is None


async def test_unmatched_call_is_signed_for_where_the_agent_says_so(world: World) -> None:
    asking = agent(people=Asking(signature="required", quorum=2))
    ann, bob = await world.evidence(), await world.evidence("bob@example.com")

    assert await world.check(asking, ann, rules=(None,)) == (
        "the agent wants 2 signed approvals of this call, which has 1"
    )
    assert await world.check(asking, ann, bob, rules=(None,)) is None


async def test_rules_of_other_tools_and_verdicts_want_nothing(world: World) -> None:
    other = agent(
        {"id": "other", **SIGN, "match": {"tools": ["send"]}}, {"id": "signs", "match": {}, "verdict": "deny"}
    )

    assert await world.check(other, rules=None) is None


async def test_agents_from_before_want_none(world: World) -> None:
    assert await world.check(agent({"id": "signs", **SIGN}, signed_calls=False)) is None


async def test_worker_without_keys_makes_no_signed_call(world: World) -> None:
    with pytest.raises(KeysUnavailable, match="has no keys to check signatures with"):
        await world.check(ONE, await world.evidence(), keys=False)
