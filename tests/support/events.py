"""`mandate listen` as a process, and events that are sent to it."""

import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx2

from mandate.workers.events.cloud_event import STRUCTURED
from tests.support.place import Place, line_with

SECRET = "a-secret-of-more-than-16-characters"
KEY = "a-signing-key-of-more-than-16-characters"

ENVIRONMENT = {"MANDATE_EVENT_SECRET": SECRET, "MANDATE_EVENT_SIGNING_KEY": KEY}

BEARER = {"authorization": f"Bearer {SECRET}"}


def new_event(number: str, **members: Any) -> dict[str, Any]:
    """Return an event in structured mode."""
    return {"specversion": "1.0", "id": number, "source": "/orders", "type": "com.example.returned", **members}


def sign(body: bytes, key: str = KEY) -> dict[str, str]:
    return {"x-hub-signature-256": f"sha256={hmac.new(key.encode(), body, sha256).hexdigest()}"}


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener, as senders see it."""

    url: str

    async def send(self, event: Mapping[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
        """Send an event in structured mode with the shared secret; its code and its answer."""
        return await self.post(json.dumps(event).encode(), {"content-type": STRUCTURED, **BEARER, **headers})

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        async with httpx2.AsyncClient(timeout=60) as http:
            answer = await http.post(self.url, content=body, headers=dict(headers))
        return answer.status_code, answer.json()


@asynccontextmanager
async def listening(place: Place, *words: str, **env: str) -> AsyncIterator[Listener]:
    """With `mandate listen`, on a free port unless `words` name a topic, from when it has said that it listens."""
    face = () if "--topic" in words else ("--port", "0")
    process = await place.start("listen", *face, "-o", "json", "--log-level", "error", *words, **env)
    try:
        told = json.loads(await line_with(process.stdout, "url"))
        yield Listener(told["url"] or "")
    finally:
        process.terminate()
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
