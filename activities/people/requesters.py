"""Requesters of runs: whether they are known, and whether they signed that they ask."""

import json
from dataclasses import dataclass, replace

import structlog
from pydantic import TypeAdapter, ValidationError
from temporalio.activity import Info

from mandate.activities.people.directory import Directory, People
from mandate.activities.people.signatures import KeysUnavailable, Signatures, TokenRefused
from mandate.activities.transcript.blobs import BlobMissing, Blobs
from mandate.workflows.contracts.agent import PinnedAgent, PinRequest
from mandate.workflows.contracts.base import canonical_json, digest_of
from mandate.workflows.contracts.people import AGENT_PREFIX, normalize_name
from mandate.workflows.contracts.policy import RequesterIs
from mandate.workflows.contracts.request import By
from mandate.workflows.contracts.run import ATTRIBUTE_BYTES
from mandate.workflows.contracts.start import start_claims
from mandate.workflows.rules.commands import PLACEHOLDERS
from mandate.workflows.rules.plain_text import cut

NAME_CHARACTERS = 80
"""Of a name that a refusal repeats."""

log = structlog.stdlib.get_logger(__name__)

_NAME: TypeAdapter[str] = TypeAdapter(By)

_NO_KEYS = "this worker cannot check signed starts: MANDATE_JWKS and MANDATE_TOKEN_ISSUER are not set"


class RequesterRefused(Exception):
    """A start by somebody who may not ask; the message names the field, for the person."""


@dataclass(frozen=True, slots=True)
class Requester:
    """The person who asks, as the run keeps them."""

    name: str | None
    """As the file of people writes it, if they are there."""
    standing: RequesterIs
    """`known` also while the file does not have them yet: nothing is approved until it does."""
    is_controlled: bool = False
    """The file of people says who may control runs."""


class Requesters:
    """The directory, keys and ledger that starts are checked against."""

    def __init__(self, directory: Directory, signatures: Signatures | None, blobs: Blobs) -> None:
        """Take the means of checking; `signatures` is `None` for a worker that has no keys."""
        self._directory = directory
        self._signatures = signatures
        self._blobs = blobs

    async def check(self, request: PinRequest, agent: PinnedAgent, info: Info) -> Requester:
        """Return who asks for the run of `info`.

        Raises:
            RequesterRefused: they are not known, or did not sign, and the agent wants it.
            DirectoryUnavailable, KeysUnavailable: that cannot be told now.
            StoreUnavailable: the ledger of tokens did not answer.
        """
        people = await self._directory.people()
        if request.requester is not None:
            _check_name(request.requester)
        requester = _requester(request.requester, agent, people)
        if request.child is not None:
            # Who asked for the run at the root was checked there; the file of the parent says no less of it.
            requester = replace(requester, standing=_join(requester.standing, request.child.standing))
        elif agent.needs_signed_start:
            await self._check_token(request, agent, info)
        return replace(requester, is_controlled=people is not None and people.control is not None)

    async def _check_token(self, request: PinRequest, agent: PinnedAgent, info: Info) -> None:
        token, workflow_id = request.token, info.workflow_id
        if token is None:
            raise RequesterRefused(
                f"token: is missing; decisions on runs of {agent.name!r} are signed, and so is who asks for one "
                "(`mandate run --token-command`; `requester: anyone` in the agent file lifts it)"
            )
        if self._signatures is None:
            raise KeysUnavailable(_NO_KEYS)
        assert request.requester is not None
        start = start_claims(
            agent.name,
            request.input,
            workflow_id=workflow_id or "",
            requester=request.requester,
            labels=request.labels,
            model=request.model,
            continues=request.continues,
        )
        try:
            await self._signatures.check_start(token, start, info.scheduled_time)
        except TokenRefused as refused:
            raise RequesterRefused(f"token: {refused}") from None
        await self._use_up(token, request.run_id)

    async def _use_up(self, token: str, run_id: str) -> None:
        """Let a token begin one run: whoever reads it in a history could begin the same once more while it is valid.

        What a run has claimed it may use again, after a lost attempt or a reset. An attempt that is lost between the
        two writes costs the token.
        """
        digest = digest_of(_find_signed_part(token))
        owned = canonical_json({"start_token": digest, "run_id": run_id})
        if await self._blobs.claim(f"start:{digest}"):
            await self._blobs.put(owned)
            return
        try:
            await self._blobs.get(digest_of(owned))
        except BlobMissing:
            raise RequesterRefused("token: has begun another run already; get another one") from None


def _find_signed_part(token: str) -> bytes:
    """Return what was signed: a signature of ES256 can be changed into another that is as good."""
    return token.rpartition(".")[0].encode()


def _check_name(name: str) -> None:
    """Refuse what nobody may be called who decides either."""
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        unseen = fault["type"] == "value_error"
        why = (
            "holds characters that cannot be seen" if unseen else "must be 1 to 200 characters without spaces around it"
        )
        raise RequesterRefused(f"requester: {_show(name)} {why}") from None
    if name in PLACEHOLDERS:
        raise RequesterRefused(f"requester: {name!r} is where your own name goes")
    if normalize_name(name).startswith(AGENT_PREFIX):
        raise RequesterRefused(f"requester: {_show(name)} is an agent; a run is asked for by a person")


def _requester(name: str | None, agent: PinnedAgent, people: People | None) -> Requester:
    known = people.find(name) if people is not None and name is not None else None
    if known is not None and len(json.dumps(known.name)) > ATTRIBUTE_BYTES:
        raise RequesterRefused(
            f"requester: the name of {_show(name or '')} in the file of people is too long to search"
        )
    kept = known.name if known is not None else name
    if not agent.needs_requester(has_people=people is not None):
        return Requester(kept, "anyone")
    if people is not None and known is None and agent.requester is None and not agent.needs_signatures:
        # It may begin, and what it asks can only be rejected: see `check_decision`.
        log.warning("requester_unknown", agent=agent.name, requester=name)
        return Requester(kept, "known")
    opens = "`requester: anyone` in the agent file lets anybody ask"
    if name is None:
        who = "a name or address of the file of people" if people is not None else "the name of who asks"
        raise RequesterRefused(f"requester: is missing; a run of {agent.name!r} wants {who} ({opens})")
    if people is None:
        return Requester(kept, "named")
    if known is None:
        raise RequesterRefused(
            f"requester: {_show(name)} is not in the file of people; it must be a name or address there ({opens})"
        )
    return Requester(kept, "known")


def _join(own: RequesterIs, above: RequesterIs) -> RequesterIs:
    """Return what is known of who asked for a child: no less than in the run above it."""
    order: tuple[RequesterIs, ...] = ("known", "named", "anyone")
    return min(own, above, key=order.index)


def _show(name: str) -> str:
    """Return `name` for a sentence: what cannot be seen in it, spaces around it too, is what may be wrong."""
    return repr(cut(name, NAME_CHARACTERS))
