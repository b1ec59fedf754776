"""The OpenAI SDK's client, used to post requests that are already encoded.

The SDK's typed methods walk every message of a request; its `post` with `content` sends the bytes as they are, with
its own authentication, connections and errors.
"""

import asyncio

import httpx2
import openai
from openai._types import RequestOptions

from mandate.activities.providers import errors
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import DIRECT, LIMITS, TIMEOUT, make_timeout
from mandate.activities.providers.response_limits import limit
from mandate.activities.providers.service import Headers, Service, list_foreign

KEYLESS = "EMPTY"
"""Sent to a server that wants no key: the SDK demands one."""


class OpenAiClient:
    """One path of one server."""

    def __init__(self, path: str, service: Service) -> None:
        self._service = service
        self._client = openai.AsyncOpenAI(
            api_key=service.api_key or KEYLESS,
            base_url=service.base_url,
            default_query=service.query,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=limit(openai.DefaultAsyncHttpx2Client(limits=LIMITS, timeout=TIMEOUT, mounts=DIRECT)),
        )
        self._base_url = str(self._client.base_url)
        # Whole, since the SDK takes its base apart again for each relative one.
        self._url = f"{self._base_url.rstrip('/')}{path}"

    async def post(self, prompt: Prompt, body: bytes) -> tuple[Raw, errors.Peer]:
        """Post a request and return the JSON object of the answer, and the peer to blame if it is no good."""
        headers = self._service.make_headers(prompt)
        secrets = (self._service.api_key,) if headers is None else headers.secrets
        peer = errors.Peer(self._service.provider, prompt.model, self._base_url, prompt.attempt, secrets=secrets)
        seconds = prompt.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(
                    self._url,
                    cast_to=httpx2.Response,
                    content=body,
                    options=self._options(prompt, headers),
                )
        except openai.APIStatusError as error:
            raise errors.from_status(peer, error.status_code, error.response.headers, error.response.text) from None
        except (TimeoutError, openai.APITimeoutError) as error:
            raise errors.from_timeout(peer, seconds, error) from None
        except (openai.OpenAIError, httpx2.RequestError) as error:
            raise errors.from_connection(peer, error) from None
        return await errors.read_document(peer, response), peer

    def _options(self, prompt: Prompt, headers: Headers | None) -> RequestOptions:
        timeout = make_timeout(prompt.timeout)
        if headers is None:
            return {"timeout": timeout}
        foreign = dict.fromkeys(list_foreign(self._client.default_headers), openai.Omit())
        # Where an answer sends to, nobody has said that keys may go.
        return {"timeout": timeout, "headers": {**foreign, **headers.values}, "follow_redirects": False}

    async def close(self) -> None:
        await self._client.close()
