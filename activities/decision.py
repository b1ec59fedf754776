"""Checks of a person's decision: who they are at this moment, what they signed, and if their words can be used."""

import asyncio
import json
from collections.abc import Iterator

import structlog
from pydantic import JsonValue
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.people import control, edits
from mandate.activities.people.directory import Directory, DirectoryUnavailable, Known, People
from mandate.activities.people.edits import EditRefused
from mandate.activities.people.signatures import KeysUnavailable, Signatures, TokenRefused
from mandate.activities.toolbox import dialogues, forms
from mandate.activities.transcript import results
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.control import ControlCheck, ControlChecked
from mandate.workflows.contracts.decision_lookups import CheckedMany, DecisionChecks
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.people import AGENT_PREFIX, normalize_name
from mandate.workflows.contracts.request import (
    REJECT,
    Checked,
    DecisionCheck,
    EditedCall,
    Need,
    Request,
    SignedDecision,
)
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import decisions

log = structlog.stdlib.get_logger(__name__)

_GIVING = {"answer": "answer", "supply": "result", "happened": "result"}
"""Choices that come with a result, and what it is called."""

_GIVEN = {"answer": "answered by", "supply": "supplied by", "happened": "it happened, says"}

NAMES_SHOWN = 10
"""Users and groups that a refusal names at most."""


_NO_KEYS = "this worker cannot check signed decisions: MANDATE_JWKS and MANDATE_TOKEN_ISSUER are not set"


class Refused(Exception):
    """A decision that does not count; the message is for the person."""


class PeopleActivities:
    """The directory, keys and conversations that decisions are checked against."""

    def __init__(
        self, directory: Directory, signatures: Signatures | None, agents: PinnedAgents, transcript: TranscriptLog
    ) -> None:
        """Take the means of checking; `signatures` is `None` for a worker that has no keys."""
        self._directory = directory
        self._signatures = signatures
        self._agents = agents
        self._transcript = transcript

    @activity.defn
    async def check_decision(self, check: DecisionCheck) -> Checked:
        """Check one decision: return what it counts for, or why it counts for nothing.

        Raises:
            ApplicationError: `CheckUnavailable`, retried: the people, the keys or the store cannot be read now.
        """
        try:
            checked = await self._check(check)
        except Refused as refused:
            checked = Checked(refusal=str(refused))
        except (DirectoryUnavailable, KeysUnavailable, *failures.STORE_ERRORS) as error:
            log.warning("decision_unchecked", request=check.request.id, reason=str(error))
            raise ApplicationError(str(error), type=FailureType.CHECK_UNAVAILABLE, category=failures.EXPECTED) from None
        log.info(
            "decision_checked",
            request=check.request.id,
            by=check.decision.by,
            choice=check.decision.choice,
            counts=checked.refusal is None,
            signed=checked.signed,
        )
        if not activity.info().is_local:
            return checked
        told = check.decision.model_copy(update={"token": None})
        return checked.model_copy(update={"decision": told, "at": check.at})

    @activity.defn
    async def check_decisions(self, checks: DecisionChecks) -> CheckedMany:
        """Check decisions that came together, as `check_decision` does; fail when one of them cannot be checked yet."""
        return CheckedMany(checked=tuple(await asyncio.gather(*map(self.check_decision, checks.checks))))

    @activity.defn
    async def check_control(self, check: ControlCheck) -> ControlChecked:
        """Check who steers, pauses, resumes or stops a run.

        Raises:
            ApplicationError: `CheckUnavailable`, retried: the file of people cannot be read now.
        """
        try:
            refusal = control.find_control_refusal(check, await self._directory.people())
        except DirectoryUnavailable as error:
            log.warning("control_unchecked", verb=check.verb, by=check.by, reason=str(error))
            raise ApplicationError(str(error), type=FailureType.CHECK_UNAVAILABLE, category=failures.EXPECTED) from None
        log.info("control_checked", verb=check.verb, by=check.by, counts=refusal is None)
        return ControlChecked(refusal=refusal)

    async def _check(self, check: DecisionCheck) -> Checked:
        agent = await self._agents.get(check.agent)
        people = await self._directory.people()
        _refuse_agents(check, agent)
        known = _person(check, people)
        _allow_only_refusals_without_requester(check, people)
        _refuse_again(check, people, known)
        needs = _needs(check, people, known)
        signed = await self._check_token(check, needs)
        return Checked(
            needs=needs,
            person=known.name if known is not None else None,
            signed=signed,
            evidence=await self._keep(check) if signed else None,
            edited=await self._edit_call(check, agent, known),
            answer=await self._answer(check, known),
        )

    async def _check_token(self, check: DecisionCheck, needs: tuple[int, ...]) -> bool:
        """Return whether a token was demanded and is good; a token that nobody asked for is not looked at."""
        if not any(check.request.needs[position].signature for position in needs):
            return False
        token = check.decision.token
        if token is None:
            raise Refused(f"token: is missing; {check.request.id} wants signed decisions")
        if self._signatures is None:
            raise KeysUnavailable(_NO_KEYS)
        try:
            await self._signatures.check(token, check.decision, check.request.digest, check.at)
        except TokenRefused as refused:
            raise Refused(f"token: {refused}") from None
        return True

    async def _keep(self, check: DecisionCheck) -> Digest:
        """Store the decision with its token, for whoever makes the call."""
        edited = check.request.edited
        kept = SignedDecision(
            decision=check.decision, at=check.at, edited_before=edited.blob if edited is not None else None
        )
        (address,) = await self._transcript.blobs.put(kept.model_dump_json().encode())
        return address

    async def _edit_call(self, check: DecisionCheck, agent: PinnedAgent, known: Known | None) -> EditedCall | None:
        decision, request = check.decision, check.request
        if request.kind != "approval" or decision.choice == REJECT or decision.value is None:
            return None
        definition = agent.definition(request.tool or "")
        if definition is None:
            raise Refused(f"value: the agent has no tool {request.tool!r} whose arguments could be changed")
        try:
            return await edits.edit_call(self._transcript, request, definition, decision.value, _name(check, known))
        except EditRefused as refused:
            raise Refused(f"value: {refused}") from None

    async def _answer(self, check: DecisionCheck, known: Known | None) -> ToolResult | None:
        """Return the result that a person gives: always with `answer` and `supply`, if they like with `happened`."""
        decision = check.decision
        if decision.choice not in _GIVING or check.request.kind == "budget":
            return None
        if check.request.server is not None:
            return await self._answer_server(check)
        text = _text(decision.value)
        if not text.strip():
            if decision.choice == "happened":
                return None
            raise Refused(f"value: is empty; with {decision.choice!r} it is the {_GIVING[decision.choice]}, as a text")
        if decision.choice == "answer" and check.request.options:
            chosen = decisions.find_option(text, check.request.options)
            if chosen is None:
                raise Refused(f"value: {decisions.explain_no_option(text, check.request.options)}")
            text = chosen
        stored = await results.store(self._transcript.blobs, text)
        return stored.model_copy(update={"note": f"{_GIVEN[decision.choice]} {_name(check, known)}"})

    async def _answer_server(self, check: DecisionCheck) -> ToolResult | None:
        """Return what a person put into a server's form, by reference; `None` for a page that they have visited."""
        if check.request.form is None:
            return None
        form = await dialogues.load_form(self._transcript.blobs, check.request.form)
        try:
            content = canonical_json(forms.read_answer(form, check.decision.value))
        except ValueError as error:
            raise Refused(f"value: {error}") from None
        (digest,) = await self._transcript.blobs.put(content)
        return ToolResult(digest=digest, size=len(content))


def _refuse_agents(check: DecisionCheck, agent: PinnedAgent) -> None:
    """Refuse an agent: as `agent:NAME` of any name, as this one's name, as its run or one above it."""
    by = normalize_name(check.decision.by or "")
    parts = check.workflow_id.split("/")
    runs = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    if by.startswith(AGENT_PREFIX) or by in map(normalize_name, (agent.name, *runs)):
        raise Refused(f"by: {check.decision.by!r} is an agent or its run; only people decide")


def _person(check: DecisionCheck, people: People | None) -> Known | None:
    """Return the person who decides, as the file of people knows them; never who asked under any of their names."""
    by, requester = check.decision.by or "", check.requester
    known = people.find(by) if people is not None else None
    if requester is not None:
        if normalize_name(by) == normalize_name(requester):
            raise Refused(f"by: {by!r} asked for this run and cannot decide for it")
        if people is not None and known is not None and people.find(requester) is known:
            raise Refused(f"by: {by!r} is {requester!r}, who asked for this run and cannot decide for it")
    speaker = check.speaker
    if speaker is not None and people is not None and known is not None and people.find(speaker) is known:
        raise Refused(f"by: {by!r} is {speaker!r}, who spoke last in this session and cannot decide on what it asks")
    if people is not None and known is None:
        raise Refused(f"by: {by!r} is not in the file of people; who may decide on {_describe_people(check.request)}")
    return known


def _allow_only_refusals_without_requester(check: DecisionCheck, people: People | None) -> None:
    """Let people only refuse while the file of people does not have the requester of the run.

    The requester may be in the file under another name by now, and approve what they asked for themselves.
    """
    request, requester = check.request, check.requester or ""
    if check.requester_is == "anyone" or check.decision.choice == request.choices[-1]:
        return
    if people is None:
        if check.requester_is == "known":
            raise DirectoryUnavailable(
                "this worker has no file of people (MANDATE_PEOPLE), which had the requester when the run began"
            )
        return
    if check.requester is None:
        raise Refused(
            f"requester: the start of this run does not say who asks, so only {request.choices[-1]!r} can be chosen; "
            "start it again with a requester of the file of people"
        )
    if people.find(requester) is None:
        raise Refused(
            f"requester: {requester!r} asked for this run and is not in the file of people, so only "
            f"{request.choices[-1]!r} can be chosen; put the name there, as an address if the person has another name "
            "now"
        )


def _refuse_again(check: DecisionCheck, people: People | None, known: Known | None) -> None:
    """Refuse a second decision of one person, also when the file has given them another name since they decided."""
    if people is None or known is None:
        return
    for name in (name for need in check.request.needs for name in (*need.approved_by, *need.rejected_by)):
        if people.find(name) is known:
            raise Refused(f"by: {check.decision.by!r} has decided on {check.request.id} already, as {name!r}")


def _name(check: DecisionCheck, known: Known | None) -> str:
    return known.name if known is not None else check.decision.by or ""


def _needs(check: DecisionCheck, people: People | None, known: Known | None) -> tuple[int, ...]:
    """Return the positions of the needs that the decision counts for."""
    request, by = check.request, check.decision.by or ""
    mine = [position for position, need in enumerate(request.needs) if _is_entitled(need, by, people, known)]
    if not mine:
        raise Refused(f"by: {by!r} may not decide on {_describe_people(request)}")
    if check.decision.choice == REJECT or check.decision.value is not None:
        return tuple(mine)
    open_needs = tuple(position for position in mine if not request.needs[position].is_met)
    if not open_needs:
        raise Refused(f"by: all that {by!r} may approve of {request.id} is approved; it waits for others")
    return open_needs


def _is_entitled(need: Need, by: str, people: People | None, known: Known | None) -> bool:
    if not need.users and not need.groups:
        return True
    if people is None:
        if any(normalize_name(user) == normalize_name(by) for user in need.users):
            return True
        if need.groups:
            raise DirectoryUnavailable(
                f"this worker has no file of people (MANDATE_PEOPLE) that says who is in group {need.groups[0]}"
            )
        return False
    return known is not None and (known.is_in(need.groups) or any(people.find(user) is known for user in need.users))


def _describe_people(request: Request) -> str:
    """Return the people of a need: `r1: group finance, ann@example.com`."""
    names = list(dict.fromkeys(name for need in request.needs for name in _named(need)))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{request.id}: {', '.join(names[:NAMES_SHOWN])}{more}"


def _named(need: Need) -> Iterator[str]:
    if not need.users and not need.groups:
        yield "everybody in it"
    yield from (f"group {group}" for group in need.groups)
    yield from need.users


def _text(value: JsonValue) -> str:
    """Return an answer in the form that the model is given."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()
