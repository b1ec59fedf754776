"""The OpenAI SDK's client, used to post requests that are already encoded.

The SDK's typed methods walk every message of a request; its `post` with `content` sends the bytes as they are, with
its own authentication, connections and errors.
"""

import asyncio
from functools import partial

import httpx2
import openai
from openai._types import RequestOptions

from mandate.activities.providers import errors
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import DIRECT, LIMITS, TIMEOUT, make_timeout
from mandate.activities.providers.response_limits import ACCEPT_EVENTS, limit
from mandate.activities.providers.service import Headers, Service, list_foreign
from mandate.activities.providers.streams import Listener, Streams

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

    async def post(
        self, prompt: Prompt, body: bytes, streams: Streams, listener: Listener | None
    ) -> tuple[Raw, errors.Peer]:
        """Post a request and return the JSON object of the answer, and the peer to blame if it is no good."""
        headers = self._service.make_headers(prompt)
        secrets = (self._service.api_key,) if headers is None else headers.secrets
        peer = errors.Peer(self._service.provider, prompt.model, self._base_url, prompt.attempt, secrets=secrets)
        seconds = prompt.timeout.total_seconds()
        send = partial(self._send, prompt, headers)
        try:
            async with asyncio.timeout(seconds):
                if listener is not None:
                    return await streams.ask(peer, body, send, listener), peer
                response = await send(body, is_streamed=False)
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException) as error:
            raise errors.from_timeout(peer, seconds, error) from None
        except (openai.OpenAIError, httpx2.RequestError) as error:
            raise errors.from_connection(peer, error) from None
        if not response.is_success:
            raise errors.from_response(peer, response)
        return await errors.read_document(peer, response), peer

    async def _send(
        self, prompt: Prompt, headers: Headers | None, body: bytes, *, is_streamed: bool
    ) -> httpx2.Response:
        try:
            response = await self._client.post(
                self._url,
                cast_to=httpx2.Response,
                content=body,
                options=self._options(prompt, headers, is_streamed=is_streamed),
                stream=is_streamed,
                stream_cls=openai.AsyncStream[object],
            )
        except openai.APIStatusError as error:
            return error.response
        assert isinstance(response, httpx2.Response)
        return response

    def _options(self, prompt: Prompt, headers: Headers | None, *, is_streamed: bool) -> RequestOptions:
        timeout = make_timeout(prompt.timeout)
        accept = {"Accept": ACCEPT_EVENTS} if is_streamed else {}
        if headers is None:
            return {"timeout": timeout, "headers": accept}
        foreign = dict.fromkeys(list_foreign(self._client.default_headers), openai.Omit())
        # Where an answer sends to, nobody has said that keys may go.
        return {"timeout": timeout, "headers": {**foreign, **accept, **headers.values}, "follow_redirects": False}

    async def close(self) -> None:
        await self._client.close()
