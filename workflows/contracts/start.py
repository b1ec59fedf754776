"""Claims of a signed start: who asks which agent for what, in which run."""

from collections.abc import Mapping

from pydantic import JsonValue

from mandate.workflows.contracts.base import Digest, Record, canonical_json, digest_of
from mandate.workflows.contracts.origin import ContinuesRequest


class StartClaims(Record):
    """Claims of a token for one start, beside `iss`, `aud`, `iat` and `exp`; the claims' own names."""

    sub: str
    """The one who asks, as in the start request."""
    agent: str
    workflow_id: str
    input_digest: Digest
    """Of the canonical JSON of what is asked, a text or an object."""
    labels_digest: Digest | None = None
    """Of the canonical JSON of the labels, since rules may read them; left out for a start without labels."""
    model: str | None = None
    """The model that is asked in place of the agent's route; left out for a start without one."""
    continues: str | None = None
    """The run that it goes on from, as `run`, `run@step` or `run/run_id@step`; left out for a start without one."""


def start_claims(
    agent: str,
    asked: JsonValue,
    *,
    workflow_id: str,
    requester: str,
    labels: Mapping[str, str] | None = None,
    model: str | None = None,
    continues: ContinuesRequest | None = None,
) -> StartClaims:
    """Return the claims for one start; `asked` is its `input`.

    Raises:
        ValueError: `asked` holds what JSON has no form for.
    """
    return StartClaims(
        sub=requester,
        agent=agent,
        workflow_id=workflow_id,
        input_digest=digest_of(canonical_json(asked)),
        labels_digest=digest_of(canonical_json(dict(labels))) if labels else None,
        model=model,
        continues=continues.name if continues is not None else None,
    )
