"""What `check_decision` makes of a decision: who may decide, what a token must say, which values can be used."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.decision import PeopleActivities
from mandate.activities.people.directory import Directory
from mandate.activities.people.signatures import Signatures
from mandate.activities.stores.sqlite import SqliteStore
from mandate.activities.toolbox import arguments
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.examples import sign_decision
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.request import CHOICES, Checked, Decision, DecisionCheck, Need, Request
from mandate.workflows.contracts.tool import ActivityBinding, PythonBinding, RemoteActivity, Tool, ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, TextPart, UserMessage
from tests.support.signing import Issuer

AT = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
NOW = int(AT.timestamp())
DIGEST = "R" * 43
ANN = "ann@example.com"
PEOPLE = """\
people:
  - {name: ann@example.com, addresses: ["slack:U012AB"], groups: [finance, leads]}
  - {name: bob@example.com, groups: [legal]}
  - {name: zo\u00eb@example.com}
"""
LONG = "x" * 5000

REFUND = ToolDefinition(
    tool=Tool(name="refund", source="python", sensitive=("card",)),
    input_schema={
        "type": "object",
        "properties": {
            "amount": {"type": "number", "maximum": 500},
            "card": {"type": "string", "minLength": 4},
            "note": {"type": "string"},
            "lines": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["amount"],
        "additionalProperties": False,
    },
    binding=PythonBinding(kind="python", function="a:b"),
)
REMOTE = RemoteActivity(name="Charge", task_queue="payments")
CHARGE = ToolDefinition(
    tool=Tool(name="charge", source="activity", remote=REMOTE),
    input_schema={"type": "object"},
    binding=ActivityBinding(kind="activity", activity=REMOTE),
)
CALL: JsonObject = {"amount": 120.0, "card": "4242", "note": LONG}


@dataclass
class World:
    """A worker with people, keys and a store, and a run that asks."""

    people: Path
    keys: Path
    activities: PeopleActivities
    transcript: TranscriptLog
    agent: str
    issuer: Issuer
    head: str = ""

    def request(self, *needs: dict[str, Any], kind: Any = "approval", tool: str = "refund", **more: Any) -> Request:
        expires = AT + timedelta(hours=1)
        made = tuple(Need(rule="r", expires_at=expires, **need) for need in needs or ({"groups": ("finance",)},))
        return Request(
            id="r1", kind=kind, digest=DIGEST, title="?", tool=tool if kind == "approval" else None, reason="asked",
            step=1, head=self.head or "H" * 43, index=0, choices=CHOICES[kind], needs=made, requested_at=AT, **more,
        )  # fmt: skip

    async def says(self, text: str, tool: str = "refund") -> None:
        """The run's conversation ends with this call."""
        chain = await self.transcript.start(
            self.agent, UserMessage(role="user", parts=(TextPart(kind="text", text="go"),))
        )
        call = CallPart(kind="call", call_id="c1", tool=tool, arguments=text)
        said = AssistantMessage(role="assistant", parts=(call,), protocol="scripted", model="x")
        self.head = (await self.transcript.append(chain, self.agent, [said])).head

    async def check(
        self, request: Request, choice: str = "approve", by: str = "ann@example.com", **more: Any
    ) -> Checked:
        told = {name: more.pop(name) for name in ("requester", "requester_is", "workflow_id", "at") if name in more}
        decision = Decision(request="r1", digest=DIGEST, choice=choice, by=by, **more)
        check = DecisionCheck(
            decision=decision, request=request, tool=None, agent=self.agent,
            **{"requester": None, "workflow_id": "run-1", "at": AT, **told},
        )  # fmt: skip
        return await ActivityEnvironment().run(self.activities.check_decision, check)

    async def refusal(self, request: Request, *args: Any, **more: Any) -> str | None:
        return (await self.check(request, *args, **more)).refusal

    async def unavailable(self, request: Request, *args: Any, **more: Any) -> str:
        with pytest.raises(ApplicationError) as raised:
            await self.check(request, *args, **more)
        assert raised.value.type == "CheckUnavailable"
        assert not raised.value.non_retryable
        return raised.value.message

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token, with changes; `None` leaves a claim out."""
        whole = {
            "iss": "corp", "aud": "mandate", "sub": "ann@example.com", "iat": NOW - 10, "exp": NOW + 290,
            "request_digest": DIGEST, "choice": "approve", **changes,
        }  # fmt: skip
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, **changes: Any) -> str:
        return self.issuer.sign(self.claims(**changes))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


async def make_world(tmp_path: Path, *, people: str | None = PEOPLE, keys: bool = True) -> World:
    blobs = Blobs(SqliteStore(tmp_path / "store.db"))
    pinned = PinnedAgent(
        name="refunds", instructions="i", models=("scripted:x",), tools=(REFUND, CHARGE), policy=(), attempts=3,
        budget=Budget(), output_schema=None, max_output_tokens=10,
    )  # fmt: skip
    (agent,) = await blobs.put(canonical_json(pinned.model_dump(mode="json")))
    path = tmp_path / "people.yaml"
    if people is not None:
        path.write_text(people, encoding="utf-8")
    issuer = Issuer()
    key_file = issuer.write(tmp_path / "keys.json")
    transcript = TranscriptLog(blobs)
    activities = PeopleActivities(
        Directory(path, needed=people is not None),
        Signatures(key_file, issuer="corp") if keys else None,
        PinnedAgents(blobs),
        transcript,
    )
    return World(path, key_file, activities, transcript, agent, issuer)


class TestWho:
    @pytest.mark.parametrize(
        ("needs", "by", "counts"),
        [
            (({"groups": ("finance",)},), "ann@example.com", (0,)),
            (({"groups": ("FINANCE",)},), "ann@example.com", (0,)),
            (({"users": ("bob@example.com",)},), "bob@example.com", (0,)),
            (({"users": ("SLACK:u012ab",)},), "ann@example.com", (0,)),
            (({"users": ("bob@example.com",), "groups": ("finance",)},), "ann@example.com", (0,)),
            (({},), "bob@example.com", (0,)),
            # one decision counts for every need that the person is entitled to, and for no other
            (({"groups": ("finance",)}, {"groups": ("legal",)}, {"groups": ("leads",)}), "ann@example.com", (0, 2)),
            (({"groups": ("finance",)}, {}), "bob@example.com", (1,)),
            # a need that is met wants nobody any more
            (({"groups": ("finance",), "approved_by": ("cleo",)}, {"groups": ("leads",)}), "ann@example.com", (1,)),
        ],
    )
    async def test_needs_that_an_approval_counts_for(
        self, world: World, needs: Any, by: str, counts: tuple[int, ...]
    ) -> None:
        assert await world.check(world.request(*needs), by=by) == Checked(needs=counts, person=by)

    @pytest.mark.parametrize("by", ["ANN@example.com", "Slack:u012ab", "ann@EXAMPLE.com"])
    async def test_a_person_is_known_under_each_spelling_and_address(self, world: World, by: str) -> None:
        assert (await world.check(world.request(), by=by)).person == "ann@example.com"

    async def test_letters_that_unicode_writes_in_two_ways_are_one_name(self, world: World) -> None:
        assert (await world.check(world.request({}), by="ZOE\u0308@example.com")).person == "zo\u00eb@example.com"

    @pytest.mark.parametrize("choice", ["approve", "reject"])
    @pytest.mark.parametrize(
        ("needs", "by", "says"),
        [
            (
                ({"groups": ("finance",)},),
                "bob@example.com",
                "by: 'bob@example.com' may not decide on r1: group finance",
            ),
            (
                ({"groups": ("finance",), "users": ("cleo",)}, {"groups": ("leads", "finance")}),
                "bob@example.com",
                "by: 'bob@example.com' may not decide on r1: group finance, cleo, group leads",
            ),
            (
                ({"groups": ("finance",)},),
                "eve@example.com",
                "by: 'eve@example.com' is not in the file of people; who may decide on r1: group finance",
            ),
            (
                ({},),
                "eve@example.com",
                "by: 'eve@example.com' is not in the file of people; who may decide on r1: everybody in it",
            ),
            # named by a rule, and not in the file any more
            (
                ({"users": ("eve@example.com",)},),
                "eve@example.com",
                "by: 'eve@example.com' is not in the file of people; who may decide on r1: eve@example.com",
            ),
            (
                ({"users": tuple(f"u{number}" for number in range(12))},),
                "bob@example.com",
                "by: 'bob@example.com' may not decide on r1: u0, u1, u2, u3, u4, u5, u6, u7, u8, u9 and 2 more",
            ),
        ],
    )
    async def test_nobody_else_may_decide(self, world: World, needs: Any, by: str, says: str, choice: str) -> None:
        assert await world.refusal(world.request(*needs), choice, by) == says

    @pytest.mark.parametrize(
        ("requester", "by", "says"),
        [
            ("ann@example.com", "ann@example.com", "by: 'ann@example.com' asked for this run and cannot decide for it"),
            ("ANN@example.com", "ann@example.com", "by: 'ann@example.com' asked for this run and cannot decide for it"),
            (
                "slack:U012AB",
                "ann@example.com",
                "by: 'ann@example.com' is 'slack:U012AB', who asked for this run and cannot decide for it",
            ),
            (
                "ann@example.com",
                "SLACK:U012AB",
                "by: 'SLACK:U012AB' is 'ann@example.com', who asked for this run and cannot decide for it",
            ),
        ],
    )
    async def test_the_requester_never_counts(self, world: World, requester: str, by: str, says: str) -> None:
        assert await world.refusal(world.request(), by=by, requester=requester) == says

    @pytest.mark.parametrize("by", ["refunds", "Agent:refunds", "agent:other", "run-1/c1/c2", "run-1/c1", "RUN-1"])
    async def test_agents_and_their_runs_never_count(self, tmp_path: Path, by: str) -> None:
        world = await make_world(tmp_path, people=None)

        refusal = await world.refusal(world.request({}), by=by, workflow_id="run-1/c1/c2")

        assert refusal == f"by: {by!r} is an agent or its run; only people decide"

    async def test_an_agent_that_is_in_the_file_never_counts(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people="people: [{name: refunds}]")

        refusal = await world.refusal(world.request({}), by="refunds")

        assert refusal == "by: 'refunds' is an agent or its run; only people decide"

    async def test_who_has_nothing_left_to_approve_is_told_so_and_may_still_reject(self, world: World) -> None:
        request = world.request({"groups": ("finance",), "approved_by": ("cleo",)}, {"groups": ("legal",)})

        approval = await world.refusal(request)
        rejection = await world.check(request, "reject")

        assert approval == "by: all that 'ann@example.com' may approve of r1 is approved; it waits for others"
        assert rejection.needs == (0,)


class TestDirectory:
    async def test_a_person_who_was_removed_does_not_count_any_more(self, world: World) -> None:
        before = await world.check(world.request())

        world.people.write_text("people: [{name: bob@example.com, groups: [finance]}]")
        after = await world.refusal(world.request())

        assert before.needs == (0,)
        assert after == "by: 'ann@example.com' is not in the file of people; who may decide on r1: group finance"

    @pytest.mark.parametrize(
        "later",
        [
            pytest.param("{name: ann.b@example.com, groups: [finance]}", id="another name"),
            pytest.param(
                '{name: ann.b@example.com, addresses: ["slack:U012AB"], groups: [finance]}', id="an alias left"
            ),
            pytest.param("{name: carla@example.com, groups: [finance]}", id="gone"),
        ],
    )
    @pytest.mark.parametrize("requester_is", ["known", "named"])
    @pytest.mark.parametrize(
        ("kind", "choice", "more"),
        [
            ("approval", "approve", {}),
            ("question", "answer", {"value": "yes"}),
            ("escalation", "retry", {}),
            ("escalation", "accept", {}),
            ("escalation", "supply", {"value": "7"}),
            ("outcome", "happened", {}),
            ("outcome", "not_happened", {}),
        ],
    )
    async def test_who_asked_and_is_not_known_any_more_might_be_anybody(
        self, world: World, later: str, requester_is: str, kind: str, choice: str, more: dict[str, Any]
    ) -> None:
        by = later.split(",", maxsplit=1)[0].removeprefix("{name: ")
        world.people.write_text(f"people: [{later}, {{name: bob@example.com, groups: [finance]}}]")
        asked = world.request(kind=kind)
        safe = CHOICES[kind][-1]

        for person in (by, "bob@example.com"):
            refusal = await world.refusal(asked, choice, by=person, requester=ANN, requester_is=requester_is, **more)
            assert refusal == (
                f"requester: {ANN!r} asked for this run and is not in the file of people, so only {safe!r} can be "
                "chosen; put the name there, as an address if the person has another name now"
            )
            refused = await world.check(asked, safe, by=person, requester=ANN, requester_is=requester_is)
            assert refused.needs == (0,)

    async def test_a_requester_with_another_name_is_found_by_the_one_before(self, world: World) -> None:
        world.people.write_text(
            "people: [{name: ann.b@example.com, addresses: [ann@example.com], groups: [finance]}, "
            "{name: bob@example.com, groups: [finance]}]"
        )

        own = await world.refusal(world.request(), by="ann.b@example.com", requester=ANN, requester_is="known")
        other = await world.check(world.request(), by="bob@example.com", requester=ANN, requester_is="known")

        assert own == f"by: 'ann.b@example.com' is {ANN!r}, who asked for this run and cannot decide for it"
        assert other.needs == (0,)

    async def test_two_entries_that_become_one_person_are_the_requester(self, world: World) -> None:
        two = "people: [{name: ann@example.com, groups: [finance]}, {name: ann@home.example, groups: [finance]}]"
        one = "people: [{name: ann@example.com, addresses: [ann@home.example], groups: [finance]}]"

        world.people.write_text(two)
        apart = await world.check(world.request(), by="ann@home.example", requester=ANN, requester_is="known")
        world.people.write_text(one)
        joined = await world.refusal(world.request(), by="ann@home.example", requester=ANN, requester_is="known")

        assert apart.needs == (0,), "nobody can know that these are one person"
        assert joined == f"by: 'ann@home.example' is {ANN!r}, who asked for this run and cannot decide for it"

    async def test_a_worker_that_has_no_file_leaves_it_to_those_that_have(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people=None)

        says = await world.unavailable(world.request({}), by="slack:U012AB", requester=ANN, requester_is="known")
        named = await world.check(world.request({}), by="bob", requester=ANN, requester_is="named")

        assert says == "this worker has no file of people (MANDATE_PEOPLE), which had the requester when the run began"
        assert named.needs == (0,)

    async def test_where_anyone_may_ask_the_named_requester_still_never_counts(self, world: World) -> None:
        own = await world.refusal(world.request({}), by="slack:U012AB", requester=ANN, requester_is="anyone")
        unknown = await world.check(world.request({}), requester="somebody", requester_is="anyone")
        nobody = await world.check(world.request({}), requester_is="anyone")

        assert own == f"by: 'slack:U012AB' is {ANN!r}, who asked for this run and cannot decide for it"
        assert (unknown.needs, nobody.needs) == ((0,), (0,))

    async def test_groups_are_those_of_the_moment(self, world: World) -> None:
        before = await world.refusal(world.request(), by="bob@example.com")

        world.people.write_text("people: [{name: ann@example.com}, {name: bob@example.com, groups: [finance]}]")
        moved_out = await world.refusal(world.request())
        moved_in = await world.check(world.request(), by="bob@example.com")

        assert before == "by: 'bob@example.com' may not decide on r1: group finance"
        assert moved_out == "by: 'ann@example.com' may not decide on r1: group finance"
        assert moved_in.needs == (0,)

    async def test_a_file_that_breaks_between_uses_nothing_up(self, world: World) -> None:
        await world.check(world.request())

        world.people.write_text("people:\n  - {name: ann@example.com, groups: finance}")
        broken = await world.unavailable(world.request())
        world.people.unlink()
        gone = await world.unavailable(world.request())
        world.people.write_text(PEOPLE, encoding="utf-8")
        mended = await world.check(world.request())

        assert broken == f"the file of people has a fault in line 2; `mandate validate {world.people}` tells more"
        assert gone == f"the file of people is gone; put {world.people} back"
        assert mended.needs == (0,)

    async def test_without_a_file_anybody_decides_what_names_nobody(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people=None)

        checked = await world.check(world.request({}, {"users": ("Eve",)}, {"users": ("ann",)}), by="eve")

        assert checked == Checked(needs=(0, 1))

    async def test_without_a_file_the_requester_does_not_count_either(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people=None)

        refusal = await world.refusal(world.request({}), by="eve", requester="Eve")

        assert refusal == "by: 'eve' asked for this run and cannot decide for it"

    async def test_without_a_file_groups_cannot_be_resolved(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people=None)

        says = await world.unavailable(world.request({}, {"groups": ("finance",)}))

        assert says == "this worker has no file of people (MANDATE_PEOPLE) that says who is in group finance"

    async def test_without_a_file_a_named_user_is_who_they_say(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, people=None)

        refusal = await world.refusal(world.request({"users": ("ann",)}), by="eve")

        assert refusal == "by: 'eve' may not decide on r1: ann"

    async def test_a_store_that_has_lost_the_agent_uses_nothing_up(self, world: World) -> None:
        world.agent = "A" * 43

        assert (await world.unavailable(world.request())).startswith(f"blob {'A' * 43} is not in store ")


SIGNED = {"groups": ("finance",), "signature": True}


class TestSignature:
    async def test_a_good_token_counts(self, world: World) -> None:
        checked = await world.check(world.request(SIGNED), token=world.token())

        assert checked.evidence is not None
        assert checked == Checked(needs=(0,), person="ann@example.com", signed=True, evidence=checked.evidence)

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": ["other", "mandate"]},
            {"nbf": NOW + 60},
            {"iat": NOW + 60, "exp": NOW + 90},
            {"exp": NOW - 59},
            {"iat": NOW - 3300, "exp": NOW + 300},
            {"iat": NOW - 10.5, "exp": NOW + 20.5},
            {"sub": "ANN@example.com"},
            {"jti": "1", "name": "Ann", "value_digest": None},
        ],
    )
    async def test_what_a_good_token_may_say(self, world: World, changes: dict[str, Any]) -> None:
        assert (await world.check(world.request(SIGNED), token=world.token(**changes))).signed

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"aud": "other"}, "is not for the audience 'mandate'"),
            ({"aud": []}, "has no claim 'aud'"),
            ({"aud": {"mandate": 1}}, "is not for the audience 'mandate'"),
            ({"aud": None}, "has no claim 'aud'"),
            ({"iss": "corp.evil"}, "is not from the issuer 'corp'"),
            ({"iss": None}, "has no claim 'iss'"),
            ({"exp": None}, "has no claim 'exp'"),
            ({"iat": None}, "has no claim 'iat'"),
            ({"sub": None}, "has no claim 'sub'"),
            ({"choice": None}, "has no claim 'choice'"),
            ({"request_digest": None}, "has no claim 'request_digest'"),
            ({"exp": NOW - 60}, "was expired when the decision came; get another one"),
            ({"iat": NOW - 7200, "exp": NOW - 3700}, "was expired when the decision came; get another one"),
            ({"nbf": NOW + 61}, "was not valid yet when the decision came"),
            ({"iat": NOW + 61}, "was not valid yet when the decision came"),
            ({"iat": NOW - 10, "exp": NOW + 3591}, "is valid for more than 1 hour; a shorter one is wanted"),
            ({"exp": "2030"}, "its claim 'exp' is not a time"),
            ({"exp": True}, "its claim 'exp' is not a time"),
            ({"exp": float("inf")}, "its claim 'exp' is not a time"),
            ({"exp": float("nan")}, "its claim 'exp' is not a time"),
            ({"exp": 10**400}, "its claim 'exp' is not a time"),
            ({"iat": -1}, "its claim 'iat' is not a time"),
            ({"nbf": [NOW]}, "its claim 'nbf' is not a time"),
            ({"sub": "bob@example.com"}, "is not of 'ann@example.com': its claim 'sub' names somebody else"),
            ({"sub": "slack:U012AB"}, "is not of 'ann@example.com': its claim 'sub' names somebody else"),
            ({"sub": 7}, "is not a JWT signed with ES256"),
            (
                {"request_digest": "S" * 43},
                "is for another request: its claim 'request_digest' is not this request's",
            ),
            ({"request_digest": [DIGEST]}, "is for another request: its claim 'request_digest' is not this request's"),
            ({"choice": "reject"}, "is for another choice: its claim 'choice' is not 'approve'"),
            ({"choice": ["approve"]}, "is for another choice: its claim 'choice' is not 'approve'"),
            (
                {"value_digest": "V" * 43},
                "is for a decision with a value: its claim 'value_digest' has nothing to go with",
            ),
        ],
    )
    async def test_what_a_token_must_say(self, world: World, changes: dict[str, Any], says: str) -> None:
        assert await world.refusal(world.request(SIGNED), token=world.token(**changes)) == f"token: {says}"

    async def test_a_missing_token_is_refused(self, world: World) -> None:
        assert await world.refusal(world.request(SIGNED)) == "token: is missing; r1 wants signed decisions"

    async def test_a_rejection_wants_one_too(self, world: World) -> None:
        approval = world.token()

        missing = await world.refusal(world.request(SIGNED), "reject")
        turned = await world.refusal(world.request(SIGNED), "reject", token=approval)
        signed = await world.check(world.request(SIGNED), "reject", token=world.token(choice="reject"))

        assert missing == "token: is missing; r1 wants signed decisions"
        assert turned == "token: is for another choice: its claim 'choice' is not 'reject'"
        assert signed.signed

    async def test_a_token_for_a_rejection_cannot_approve(self, world: World) -> None:
        refusal = await world.refusal(world.request(SIGNED), token=world.token(choice="reject"))

        assert refusal == "token: is for another choice: its claim 'choice' is not 'approve'"

    async def test_one_signed_need_among_those_of_a_person_wants_a_token(self, world: World) -> None:
        request = world.request({"groups": ("leads",)}, SIGNED)

        assert await world.refusal(request) == "token: is missing; r1 wants signed decisions"

    async def test_a_token_that_nobody_wants_is_not_looked_at(self, world: World) -> None:
        checked = await world.check(world.request(), token="anything")

        assert checked == Checked(needs=(0,), person="ann@example.com")

    async def test_a_token_of_somebody_else_does_not_make_one_entitled(self, world: World) -> None:
        refusal = await world.refusal(world.request(SIGNED), by="bob@example.com", token=world.token())

        assert refusal == "by: 'bob@example.com' may not decide on r1: group finance"


NO_JWT = "token: is not a JWT signed with ES256"


def encoded(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class TestForgery:
    async def test_no_algorithm(self, world: World) -> None:
        for name in ("none", "None", "NONE", ""):
            token = f"{encoded({'alg': name, 'kid': 'k1'})}.{encoded(world.claims())}."
            assert await world.refusal(world.request(SIGNED), token=token) == NO_JWT

    async def test_the_public_key_as_a_shared_secret(self, world: World) -> None:
        pem = world.issuer.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signed = f"{encoded({'alg': 'HS256', 'kid': 'k1'})}.{encoded(world.claims())}"
        mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
        token = f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"

        assert await world.refusal(world.request(SIGNED), token=token) == NO_JWT

    async def test_another_curve(self, world: World) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        token = jwt.encode(world.claims(), key, algorithm="ES384", headers={"kid": "k1"})

        assert await world.refusal(world.request(SIGNED), token=token) == NO_JWT

    async def test_another_key_of_the_same_name(self, world: World) -> None:
        token = Issuer().sign(world.claims())

        refusal = await world.refusal(world.request(SIGNED), token=token)

        assert refusal == "token: its signature is not that of the key it names"

    async def test_a_key_that_the_token_brings_along(self, world: World) -> None:
        thief = Issuer()
        for header in ({"jwk": thief.jwk()}, {"jku": "https://evil.example/keys"}, {"x5u": "file:///tmp/keys"}):
            token = thief.sign(world.claims(), **header)
            refusal = await world.refusal(world.request(SIGNED), token=token)
            assert refusal == "token: its signature is not that of the key it names"

    async def test_claims_that_were_changed_after_signing(self, world: World) -> None:
        header, _, signature = world.token(sub="bob@example.com").split(".")
        token = f"{header}.{encoded(world.claims())}.{signature}"

        refusal = await world.refusal(world.request(SIGNED), token=token)

        assert refusal == "token: its signature is not that of the key it names"

    @pytest.mark.parametrize("kid", ["../../../dev/null", "/etc/passwd", "k1\u0000", "K1", "k1' OR '1'='1", "x" * 2000])
    async def test_a_key_id_is_looked_up_in_the_key_set_and_nowhere_else(self, world: World, kid: str) -> None:
        token = world.issuer.sign(world.claims(), kid=kid)

        says = await world.unavailable(world.request(SIGNED), token=token)

        assert says == "the key set does not have the key that the token names"

    @pytest.mark.parametrize("kid", [None, "", 1, ["k1"], {"k1": 1}])
    async def test_a_key_must_be_named(self, world: World, kid: Any) -> None:
        _, claims, signature = world.token().split(".")
        token = f"{encoded({'alg': 'ES256', 'kid': kid})}.{claims}.{signature}"

        assert await world.refusal(world.request(SIGNED), token=token) in {
            "token: names no key: its header has no 'kid'",
            NO_JWT,
        }

    @pytest.mark.parametrize(
        "token",
        ["", "x", "a.b", "a.b.c", "a.b.c.d", "." * 8000, "x" * 8192, "\u00e9.\u00e9.\u00e9", "ey" * 4000 + ".e30.AA",
         f"{encoded(['ES256'])}.{encoded({})}.AA",
         f"{encoded({'alg': 'ES256', 'kid': 'k1'})}.{encoded([])}.AA",
         f"{encoded({'alg': 'ES256', 'kid': 'k1', 'crit': ['exp'], 'exp': 1})}.{encoded({})}.AA",
         f"{encoded({'alg': 'ES256', 'kid': 'k1', 'b64': False, 'crit': ['b64']})}..AA",
         urlsafe_b64encode(b"[" * 5000).decode() + ".e30.AA"],
        ids=str.__len__,
    )  # fmt: skip
    async def test_what_is_no_token_is_refused(self, world: World, token: str) -> None:
        refusal = await world.refusal(world.request(SIGNED), token=token)

        assert refusal in {NO_JWT, "token: its signature is not that of the key it names"}

    async def test_a_huge_token_is_no_decision(self) -> None:
        with pytest.raises(ValueError, match="at most 8192 characters"):
            Decision(request="r1", digest=DIGEST, choice="approve", by="ann", token="x" * 8193)

    async def test_a_signed_text_that_is_no_object_is_refused(self, world: World) -> None:
        token = jwt.api_jws.encode(b"[1]", world.issuer.key, algorithm="ES256", headers={"kid": "k1"})

        assert await world.refusal(world.request(SIGNED), token=token) == NO_JWT

    async def test_a_token_is_in_no_error_and_in_no_log(self, world: World) -> None:
        good, unknown = world.token(), world.issuer.sign(world.claims(), kid="other-kid")
        with capture_logs() as logs:
            told = [
                str(await world.check(world.request(SIGNED), token=good)),
                str(await world.refusal(world.request(SIGNED), token=world.token(exp=1))),
                await world.unavailable(world.request(SIGNED), token=unknown),
            ]

        whole = f"{told} {logs}"
        assert not any(part in whole for token in (good, unknown) for part in token.split("."))
        assert "other-kid" not in whole


class TestKeys:
    async def test_keys_are_read_anew(self, world: World) -> None:
        other = Issuer("k2")
        token = other.sign(world.claims())
        unknown = await world.unavailable(world.request(SIGNED), token=token)

        world.issuer.write(world.keys, other.jwk())
        known = await world.check(world.request(SIGNED), token=token)
        other.write(world.keys)
        revoked = await world.unavailable(world.request(SIGNED), token=world.token())

        assert unknown == "the key set does not have the key that the token names"
        assert known.signed
        assert revoked == "the key set does not have the key that the token names"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "the key set cannot be read: No such file or directory"),
            (b"{", "the key set is not JSON: line 1, column 2: Expecting property name enclosed in double quotes"),
            (
                b"[" * 100_000,
                "the key set is not JSON: it is nested too deep, or holds a number that is too long",
            ),
            (
                b"\xff",
                (
                    "the key set cannot be read: line 1, column 1: is not UTF-8 text: byte 0xff cannot be read; "
                    "save the file as UTF-8"
                ),
            ),
            (b"\xef\xbb\xbf[]", "the key set has no list 'keys'"),
            (b"[]", "the key set has no list 'keys'"),
        ],
    )
    async def test_a_key_set_that_cannot_be_read_uses_nothing_up(
        self, world: World, content: bytes | None, says: str
    ) -> None:
        world.keys.unlink()
        if content is not None:
            world.keys.write_bytes(content)

        assert await world.unavailable(world.request(SIGNED), token=world.token()) == says

    async def test_two_keys_of_one_name_are_no_key_set(self, world: World) -> None:
        world.issuer.write(world.keys, Issuer().jwk())

        says = await world.unavailable(world.request(SIGNED), token=world.token())

        assert says == "the key set has two keys with the 'kid' of keys[1]"

    async def test_keys_for_other_things_are_left_out(self, world: World) -> None:
        jwk = world.issuer.jwk()
        others = [{**jwk, "use": "enc"}, {**jwk, "alg": "ES512"}, {"kty": "oct", "kid": "k1", "k": "AAAA"}, "x"]
        world.keys.write_text(json.dumps({"keys": [*others, jwk]}))

        assert (await world.check(world.request(SIGNED), token=world.token())).signed

    async def test_a_worker_without_keys_says_which_setting_it_lacks(self, tmp_path: Path) -> None:
        world = await make_world(tmp_path, keys=False)

        says = await world.unavailable(world.request(SIGNED), token=world.token())

        assert says == ("this worker cannot check signed decisions: MANDATE_JWKS and MANDATE_TOKEN_ISSUER are not set")


class TestEdits:
    @pytest.fixture
    async def asked(self, world: World) -> World:
        await world.says(json.dumps(CALL))
        return world

    async def whole(self, world: World, checked: Checked) -> JsonObject:
        assert checked.edited is not None
        found: JsonObject = json.loads(await world.transcript.blobs.get(checked.edited.blob))
        return found

    async def test_what_runs_instead_is_stored_whole_and_shown_in_short(self, asked: World) -> None:
        value = {"note": LONG, "amount": 80, "card": "9999"}

        checked = await asked.check(asked.request(), by="slack:U012AB", value=value)

        assert checked.edited is not None
        assert checked.edited.by == "ann@example.com"
        assert checked.edited.digest == arguments.call_digest("refund", value)
        assert checked.edited.blob == digest_of(canonical_json(value))
        assert await asked.transcript.blobs.get(checked.edited.blob) == canonical_json(value)
        assert checked.edited.arguments["note"] == {
            "digest": digest_of(LONG.encode()),
            "size": 5000,
            "preview": "x" * 40,
        }

    async def test_what_was_not_shown_is_given_back_as_it_was_shown(self, asked: World) -> None:
        value = {**arguments.shorten_texts(CALL), "card": "***", "amount": 80.0}

        checked = await asked.check(asked.request(), value=value)

        assert await self.whole(asked, checked) == {**CALL, "amount": 80.0}

    async def test_a_reference_that_only_a_crowded_turn_shows_is_known_too(self, asked: World) -> None:
        note = "y" * 900
        await asked.says(json.dumps({"amount": 1, "note": note, "lines": ["a", LONG]}))
        value = arguments.shorten_texts({"amount": 1, "note": note, "lines": ["a", LONG]}, 100)

        checked = await asked.check(asked.request(), value={**value, "amount": 2})

        assert await self.whole(asked, checked) == {"amount": 2, "note": note, "lines": ["a", LONG]}

    async def test_a_reference_to_anything_else_is_a_value_like_any_other(self, asked: World) -> None:
        value = {"amount": 1, "note": {"digest": "D" * 43, "size": 1, "preview": ""}}

        refusal = await asked.refusal(asked.request(), value=value)

        assert refusal is not None
        assert refusal.startswith("value: note: ")

    @pytest.mark.parametrize(
        "value",
        [
            CALL,
            {**CALL, "amount": 120},
            {"note": LONG, "card": "***", "amount": 120.0},
            {**arguments.shorten_texts(CALL), "card": "***"},
        ],
        ids=["whole", "number", "hidden", "shown"],
    )
    async def test_the_same_arguments_are_no_edit(self, asked: World, value: JsonObject) -> None:
        checked = await asked.check(asked.request(), value=value)

        assert checked == Checked(needs=(0,), person="ann@example.com")

    async def test_what_was_edited_before_is_what_an_edit_is_held_against(self, asked: World) -> None:
        first = await asked.check(asked.request(), value={"amount": 80, "card": "9999"})
        edited = asked.request(edited=first.edited)

        same = await asked.check(edited, value={"amount": 80, "card": "***"})
        back = await asked.check(edited, value=CALL)

        assert same.edited is None
        assert await self.whole(asked, back) == CALL

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            ({"amount": 900}, "amount: 900 is greater than the maximum of 500"),
            ({}, '"amount" is a required property'),
            (
                {"amount": 1, "colour": "red"},
                "'colour' is no argument of this tool; there are: amount, card, lines, note",
            ),
            ({"amount": 1, "card": "1"}, "card: the value is shorter than 4 characters"),
            ([1], "the arguments must be a JSON object, not a list"),
            ("80", "the arguments must be a JSON object, not a text"),
            (False, "the arguments must be a JSON object, not a boolean"),
            (0, "the arguments must be a JSON object, not a number"),
            ({"amount": 2**70}, "amount: the integer is beyond 64 bits; write it as a text"),
        ],
    )
    async def test_arguments_that_do_not_fit_are_refused(self, asked: World, value: Any, says: str) -> None:
        assert await asked.refusal(asked.request(), value=value) == f"value: {says}"

    async def test_arguments_that_are_nested_without_end_are_refused(self, asked: World) -> None:
        deep: Any = 1
        for _ in range(100):
            deep = [deep]

        refusal = await asked.refusal(asked.request(tool="charge"), value={"a": deep})

        assert refusal == "value: the arguments are nested too deep; at most 64 levels are allowed"

    async def test_a_hidden_value_that_there_is_none_of_is_refused(self, asked: World) -> None:
        await asked.says('{"amount": 120}')

        refusal = await asked.refusal(asked.request(), value={"amount": 80, "card": "***"})

        assert refusal == "value: card: '***' stands for a value that the call does not have"

    async def test_sensitive_values_are_in_no_refusal(self, asked: World) -> None:
        refusal = await asked.refusal(asked.request(), value={"amount": "x", "card": "424"})

        assert refusal is not None
        assert "424" not in refusal

    async def test_a_remote_activity_is_given_its_arguments_whole(self, asked: World) -> None:
        await asked.says('{"text": "a"}', tool="charge")

        checked = await asked.check(asked.request(tool="charge"), value={"text": LONG})

        assert checked.edited is not None
        assert checked.edited.arguments == {"text": LONG}

    async def test_a_tool_that_the_agent_does_not_have_cannot_be_edited(self, asked: World) -> None:
        refusal = await asked.refusal(asked.request(tool="gone"), value={})

        assert refusal == "value: the agent has no tool 'gone' whose arguments could be changed"

    async def test_a_rejection_edits_nothing(self, asked: World) -> None:
        assert (await asked.check(asked.request(), "reject", value={"amount": 1})).edited is None

    async def test_who_may_not_decide_is_told_nothing_of_the_arguments(self, asked: World) -> None:
        refusal = await asked.refusal(asked.request(), by="bob@example.com", value={"amount": "x"})

        assert refusal == "by: 'bob@example.com' may not decide on r1: group finance"

    async def test_an_edit_counts_for_needs_that_are_met_since_it_undoes_them(self, asked: World) -> None:
        request = asked.request({"groups": ("finance",), "approved_by": ("cleo",)}, {"groups": ("legal",)})

        assert (await asked.check(request, value={"amount": 80})).needs == (0,)

    async def test_a_token_is_for_its_value(self, asked: World) -> None:
        value = {"amount": 80}
        digest = digest_of(canonical_json(value))
        request = asked.request(SIGNED)

        signed = await asked.check(request, value=value, token=asked.token(value_digest=digest))
        plain = await asked.refusal(request, value=value, token=asked.token())
        other = await asked.refusal(request, value={"amount": 81}, token=asked.token(value_digest=digest))
        stripped = await asked.refusal(request, token=asked.token(value_digest=digest))

        assert signed.signed
        assert signed.edited is not None
        assert plain == "token: is for a decision without a value: it has no claim 'value_digest'"
        assert other == "token: is for another decision: its claim 'value_digest' is not that of this one"
        assert stripped == "token: is for a decision with a value: its claim 'value_digest' has nothing to go with"


class TestAnswers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [("in cash", "in cash"), (7, "7"), (False, "false"), ({"a": ["\u00e9"]}, '{"a": ["\u00e9"]}')],
    )
    async def test_an_answer_is_the_result_of_the_call(self, world: World, value: Any, text: str) -> None:
        request = world.request({}, kind="question", question="How?")

        checked = await world.check(request, "answer", by="slack:U012AB", value=value)

        assert checked.answer is not None
        assert (checked.answer.text, checked.answer.note) == (text, "answered by ann@example.com")
        assert not checked.answer.error

    @pytest.mark.parametrize(
        ("value", "text"),
        [("in cash", "in cash"), (" In Cash\n", "in cash"), ("7", "7"), (7, "7"), ("US", "US"), ("us", "us")],
    )
    async def test_an_answer_is_one_of_the_options(self, world: World, value: Any, text: str) -> None:
        request = world.request({}, kind="question", question="How?", options=("in cash", "7", "US", "us"))

        checked = await world.check(request, "answer", value=value)

        assert checked.answer is not None
        assert checked.answer.text == text

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("by card", "by card"),
            ("in", "in"),
            ("uS", "uS"),
            (8, "8"),
            ("x" * 100, "x" * 79 + "…"),
            (["in cash"], '["in cash"]'),
        ],
    )
    async def test_an_answer_beside_the_options_is_refused(self, world: World, value: Any, shown: str) -> None:
        request = world.request({}, kind="question", question="How?", options=("in cash", "7", "US", "us"))

        refusal = await world.refusal(request, "answer", value=value)

        assert refusal == f"value: {shown!r} is none of the answers to choose from: in cash, 7, US, us"

    async def test_a_long_answer_is_stored(self, world: World) -> None:
        checked = await world.check(world.request({}, kind="question"), "answer", value=LONG)

        assert checked.answer is not None
        assert checked.answer.digest is not None
        assert await world.transcript.blobs.get(checked.answer.digest) == LONG.encode()

    @pytest.mark.parametrize("value", [None, "", "  \n"])
    async def test_an_answer_says_something(self, world: World, value: Any) -> None:
        refusal = await world.refusal(world.request({}, kind="question"), "answer", value=value)

        assert refusal == "value: is empty; with 'answer' it is the answer, as a text"

    async def test_a_rejection_needs_no_answer(self, world: World) -> None:
        checked = await world.check(world.request({}, kind="question"), "reject")

        assert checked == Checked(needs=(0,), person="ann@example.com")

    async def test_a_signed_answer_is_signed_for_its_words(self, world: World) -> None:
        request = world.request({"signature": True}, kind="question")
        token = world.token(choice="answer", value_digest=digest_of(canonical_json("yes")))

        yes = await world.check(request, "answer", value="yes", token=token)
        no = await world.refusal(request, "answer", value="no", token=token)

        assert yes.signed
        assert no == "token: is for another decision: its claim 'value_digest' is not that of this one"


class TestExampleSigner:
    """`mandate.workers.examples.sign_decision`, as `mandate approve --token-command` runs it."""

    def environment(self, **more: str) -> dict[str, str]:
        return {"MANDATE_REQUEST_DIGEST": DIGEST, "MANDATE_CHOICE": "approve", "MANDATE_BY": ANN, **more}

    def signer(self, tmp_path: Path, *more: str) -> list[str]:
        return ["--key", str(tmp_path / "issuer.pem"), "--jwks", str(tmp_path / "keys.json"), *more]

    async def test_what_it_signs_counts(self, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        value = {"amount": 80}
        await world.says(json.dumps(CALL))
        made = sign_decision.main(self.signer(tmp_path, "--make-key"), {})
        signing = self.signer(tmp_path, "--issuer", "corp")
        sign_decision.main(signing, self.environment())
        plain = capsys.readouterr().out.strip()
        sign_decision.main(signing, self.environment(MANDATE_VALUE_DIGEST=digest_of(canonical_json(value))))
        for_value = capsys.readouterr().out.strip()

        assert made == 0
        at = datetime.now(UTC)
        assert (await world.check(world.request(SIGNED), token=plain, at=at)).signed
        assert (await world.check(world.request(SIGNED), token=for_value, value=value, at=at)).signed
        assert (tmp_path / "issuer.pem").stat().st_mode & 0o077 == 0

    def test_a_key_is_never_replaced(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "issuer.pem").write_text("mine")

        code = sign_decision.main(self.signer(tmp_path, "--make-key"), {})

        assert code == 2
        assert (tmp_path / "issuer.pem").read_text() == "mine"
        assert "exists" in capsys.readouterr().err

    def test_what_is_missing_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code = sign_decision.main(self.signer(tmp_path), {"MANDATE_BY": ANN})

        assert code == 2
        assert capsys.readouterr().err == "missing: --issuer, --digest, --choice\n"
