"""The three adapters against aimock, a server of the same protocols that other people wrote.

Needs node and npm; the package is installed once into a folder under the system's temporary files.
"""

import asyncio
import fcntl
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.model import Finish
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.prompts import ADAPTERS, Adapter, prompt, results, told

VERSION = "1.43.0"
FOLDER = Path(tempfile.gettempdir()) / f"mandate-aimock-{VERSION}"
PROGRAM = FOLDER / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
COMPLETE = FOLDER / "node_modules" / ".package-lock.json"
"""What npm writes last."""

CALLS = [
    {"id": "call_a", "name": "get_weather", "arguments": {"city": "Rome"}},
    {"id": "call_b", "name": "get_weather", "arguments": {"city": "Oslo"}},
]
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {
            "content": "checking",
            "reasoning": "let me think",
            "reasoningSignature": "SIG==",
            "toolCalls": CALLS,
        },
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "Rome 21C, Oslo 3C"}},
    {
        "match": {"userMessage": "ratelimit"},
        "response": {
            "error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
            "status": 429,
            "retryAfter": 7,
        },
    },
    {
        "match": {"userMessage": "overload"},
        "response": {"error": {"message": "Overloaded", "type": "overloaded_error"}, "status": 529},
    },
    {
        "match": {"userMessage": "flaky", "sequenceIndex": 0},
        "response": {"error": {"message": "boom", "type": "server_error"}, "status": 500},
    },
    {"match": {"userMessage": "flaky", "sequenceIndex": 1}, "response": {"content": "recovered"}},
    {"match": {"userMessage": "length"}, "response": {"content": "cut", "finishReason": "length"}},
    {
        "match": {"userMessage": "broken"},
        "response": {"content": "This answer is never whole."},
        "chunkSize": 5,
        "truncateAfterChunks": 3,
    },
    {
        "match": {"userMessage": "long"},
        "response": {
            "content": "This answer \U0001f600 comes in pieces.",
            "usage": {"input_tokens": 9, "output_tokens": 7},
        },
        "chunkSize": 5,
    },
]


@asynccontextmanager
async def aimock(*options: str) -> AsyncIterator[str]:
    """A server with these command-line options; its URL."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("aimock needs node and npm")
    await _installed(npm)
    with tempfile.TemporaryDirectory(prefix="mandate-aimock-") as name:
        fixtures, log = Path(name) / "fixtures.json", Path(name) / "log"
        fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(node, str(PROGRAM), "-p", "0", "-h", "127.0.0.1", "-f", str(fixtures), "--strict", *options),
                stdout=output,
                stderr=output,
            )
        try:
            yield await _address(process, log)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[str]:
    async with aimock() as url:
        yield url


async def _installed(npm: str) -> None:
    """Sessions of one machine share the folder: the first of them fills it, and the others wait for that."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not COMPLETE.exists():
            await _install(npm)


async def _install(npm: str) -> None:
    install = await asyncio.create_subprocess_exec(
        *(npm, "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), f"@copilotkit/aimock@{VERSION}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await asyncio.wait_for(install.communicate(), 180)
    if install.returncode:
        pytest.skip(f"npm could not install aimock: {error.decode()[-300:]}")


async def _address(process: asyncio.subprocess.Process, log: Path) -> str:
    """Where the server says that it listens."""
    async with asyncio.timeout(60):
        while (found := re.search(r"listening on (http://\S+)\n", log.read_text())) is None:
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.05)
    return found[1]


@pytest.fixture(params=[RESPONSES, CHAT, MESSAGES])
async def adapter(request: pytest.FixtureRequest, server: str) -> AsyncIterator[Adapter]:
    made = ADAPTERS[request.param](server)
    yield made
    await made.close()


async def test_parallel_tools_go_round(adapter: Adapter) -> None:
    question = told("What is the weather?")
    first = await adapter.complete(prompt((question,)))

    conversation = Conversation((question, first.message, results(first.message)))
    last = await adapter.complete(prompt(conversation))

    assert [json.loads(call.arguments) for call in first.message.calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert (last.message.text, last.finish) == ("Rome 21C, Oslo 3C", Finish.COMPLETE)


async def test_rate_limit_says_when_to_come_back(adapter: Adapter) -> None:
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(prompt((told("ratelimit"),)))

    assert caught.value.details[0] == {"fault": "rate_limit", "status": 429}
    assert caught.value.next_retry_delay == timedelta(seconds=7)


async def test_overload_may_be_repeated(adapter: Adapter) -> None:
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(prompt((told("overload"),)))

    assert caught.value.details[0] == {"fault": "overloaded", "status": 529}
    assert not caught.value.non_retryable


async def test_server_error_passes(server: str) -> None:
    adapter = ADAPTERS[RESPONSES](server)

    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(prompt((told("flaky"),)))
    again = await adapter.complete(prompt((told("flaky"),), attempt=2))

    assert caught.value.details[0] == {"fault": "server", "status": 500}
    assert again.message.text == "recovered"


async def test_answer_cut_at_the_output_limit(adapter: Adapter) -> None:
    completion = await adapter.complete(prompt((told("length"),)))

    assert (completion.message.text, completion.finish) == ("cut", Finish.TRUNCATED)


@pytest.mark.parametrize(("chaos", "fault"), [("disconnect", "connection"), ("malformed", "malformed")])
async def test_broken_answer_may_be_asked_for_again(chaos: str, fault: str) -> None:
    async with aimock(f"--chaos-{chaos}", "1") as url:
        for make in ADAPTERS.values():
            adapter = make(url)

            with pytest.raises(ApplicationError) as caught:
                await adapter.complete(prompt((told("length"),)))

            assert caught.value.details[0]["fault"] == fault
            assert not caught.value.non_retryable
            await adapter.close()


async def test_streamed_tools_go_round(adapter: Adapter) -> None:
    pieces: list[str] = []
    question = told("What is the weather?")
    first = await adapter.complete(replace(prompt((question,)), on_text=pieces.append))

    conversation = Conversation((question, first.message, results(first.message)))
    last = await adapter.complete(replace(prompt(conversation), on_text=pieces.append))

    assert [json.loads(call.arguments) for call in first.message.calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert (last.message.text, last.finish) == ("Rome 21C, Oslo 3C", Finish.COMPLETE)
    assert "".join(pieces) == first.message.text + last.message.text


async def test_streamed_answer_is_that_of_a_document(adapter: Adapter) -> None:
    pieces: list[str] = []
    plain = await adapter.complete(prompt((told("long"),)))
    streamed = await adapter.complete(replace(prompt((told("long"),)), on_text=pieces.append))

    assert streamed.message.parts == plain.message.parts
    assert (streamed.finish, streamed.problem, streamed.answered_by) == (plain.finish, plain.problem, plain.answered_by)
    assert "".join(pieces) == plain.message.text
    assert len(pieces) > 3


async def test_streamed_answer_that_is_cut_is_a_dropped_connection(adapter: Adapter) -> None:
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(replace(prompt((told("broken"),)), on_text=lambda _: None))

    assert caught.value.details == ({"fault": "connection", "status": None, "may_be_billed": True},)


async def test_streamed_request_may_be_refused(adapter: Adapter) -> None:
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(replace(prompt((told("ratelimit"),)), on_text=lambda _: None))

    assert caught.value.details[0] == {"fault": "rate_limit", "status": 429}
    assert caught.value.next_retry_delay == timedelta(seconds=7)
