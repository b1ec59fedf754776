"""Notices as signed JSON, posted to a receiver of the operator's."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from mandate.activities.channels.base import DeliveryFailed, Parcel
from mandate.activities.channels.http_post import HttpPost
from mandate.activities.toolbox.base import ResolveSecrets
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import Notice, Request
from mandate.workflows.rules import commands, surrogates

VERSION = 1
"""Of the body; a receiver may rely on it until this number changes."""

_PLAIN = (
    "id", "kind", "digest", "title", "tool", "arguments", "question", "options", "reason", "effect", "risk", "tainted",
    "choices",
)  # fmt: skip


class WebhookSender:
    """One POST a notice, with `Idempotency-Key` and `Mandate-Signature`."""

    at_once = 8
    waits_for_others = True

    def __init__(
        self, post: HttpPost, resolve: ResolveSecrets, *, url: str, secret: str, now: Callable[[], float] = time.time
    ) -> None:
        """Take `url` and `secret`, which may hold `${secret:NAME}`, resolved at each attempt."""
        self._post = post
        self._resolve = resolve
        self._url = url
        self._secret = secret
        self._now = now

    def bundle(self, notices: tuple[Notice, ...]) -> tuple[tuple[Notice, ...], ...]:
        return tuple((notice,) for notice in notices)

    async def send(self, parcel: Parcel) -> None:
        url, secret = resolve_text(self._resolve, self._url), resolve_text(self._resolve, self._secret)
        (notice,) = parcel.notices
        content = surrogates.repair_json(build_body(parcel, notice))
        body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        headers = {
            "Idempotency-Key": parcel.key,
            "Mandate-Signature": sign(secret, int(self._now()), body),
        }
        await self._post(url, body, headers)

    async def close(self) -> None:
        await self._post.close()


def resolve_text(resolve: ResolveSecrets, text: str) -> str:
    """Return `text` with its secrets in place.

    Raises:
        DeliveryFailed: a secret is missing; names it.
    """
    try:
        return resolve(text)
    except LookupError as error:
        raise DeliveryFailed(str(error.args[0] if error.args else error), retry=False) from None


def sign(secret: str, at: int, body: bytes) -> str:
    """Return `t=<unix seconds>,v1=<hex>`: HMAC-SHA256 over the time, a dot and the body as it is sent."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def build_body(parcel: Parcel, notice: Notice) -> JsonObject:
    """Return the body that tells a receiver of one notice."""
    run, request = parcel.run, notice.request
    ways = commands.list_ways(run.workflow_id, request, namespace=parcel.namespace)
    return {
        "version": VERSION,
        "occasion": notice.occasion,
        "number": notice.number,
        "namespace": parcel.namespace,
        "workflow_id": run.workflow_id,
        "run_id": run.run_id,
        "agent": run.agent,
        "requester": run.requester,
        "labels": {**run.labels},
        "request": _request(request),
        "answer": {
            "mandate": {way.choice: way.mandate for way in ways},
            "temporal": {way.choice: way.temporal for way in ways},
        },
    }


def _request(request: Request) -> JsonObject:
    fields: JsonObject = request.model_dump(mode="json", include=set(_PLAIN))
    return {
        **fields,
        # Of other kinds it may hold what the model said.
        "evidence": list(request.evidence) if request.kind == "budget" else [],
        "waits_for": list(request.waits_for),
        "needs": [
            {
                "rule": need.rule,
                "groups": list(need.groups),
                "users": list(need.users),
                "quorum": need.quorum,
                "approved_by": list(need.approved_by),
                "signature": need.signature,
                "expires_at": _format_time(need.expires_at),
            }
            for need in request.needs
        ],
        "requested_at": _format_time(request.requested_at),
        "expires_at": _format_time(request.expires_at),
    }


def _format_time(at: datetime) -> str:
    """Return a time as `2026-11-02T09:00:00Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
