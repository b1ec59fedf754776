"""One POST to a channel's receiver: what its answer means, and nothing of the address in what is said of it."""

import asyncio
import contextlib
from collections.abc import Mapping

import httpx2

from mandate.activities.channels.base import DeliveryFailed
from mandate.activities.retry_after import retry_after
from mandate.activities.toolbox.http.response import describe_error
from mandate.activities.toolbox.http.status import describe_status
from mandate.workflows.contracts.channels import find_address_fault

EXCERPT_BYTES = 200
"""Most that is read of an answer."""

_EXCERPT_SECONDS = 1.0


class HttpPost:
    """A client that several channels share.

    Redirects are not followed: a notice is signed for one receiver. Proxies of the environment are used, except for
    http, which is for loopback only.
    """

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Post one body and return the beginning of the answer, which was 2xx; its caller limits the time.

        Raises:
            DeliveryFailed: see there; retried after 429, 5xx and a lost connection.
        """
        fault = find_address_fault(url)
        if fault is not None:
            raise DeliveryFailed(f"its url {fault}", retry=False)
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=None, mounts={"http://": None})
        sent = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "mandate", **headers}
        try:
            async with self._client.stream("POST", url, content=body, headers=sent) as response:
                self._client.cookies.clear()
                return await _read(response)
        except httpx2.InvalidURL:
            raise DeliveryFailed("its url is not an address", retry=False) from None
        except httpx2.RequestError as error:
            raise DeliveryFailed(describe_error(error), retry=True) from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


async def _read(response: httpx2.Response) -> str:
    status = response.status_code
    text = await _excerpt(response)
    if 200 <= status < 300:
        return text
    if 300 <= status < 400:
        raise DeliveryFailed(f"{describe_status(status)}; redirects are not followed", retry=False)
    raise Answered(status, text, retry_after(response.headers) or None)


class Answered(DeliveryFailed):
    """A refusal, with what the receiver said; only who knows its words may quote them."""

    def __init__(self, status: int, text: str, wait: float | None) -> None:
        super().__init__(describe_status(status), retry=status == 429 or status >= 500, retry_after=wait)
        self.text = text


async def _excerpt(response: httpx2.Response) -> str:
    """Return as much of the body as comes within a second: the status is the answer, however the body ends."""
    content = b""
    with contextlib.suppress(httpx2.RequestError, TimeoutError):
        async with asyncio.timeout(_EXCERPT_SECONDS):
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) >= EXCERPT_BYTES:
                    break
    return content[:EXCERPT_BYTES].decode("utf-8", "replace")
