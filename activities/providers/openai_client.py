"""The OpenAI SDK's client, used to post requests that are already encoded.

The SDK's typed methods walk every message of a request; its `post` with `content` sends the bytes as they are, with
its own authentication, connections and errors.
"""

import asyncio

import httpx2
import openai

from mandate.activities.providers import errors
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import DIRECT, LIMITS, TIMEOUT, make_timeout
from mandate.activities.providers.response_limits import limit

KEYLESS = "EMPTY"
"""Sent to a server that wants no key: the SDK demands one."""


class OpenAiClient:
    """One path of one server."""

    def __init__(self, path: str, *, provider: str, api_key: str, base_url: str | None) -> None:
        self._provider = provider
        self._secret = api_key
        self._client = openai.AsyncOpenAI(
            api_key=api_key or KEYLESS,
            base_url=base_url,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=limit(openai.DefaultAsyncHttpx2Client(limits=LIMITS, timeout=TIMEOUT, mounts=DIRECT)),
        )
        self._base_url = str(self._client.base_url)
        # Whole, since the SDK takes its base apart again for each relative one.
        self._url = f"{self._base_url.rstrip('/')}{path}"

    async def post(self, prompt: Prompt, body: bytes) -> tuple[Raw, errors.Peer]:
        """Post a request and return the JSON object of the answer, and the peer to blame if it is no good."""
        peer = errors.Peer(self._provider, prompt.model, self._base_url, prompt.attempt, secret=self._secret)
        seconds = prompt.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(
                    self._url,
                    cast_to=httpx2.Response,
                    content=body,
                    options={"timeout": make_timeout(prompt.timeout)},
                )
        except openai.APIStatusError as error:
            raise errors.from_status(peer, error.status_code, error.response.headers, error.response.text) from None
        except (TimeoutError, openai.APITimeoutError) as error:
            raise errors.from_timeout(peer, seconds, error) from None
        except (openai.OpenAIError, httpx2.RequestError) as error:
            raise errors.from_connection(peer, error) from None
        return await errors.read_document(peer, response), peer

    async def close(self) -> None:
        await self._client.close()
