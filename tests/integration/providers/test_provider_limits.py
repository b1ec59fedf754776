"""How much of a provider's answer is read: packed and not, with success and not, and what goes on meanwhile."""

import gzip
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.response_limits import MAX_BYTES, MAX_STREAM_BYTES
from mandate.workflows.contracts.failures import FailureType
from tests.support.event_loop import Standstill
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.fake_provider.streams import write_events
from tests.support.prompts import ADAPTERS, Adapter, prompt

TEXT = "x" * 4_000_000
SAID: dict[str, dict[str, object]] = {
    RESPONSES: {"status": "completed", "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TEXT}]}]},
    CHAT: {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}]},
    MESSAGES: {"type": "message", "stop_reason": "end_turn", "content": [{"type": "text", "text": TEXT}]},
}  # fmt: skip


class Peer:
    """Answers every request with `body` as often as `times` says, packed if `packed`.

    No `FakeProvider`: it counts what is taken of an answer that is longer than memory should hold.
    """

    status = 200
    body = b""
    times = 1
    packed = False
    media = "application/json"
    sent = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {"content-type": self.media, **({"content-encoding": "gzip"} if self.packed else {})}
        response = web.StreamResponse(status=self.status, headers=headers)
        await response.prepare(request)
        self.sent = 0
        for _ in range(self.times):
            await response.write(self.body)
            self.sent += len(self.body)
        return response


@pytest.fixture
async def peer() -> Peer:
    return Peer()


@pytest.fixture(params=[RESPONSES, CHAT, MESSAGES])
async def adapter(request: pytest.FixtureRequest, peer: Peer) -> AsyncIterator[Adapter]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", peer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made = ADAPTERS[request.param](f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield made
    await made.close()
    await runner.cleanup()


async def failure(adapter: Adapter, *, is_streamed: bool = False) -> ApplicationError:
    asked = replace(prompt(), on_text=lambda _: None) if is_streamed else prompt()
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(asked)
    return caught.value


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_that_is_too_long_is_a_malformed_one(adapter: Adapter, peer: Peer, packed: bool) -> None:
    peer.body, peer.packed = (gzip.compress(b" " * 200_000_000, 1), True) if packed else (b" " * 1_000_000, False)
    peer.times = 1 if packed else 200

    error = await failure(adapter)

    assert error.details[0]["fault"] == "malformed"
    assert (error.type, error.non_retryable) == (FailureType.MODEL_UNAVAILABLE, False)
    assert f"answered with more than {MAX_BYTES:,} bytes, which are not read" in error.message
    assert packed or peer.sent < 3 * MAX_BYTES


@pytest.mark.parametrize(
    ("media", "body", "most"),
    [
        ("application/json", b" " * 1_000_000, 3 * MAX_BYTES),
        ("text/event-stream", b"data: " + b"x" * 1_000_000, 3 * MAX_BYTES),
        # Of what is not kept, a stream may have more.
        ("text/event-stream", b": " + b"x" * 1_000_000 + b"\n\n", MAX_STREAM_BYTES + 2 * MAX_BYTES),
    ],
)
async def test_a_stream_that_is_too_long_is_a_malformed_answer(
    adapter: Adapter, peer: Peer, media: str, body: bytes, most: int
) -> None:
    peer.media, peer.body, peer.times = media, body, 400

    error = await failure(adapter, is_streamed=True)

    assert error.details == ({"fault": "malformed", "status": None, "may_be_billed": True},)
    assert error.message.endswith(f"answered with more than {MAX_BYTES:,} bytes, which are not read")
    assert peer.sent < most


async def test_an_error_that_is_too_long_is_read_in_part(adapter: Adapter, peer: Peer) -> None:
    peer.status, peer.body, peer.times = 503, b"busy " * 200_000, 200

    error = await failure(adapter)

    assert error.details[0] == {"fault": "server", "status": 503}
    assert "answered 503: busy busy" in error.message
    assert peer.sent < 50_000_000


async def test_an_answer_of_too_many_parts_is_not_parsed(adapter: Adapter, peer: Peer) -> None:
    peer.body = b'{"choices":[' + b"{}," * 2_000_000 + b"{}]}"
    begun = time.process_time()

    error = await failure(adapter)

    assert "not an answer: it has more than 200,000 objects and lists" in error.message
    assert time.process_time() - begun < 1


async def test_the_worker_goes_on_while_a_large_answer_is_read(adapter: Adapter, peer: Peer) -> None:
    protocol = next(name for name, make in ADAPTERS.items() if type(make("http://h")) is type(adapter))
    peer.body = json.dumps(SAID[protocol]).encode()

    async with Standstill() as still:
        completion = await adapter.complete(prompt())

    assert completion.message.text == TEXT
    assert still.processor_seconds < 0.5
    assert still.seconds < 5


async def test_the_worker_goes_on_while_a_large_stream_is_read(adapter: Adapter, peer: Peer) -> None:
    protocol = next(name for name, make in ADAPTERS.items() if type(make("http://h")) is type(adapter))
    document = SAID[protocol] | ({"status": "completed"} if protocol == RESPONSES else {"type": "message"})
    peer.media, peer.body = "text/event-stream", b"".join(write_events(protocol, document, pieces=20))
    pieces: list[str] = []

    async with Standstill() as still:
        completion = await adapter.complete(replace(prompt(), on_text=pieces.append))

    assert completion.message.text == "".join(pieces) == TEXT
    assert still.processor_seconds < 0.5
    assert still.seconds < 5
