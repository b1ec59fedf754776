"""Who may ask for a run: the file of people, names, tokens; and what becomes of it when the file changes."""

import dataclasses
import hashlib
import hmac
import sqlite3
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.agent import KEY_ATTEMPTS, AgentActivities, OfferedAgent
from mandate.activities.people.directory import Directory
from mandate.activities.people.requesters import Requesters
from mandate.activities.people.signatures import Signatures
from mandate.activities.stores.sqlite import SqliteStore
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.examples import sign_decision
from mandate.workflows.contracts.agent import Pinned, PinnedAgent, PinRequest
from mandate.workflows.contracts.base import canonical_json, digest_of
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.policy import Asking, Match, Rule
from mandate.workflows.contracts.start import start_claims
from tests.support.signing import Issuer
from tests.unit.activities.test_decision import encoded

AT = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
NOW = int(AT.timestamp())
ANN = "ann@example.com"
PEOPLE = """\
people:
  - {name: Ann@example.com, addresses: ["slack:U012AB"], groups: [finance]}
  - {name: bob@example.com}
  - {name: zo\u00eb@example.com}
"""
OPENS = "(`requester: anyone` in the agent file lets anybody ask)"
ASKED = "Refund order 81"
RULE = Rule(id="r", match=Match(), verdict="ask", signature="required")


@dataclass
class World:
    """A worker with people, keys and a store, which begins runs of agents that a test describes."""

    people: Path
    keys: Path
    blobs: Blobs
    issuer: Issuer
    has_keys: bool = True
    needed: bool = True
    at: datetime = AT

    async def pin(
        self, agent: Mapping[str, Any] | None = None, *, workflow_id: str = "run-1", attempt: int = 1, **start: Any
    ) -> Pinned:
        keys = {"name": "refunds", "policy": (), **(agent or {})}
        whole = PinnedAgent(
            instructions="i", models=("scripted:x",), tools=(), attempts=3, budget=Budget(), output_schema=None,
            max_output_tokens=10, **keys,
        )  # fmt: skip
        content = canonical_json(whole.model_dump(mode="json"))
        offered = OfferedAgent(digest_of(content), content, whole)
        signatures = Signatures(self.keys, issuer="corp") if self.has_keys else None
        requesters = Requesters(Directory(self.people, needed=self.needed), signatures, self.blobs)
        activities = AgentActivities({whole.name: offered}, TranscriptLog(self.blobs), requesters, ())
        request = PinRequest(**{"agent": whole.name, "input": ASKED, "run_id": "first-1", **start})
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(
            environment.info, workflow_id=workflow_id, scheduled_time=self.at, attempt=attempt
        )
        return await environment.run(activities.pin_agent, request)

    async def refusal(self, agent: Mapping[str, Any] | None = None, **start: Any) -> str:
        """Why the run may not begin; it is told at once, and not tried again."""
        with pytest.raises(ApplicationError) as raised:
            await self.pin(agent, **start)
        assert (raised.value.type, raised.value.non_retryable) == ("BadInput", True)
        return raised.value.message.removeprefix("start request: ")

    async def unavailable(self, agent: Mapping[str, Any] | None = None, **start: Any) -> ApplicationError:
        with pytest.raises(ApplicationError) as raised:
            await self.pin(agent, **start)
        assert raised.value.type == "CheckUnavailable"
        return raised.value

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token, with changes; `None` leaves a claim out."""
        start = start_claims("refunds", ASKED, workflow_id="run-1", requester=ANN)
        whole = {
            "iss": "corp", "aud": "mandate", "iat": NOW - 10, "exp": NOW + 290, **start.model_dump(), **changes,
        }  # fmt: skip
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, **changes: Any) -> str:
        return self.issuer.sign(self.claims(**changes))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def make_world(folder: Path, people: str | None = PEOPLE) -> World:
    path = folder / "people.yaml"
    if people is not None:
        path.write_text(people, encoding="utf-8")
    issuer = Issuer()
    blobs = Blobs(SqliteStore(folder / "store.db"))
    return World(path, issuer.write(folder / "keys.json"), blobs, issuer, needed=people is not None)


class TestKnown:
    @pytest.mark.parametrize("requester", ["ann@example.com", "ANN@EXAMPLE.COM", "slack:u012ab", "Ann@example.com"])
    @pytest.mark.parametrize("says", [None, "required", "anyone"])
    async def test_a_run_keeps_the_name_of_the_file(self, world: World, requester: str, says: str | None) -> None:
        pinned = await world.pin({"requester": says}, requester=requester)

        assert pinned.requester == "Ann@example.com"
        assert pinned.agent.requester == ("anyone" if says == "anyone" else "known")

    async def test_letters_that_unicode_writes_in_two_ways_are_one_name(self, world: World) -> None:
        assert (await world.pin(requester="ZOE\u0308@example.com")).requester == "zo\u00eb@example.com"

    @pytest.mark.parametrize(
        ("requester", "refusal"),
        [
            (None, f"requester: is missing; a run of 'refunds' wants a name or address of the file of people {OPENS}"),
            *(
                (name, f"requester: {name!r} is not in the file of people; it must be a name or address there {OPENS}")
                for name in ("eve@example.com", "Ann Example <ann@example.com>", "ann", "ann@example.com.", "finance")
            ),
        ],
    )
    async def test_nobody_else_may_ask_where_it_is_required(
        self, world: World, requester: str | None, refusal: str
    ) -> None:
        assert await world.refusal({"requester": "required"}, requester=requester) == refusal

    @pytest.mark.parametrize("requester", [None, "eve@example.com", "Ann Example <ann@example.com>"])
    async def test_where_nothing_is_said_a_run_begins_that_wants_its_requester_to_be_known(
        self, world: World, requester: str | None
    ) -> None:
        pinned = await world.pin(requester=requester)

        assert (pinned.requester, pinned.agent.requester) == (requester, "known")

    @pytest.mark.parametrize(
        ("requester", "refusal"),
        [
            (None, f"requester: is missing; a run of 'refunds' wants the name of who asks {OPENS}"),
            ("agent:refunds", "requester: 'agent:refunds' is an agent; a run is asked for by a person"),
        ],
    )
    async def test_without_a_file_a_name_is_wanted_where_the_agent_says_so(
        self, tmp_path: Path, requester: str | None, refusal: str
    ) -> None:
        world = make_world(tmp_path, people=None)

        named = await world.pin({"requester": "required"}, requester="Ann Example")

        assert (named.requester, named.agent.requester) == ("Ann Example", "named")
        assert await world.refusal({"requester": "required"}, requester=requester) == refusal

    async def test_without_a_file_nobody_needs_to_be_named_by_default(self, tmp_path: Path) -> None:
        pinned = await make_world(tmp_path, people=None).pin()

        assert (pinned.requester, pinned.agent.requester) == (None, "anyone")

    @pytest.mark.parametrize("requester", [None, "eve@example.com"])
    async def test_anyone_opens_it(self, world: World, requester: str | None) -> None:
        pinned = await world.pin({"requester": "anyone"}, requester=requester)

        assert (pinned.requester, pinned.agent.requester) == (requester, "anyone")

    @pytest.mark.parametrize("says", [None, "required", "anyone"])
    @pytest.mark.parametrize(
        ("requester", "why"),
        [
            ("", "'' must be 1 to 200 characters without spaces around it"),
            (" ann@example.com", "' ann@example.com' must be 1 to 200 characters without spaces around it"),
            ("x" * 201, f"'{'x' * 79}\u2026' must be 1 to 200 characters without spaces around it"),
            ("ann\u200b@example.com", "'ann\\u200b@example.com' holds characters that cannot be seen"),
            ("ann\u202e@example.com", "'ann\\u202e@example.com' holds characters that cannot be seen"),
            ("<your name>", "'<your name>' is where your own name goes"),
            ("Agent:refunds", "'Agent:refunds' is an agent; a run is asked for by a person"),
        ],
    )
    async def test_what_nobody_is_called_who_decides(
        self, world: World, requester: str, why: str, says: str | None
    ) -> None:
        assert await world.refusal({"requester": says}, requester=requester) == f"requester: {why}"

    async def test_a_name_that_no_search_attribute_takes_is_no_requester(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, f'people: [{{name: "{chr(0x1F600) * 190}", addresses: [smile]}}]')

        refusal = await world.refusal(requester="smile")

        assert refusal == "requester: the name of 'smile' in the file of people is too long to search"

    @given(spelling=st.text(min_size=1, max_size=30), opened=st.booleans())
    async def test_a_run_begins_only_with_a_name_of_the_file_unless_it_is_open(
        self, tmp_path_factory: pytest.TempPathFactory, spelling: str, opened: bool
    ) -> None:
        """Whatever is written: who asks is one of the file by its own name, or nothing is begun."""
        world = make_world(tmp_path_factory.mktemp("people"))
        try:
            says = "anyone" if opened else "required"
            kept = (await world.pin({"requester": says}, requester=spelling)).requester
        except ApplicationError as refused:
            kept = refused.type

        allowed = {"BadInput", "Ann@example.com", "bob@example.com", "zo\u00eb@example.com"}
        assert kept in ({*allowed, spelling} if opened else allowed)


class TestUnreadable:
    @pytest.mark.parametrize("says", [None, "required", "anyone"])
    async def test_a_file_that_breaks_is_no_open_door(self, world: World, says: str | None) -> None:
        world.people.write_text("people:\n  - {name: ann@example.com, groups: finance}")
        broken = await world.unavailable({"requester": says}, requester=ANN)
        world.people.unlink()
        gone = await world.unavailable({"requester": says}, requester=ANN)
        world.people.write_text(PEOPLE, encoding="utf-8")
        mended = await world.pin({"requester": says}, requester=ANN)

        assert not broken.non_retryable
        assert broken.message == (
            "start request: it cannot be checked now who asks "
            f"(the file of people has a fault in line 2; `mandate validate {world.people}` tells more)"
        )
        assert gone.message == (
            f"start request: it cannot be checked now who asks (the file of people is gone; put {world.people} back)"
        )
        assert mended.requester == "Ann@example.com"


SIGNED: dict[str, Any] = {"policy": (RULE,)}
BY_PEOPLE: dict[str, Any] = {"people": Asking(signature="required")}


class TestToken:
    @pytest.mark.parametrize("agent", [SIGNED, BY_PEOPLE, {**SIGNED, "requester": "required"}])
    async def test_a_signed_start_begins(self, world: World, agent: dict[str, Any]) -> None:
        pinned = await world.pin(agent, requester=ANN, token=world.token())

        assert (pinned.requester, pinned.agent.requester) == ("Ann@example.com", "known")

    @pytest.mark.parametrize("agent", [SIGNED, BY_PEOPLE])
    async def test_a_missing_token_is_refused(self, world: World, agent: dict[str, Any]) -> None:
        assert await world.refusal(agent, requester=ANN) == (
            "token: is missing; decisions on runs of 'refunds' are signed, and so is who asks for one "
            "(`mandate run --token-command`; `requester: anyone` in the agent file lifts it)"
        )

    async def test_a_token_is_not_looked_at_where_nothing_is_signed_or_anyone_may_ask(self, world: World) -> None:
        plain = await world.pin(requester=ANN, token="x")
        opened = await world.pin({**SIGNED, "requester": "anyone"}, token="x")

        assert (plain.agent.requester, opened.agent.requester) == ("known", "anyone")

    async def test_without_a_file_of_people_a_signature_still_needs_a_name(self, tmp_path: Path) -> None:
        world = make_world(tmp_path, people=None)

        missing = await world.refusal(SIGNED, token=world.token())
        signed = await world.pin(SIGNED, requester=ANN, token=world.token())

        assert missing == f"requester: is missing; a run of 'refunds' wants the name of who asks {OPENS}"
        assert signed.agent.requester == "named"

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": ["other", "mandate"]},
            {"nbf": NOW + 60},
            {"iat": NOW + 60, "exp": NOW + 90},
            {"exp": NOW - 59},
            {"iat": NOW - 3300, "exp": NOW + 300},
            {"sub": "ANN@example.com"},
            {"jti": "1", "name": "Ann", "labels_digest": None},
        ],
    )
    async def test_what_a_good_token_may_say(self, world: World, changes: dict[str, Any]) -> None:
        assert (await world.pin(SIGNED, requester=ANN, token=world.token(**changes))).requester == "Ann@example.com"

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"aud": "other"}, "is not for the audience 'mandate'"),
            ({"aud": None}, "has no claim 'aud'"),
            ({"iss": "corp.evil"}, "is not from the issuer 'corp'"),
            ({"iss": None}, "has no claim 'iss'"),
            ({"exp": None}, "has no claim 'exp'"),
            ({"iat": None}, "has no claim 'iat'"),
            ({"sub": None}, "has no claim 'sub'"),
            ({"agent": None}, "has no claim 'agent'"),
            ({"workflow_id": None}, "has no claim 'workflow_id'"),
            ({"input_digest": None}, "has no claim 'input_digest'"),
            ({"exp": NOW - 60}, "was expired when the run began; get another one"),
            ({"iat": NOW - 7200, "exp": NOW - 3700}, "was expired when the run began; get another one"),
            ({"nbf": NOW + 61}, "was not valid yet when the run began"),
            ({"iat": NOW + 61}, "was not valid yet when the run began"),
            ({"iat": NOW - 10, "exp": NOW + 3591}, "is valid for more than 1 hour; a shorter one is wanted"),
            ({"exp": "2030"}, "its claim 'exp' is not a time"),
            ({"exp": True}, "its claim 'exp' is not a time"),
            ({"exp": float("inf")}, "its claim 'exp' is not a time"),
            ({"exp": float("nan")}, "its claim 'exp' is not a time"),
            ({"iat": -1}, "its claim 'iat' is not a time"),
            ({"sub": "bob@example.com"}, "is not of 'ann@example.com': its claim 'sub' names somebody else"),
            ({"sub": "slack:U012AB"}, "is not of 'ann@example.com': its claim 'sub' names somebody else"),
            ({"sub": 7}, "is not a JWT signed with ES256"),
            ({"agent": "other"}, "is for another agent: its claim 'agent' is not 'refunds'"),
            ({"agent": ["refunds"]}, "is for another agent: its claim 'agent' is not 'refunds'"),
            ({"agent": "Refunds"}, "is for another agent: its claim 'agent' is not 'refunds'"),
            ({"workflow_id": "run-2"}, "is for another run: its claim 'workflow_id' is not 'run-1'"),
            ({"workflow_id": "*"}, "is for another run: its claim 'workflow_id' is not 'run-1'"),
            ({"workflow_id": ["run-1"]}, "is for another run: its claim 'workflow_id' is not 'run-1'"),
            ({"input_digest": "D" * 43}, "is for another input: its claim 'input_digest' is not that of the input"),
            (
                {"input_digest": digest_of(ASKED.encode())},
                "is for another input: its claim 'input_digest' is not that of the input",
            ),
            (
                {"labels_digest": "L" * 43},
                "is for a start with labels: its claim 'labels_digest' has nothing to go with",
            ),
            ({"model": "openai:gpt-6-sol"}, "is for a start with a model: its claim 'model' has nothing to go with"),
        ],
    )
    async def test_what_a_token_must_say(self, world: World, changes: dict[str, Any], says: str) -> None:
        assert await world.refusal(SIGNED, requester=ANN, token=world.token(**changes)) == f"token: {says}"

    @pytest.mark.parametrize(
        ("start", "says"),
        [
            ({"input": "Refund order 82"}, "is for another input: its claim 'input_digest' is not that of the input"),
            ({"input": {"order": 81}}, "is for another input: its claim 'input_digest' is not that of the input"),
            ({"workflow_id": "run-2"}, "is for another run: its claim 'workflow_id' is not 'run-2'"),
            (
                {"requester": "bob@example.com"},
                "is not of 'bob@example.com': its claim 'sub' names somebody else",
            ),
            ({"requester": "slack:U012AB"}, "is not of 'slack:U012AB': its claim 'sub' names somebody else"),
            (
                {"labels": {"team": "vip"}},
                "is for a start without labels: it has no claim 'labels_digest'",
            ),
            ({"model": "scripted:x"}, "is for a start without a model: it has no claim 'model'"),
        ],
    )
    async def test_a_good_token_fits_no_other_start(self, world: World, start: dict[str, Any], says: str) -> None:
        assert await world.refusal(SIGNED, **{"requester": ANN, "token": world.token(), **start}) == f"token: {says}"

    async def test_a_token_of_another_agent_begins_none_of_this_one(self, world: World) -> None:
        refusal = await world.refusal({**SIGNED, "name": "payouts"}, requester=ANN, token=world.token())

        assert refusal == "token: is for another agent: its claim 'agent' is not 'payouts'"

    async def test_labels_are_signed_since_rules_read_them(self, world: World) -> None:
        labels = {"team": "support", "a": "b"}
        digest = digest_of(canonical_json(dict(reversed(labels.items()))))
        token = world.token(labels_digest=digest)

        other = await world.refusal(SIGNED, requester=ANN, token=token, labels={"team": "vip"})
        pinned = await world.pin(SIGNED, requester=ANN, token=token, labels=labels)

        assert other == "token: is for another start: its claim 'labels_digest' is not that of this one"
        assert pinned.requester == "Ann@example.com"

    async def test_an_object_is_signed_whatever_the_order_of_its_keys(self, world: World) -> None:
        digest = digest_of(canonical_json({"b": [1, 2.5], "a": "\u00e9"}))

        pinned = await world.pin(
            SIGNED, requester=ANN, token=world.token(input_digest=digest), input={"a": "\u00e9", "b": [1, 2.5]}
        )

        assert pinned.requester == "Ann@example.com"

    async def test_an_order_of_the_token_is_not_an_entry_in_the_file(self, world: World) -> None:
        """A genuine signature of somebody who is not in the file of people asks for nothing."""
        refusal = await world.refusal(SIGNED, requester="eve@example.com", token=world.token(sub="eve@example.com"))

        assert refusal.startswith("requester: 'eve@example.com' is not in the file of people")


class TestOnce:
    async def test_a_token_begins_one_run(self, world: World) -> None:
        """Whoever reads it in a history could start the same workflow id once more when the run has ended."""
        token = world.token()
        await world.pin(SIGNED, requester=ANN, token=token)

        again = await world.refusal(SIGNED, requester=ANN, token=token, run_id="first-2")
        another = await world.pin(SIGNED, requester=ANN, token=world.token(jti="2"), run_id="first-2")

        assert again == "token: has begun another run already; get another one"
        assert another.requester == "Ann@example.com"

    async def test_an_attempt_that_was_lost_does_not_cost_the_token(self, world: World) -> None:
        token = world.token()

        first = await world.pin(SIGNED, requester=ANN, token=token)
        second = await world.pin(SIGNED, requester=ANN, token=token, attempt=2)

        assert first == second

    async def test_a_start_that_is_refused_uses_nothing_up(self, world: World) -> None:
        token = world.token()
        await world.refusal(SIGNED, requester=ANN, token=token, workflow_id="run-2", run_id="first-2")

        assert (await world.pin(SIGNED, requester=ANN, token=token)).requester == "Ann@example.com"

    async def test_the_same_signature_in_another_form_is_the_same_token(self, world: World) -> None:
        """Whoever has one signature of ES256 can make another one that is as good, (r, n - s)."""
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        token = world.token()
        head, _, signature = token.rpartition(".")
        raw = jwt.utils.base64url_decode(signature)
        other = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
        twin = f"{head}.{jwt.utils.base64url_encode(other).decode()}"
        await world.pin(SIGNED, requester=ANN, token=token)

        refusal = await world.refusal(SIGNED, requester=ANN, token=twin, run_id="first-2")

        assert refusal == "token: has begun another run already; get another one"


NO_JWT = "token: is not a JWT signed with ES256"


class TestForgery:
    async def test_no_algorithm(self, world: World) -> None:
        for name in ("none", "None", "NONE", ""):
            token = f"{encoded({'alg': name, 'kid': 'k1'})}.{encoded(world.claims())}."
            assert await world.refusal(SIGNED, requester=ANN, token=token) == NO_JWT

    async def test_the_public_key_as_a_shared_secret(self, world: World) -> None:
        pem = world.issuer.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signed = f"{encoded({'alg': 'HS256', 'kid': 'k1'})}.{encoded(world.claims())}"
        mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()

        refusal = await world.refusal(
            SIGNED, requester=ANN, token=f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        )

        assert refusal == NO_JWT

    async def test_another_curve(self, world: World) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        token = jwt.encode(world.claims(), key, algorithm="ES384", headers={"kid": "k1"})

        assert await world.refusal(SIGNED, requester=ANN, token=token) == NO_JWT

    async def test_another_key_of_the_same_name(self, world: World) -> None:
        refusal = await world.refusal(SIGNED, requester=ANN, token=Issuer().sign(world.claims()))

        assert refusal == "token: its signature is not that of the key it names"

    async def test_claims_that_were_changed_after_signing(self, world: World) -> None:
        header, _, signature = world.token(sub="bob@example.com").split(".")
        token = f"{header}.{encoded(world.claims())}.{signature}"

        refusal = await world.refusal(SIGNED, requester=ANN, token=token)

        assert refusal == "token: its signature is not that of the key it names"

    async def test_a_token_for_a_decision_begins_nothing(self, world: World) -> None:
        claims = {
            "iss": "corp", "aud": "mandate", "sub": ANN, "iat": NOW - 10, "exp": NOW + 290,
            "request_digest": "R" * 43, "choice": "approve",
        }  # fmt: skip

        refusal = await world.refusal(SIGNED, requester=ANN, token=world.issuer.sign(claims))

        assert refusal == "token: has no claim 'agent'"

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "." * 8000, "\u00e9.\u00e9.\u00e9", "<signed token>"])
    async def test_what_is_no_token_is_refused(self, world: World, token: str) -> None:
        assert await world.refusal(SIGNED, requester=ANN, token=token) == NO_JWT

    async def test_an_unknown_key_is_looked_for_a_few_times(self, world: World) -> None:
        token = world.issuer.sign(world.claims(), kid="../../etc/passwd")

        first = await world.unavailable(SIGNED, requester=ANN, token=token)
        last = await world.unavailable(SIGNED, requester=ANN, token=token, attempt=KEY_ATTEMPTS)

        assert (first.non_retryable, last.non_retryable) == (False, True)
        assert last.message == (
            "start request: it cannot be checked now who asks (the key set does not have the key that the token names)"
        )

    async def test_a_worker_without_keys_says_which_setting_it_lacks(self, world: World) -> None:
        world.has_keys = False

        error = await world.unavailable(SIGNED, requester=ANN, token=world.token())

        assert "this worker cannot check signed starts: MANDATE_JWKS and MANDATE_TOKEN_ISSUER" in error.message

    async def test_a_token_is_in_no_error_in_no_log_and_in_no_text_of_a_request(self, world: World) -> None:
        good, unknown = world.token(), world.issuer.sign(world.claims(), kid="other-kid")
        with capture_logs() as logs:
            told = [
                str(await world.pin(SIGNED, requester=ANN, token=good)),
                await world.refusal(SIGNED, requester=ANN, token=world.token(exp=1)),
                str(await world.unavailable(SIGNED, requester=ANN, token=unknown)),
                repr(PinRequest(agent="a", input="b", token=good)),
            ]

        whole = f"{told} {logs}"
        assert not any(part in whole for token in (good, unknown) for part in token.split("."))

    async def test_nothing_is_stored_for_a_start_that_is_refused(self, world: World, tmp_path: Path) -> None:
        await world.blobs.identity()
        before = stored(tmp_path)

        await world.refusal(SIGNED, requester=ANN, token=world.token(agent="other"))
        await world.refusal({"requester": "required"}, requester="eve@example.com")

        assert stored(tmp_path) == before


def stored(folder: Path) -> int:
    """Rows of all tables of the store."""
    found = sqlite3.connect(folder / "store.db")
    tables = [name for (name,) in found.execute("select name from sqlite_master where type = 'table'")]
    return sum(found.execute(f"select count(*) from {name}").fetchone()[0] for name in tables)


class TestExampleSigner:
    """`mandate.workers.examples.sign_decision`, as `mandate run --token-command` runs it."""

    async def test_what_it_signs_begins_a_run(
        self, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = ["--key", str(tmp_path / "issuer.pem"), "--jwks", str(world.keys)]
        sign_decision.main([*key, "--make-key"], {})
        world.at = datetime.now(UTC)
        claims = start_claims("refunds", ASKED, workflow_id="run-1", requester=ANN, labels={"team": "x"})
        told = {
            "MANDATE_AGENT": claims.agent, "MANDATE_WORKFLOW_ID": claims.workflow_id, "MANDATE_BY": claims.sub,
            "MANDATE_INPUT_DIGEST": claims.input_digest, "MANDATE_LABELS_DIGEST": claims.labels_digest or "",
        }  # fmt: skip
        sign_decision.main([*key, "--issuer", "corp"], told)

        pinned = await world.pin(SIGNED, requester=ANN, token=capsys.readouterr().out.strip(), labels={"team": "x"})

        assert pinned.requester == "Ann@example.com"

    def test_what_is_missing_of_a_start_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code = sign_decision.main(["--key", str(tmp_path / "k")], {"MANDATE_WORKFLOW_ID": "run-1"})

        assert code == 2
        assert capsys.readouterr().err == "missing: --issuer, --agent, --input-digest, --by\n"
