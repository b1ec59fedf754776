"""MCP servers of others: the Python SDK's over stdio and HTTP, and two from npm."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.mcp.tool_list import McpUnavailable
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.mcp_peer import COMMAND
from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]
NPM_FOLDER = Path.home() / ".cache" / "mandate" / "npm-test"
NPM_SERVERS = ("server-filesystem@2026.8.31", "server-everything@2026.8.31")
CONTEXT = CallContext("w", "r", 1, "key-1", 1, timedelta(seconds=10))


@pytest.fixture
async def toolbox() -> AsyncIterator[McpToolbox]:
    toolbox = McpToolbox(lambda text: "s3cr3t-token")
    yield toolbox
    await toolbox.close()


async def tools_of(toolbox: McpToolbox, server: dict[str, object], **settings: object) -> dict[str, ToolDefinition]:
    entry = McpTools.model_validate({"mcp": {"name": "peer", **server}, **settings})
    return {definition.tool.name: definition for definition in await toolbox.definitions(entry)}


async def failure(toolbox: McpToolbox, definition: ToolDefinition, arguments: dict[str, object]) -> ToolError:
    with pytest.raises(ToolError) as raised:
        await toolbox.call(definition, arguments, CONTEXT)  # type: ignore[arg-type]
    return raised.value


async def answering(port: int) -> None:
    for _ in range(1200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


@asynccontextmanager
async def python_server(port: int, journal: Path) -> AsyncIterator["asyncio.subprocess.Process"]:
    """The SDK's server over streamable HTTP, answering when this is entered."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "good", str(port), str(journal),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await answering(port)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def read(journal: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


async def test_the_sdks_server_over_stdio(toolbox: McpToolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    journal = tmp_path / "journal"
    command = [*COMMAND, "good", "stdio", str(journal)]
    tools = await tools_of(
        toolbox,
        {"command": command, "env": {"TOKEN": "${secret:T}", "PYTHONPATH": str(ROOT)}},
        effects={"echo": "read", "fail": "idempotent"},
    )

    assert await toolbox.call(tools["echo"], {"text": "é"}, CONTEXT) == ToolText("é")
    assert await toolbox.call(tools["weather"], {"city": "Rome"}, CONTEXT) == ToolText('{"degrees": 4}')
    assert (await toolbox.call(tools["pics_image"], {}, CONTEXT)).text == "[image image/png, 40 bytes]\na picture"
    assert (await toolbox.call(tools["fail"], {}, CONTEXT)).error
    assert (await toolbox.call(tools["environment"], {"name": "TOKEN"}, CONTEXT)).text == "***"
    assert (await failure(toolbox, tools["crash"], {})).outcome is Outcome.UNKNOWN
    assert (await toolbox.call(tools["echo"], {"text": "again"}, CONTEXT)).text == "again"

    keys = {(entry["tool"], entry["key"]) for entry in read(journal)}
    assert {("echo", None), ("weather", "key-1"), ("crash", "key-1")} <= keys


async def test_the_sdks_server_over_http_goes_down_and_comes_back(toolbox: McpToolbox, tmp_path: Path) -> None:
    port, journal = free_port(), tmp_path / "journal"
    server = {"url": f"http://127.0.0.1:{port}/mcp"}
    with pytest.raises(McpUnavailable, match="'peer' did not start: no connection"):
        await tools_of(toolbox, server)

    async with python_server(port, journal) as process:
        tools = await tools_of(toolbox, server, effects={"echo": "read"})
        texts = await asyncio.gather(
            *(toolbox.call(tools["echo"], {"text": str(number)}, CONTEXT) for number in range(20))
        )
        cut = asyncio.create_task(failure(toolbox, tools["slow"], {"seconds": 30}))
        while not any(entry["tool"] == "slow" for entry in read(journal)):
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        during = await cut
    after = await failure(toolbox, tools["weather"], {"city": "Rome"})
    async with python_server(port, journal):
        back = await toolbox.call(tools["weather"], {"city": "Rome"}, CONTEXT)

    assert [result.text for result in texts] == [str(number) for number in range(20)]
    assert during.outcome is Outcome.UNKNOWN
    assert after.outcome is Outcome.NOT_SENT
    assert back.text == '{"degrees": 4}'
    assert [entry["key"] for entry in read(journal) if entry["tool"] == "weather"] == ["key-1"]


@pytest.fixture(scope="session")
def npm_servers() -> Path:
    """The folder of the installed servers; they are fetched once and kept outside the repository."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are needed for the MCP servers of npm")
    packages = NPM_FOLDER / "node_modules" / "@modelcontextprotocol"
    if not all((packages / name.partition("@")[0] / "dist" / "index.js").exists() for name in NPM_SERVERS):
        NPM_FOLDER.mkdir(parents=True, exist_ok=True)
        wanted = [f"@modelcontextprotocol/{name}" for name in NPM_SERVERS]
        install = [npm, "install", "--no-audit", "--no-fund", "--silent", *wanted]
        if subprocess.run(install, cwd=NPM_FOLDER, check=False, timeout=300).returncode:
            pytest.skip("the MCP servers could not be fetched with npm")
    return packages


async def test_npms_filesystem_server(toolbox: McpToolbox, npm_servers: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("Thirty days.")
    command = ["node", str(npm_servers / "server-filesystem" / "dist" / "index.js"), str(tmp_path)]
    tools = await tools_of(
        toolbox, {"command": command}, effects={"read_text_file": "read", "write_file": "idempotent"}
    )

    text = await toolbox.call(tools["read_text_file"], {"path": str(tmp_path / "rules.txt")}, CONTEXT)
    await toolbox.call(tools["write_file"], {"path": str(tmp_path / "new.txt"), "content": "x"}, CONTEXT)
    outside = await toolbox.call(tools["read_text_file"], {"path": "/etc/hostname"}, CONTEXT)
    unknown = await failure(toolbox, tools["edit_file"], {"path": "/etc/hostname", "edits": []})

    assert text == ToolText('{"content": "Thirty days."}')
    assert (tmp_path / "new.txt").read_text() == "x"
    assert outside.error
    assert "denied" in outside.text
    assert unknown.outcome is Outcome.UNKNOWN
    assert tools["edit_file"].tool.effect is Effect.ONCE
    assert tools["get_file_info"].tool.effect is Effect.ONCE
    assert tools["get_file_info"].binding.claims == ("only reads",)


@asynccontextmanager
async def everything_over_http(npm_servers: Path, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "node", str(npm_servers / "server-everything" / "dist" / "index.js"), "streamableHttp",
        env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await answering(port)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_npms_everything_server_over_both_transports(toolbox: McpToolbox, npm_servers: Path) -> None:
    program, port = str(npm_servers / "server-everything" / "dist" / "index.js"), free_port()
    async with everything_over_http(npm_servers, port):
        over_http = await tools_of(toolbox, {"url": f"http://127.0.0.1:{port}/mcp"}, effect="read")
        over_stdio = await tools_of(toolbox, {"command": ["node", program, "stdio"]}, effect="read")
        for tools in (over_stdio, over_http):
            echo = await toolbox.call(tools["echo"], {"message": "hi"}, CONTEXT)
            image = await toolbox.call(tools["get-tiny-image"], {}, CONTEXT)

            assert echo == ToolText("Echo: hi")
            assert "[image image/png, " in image.text
            assert len(image.text) < 500


async def test_a_session_that_the_server_forgot_costs_no_call(toolbox: McpToolbox, npm_servers: Path) -> None:
    port = free_port()
    async with everything_over_http(npm_servers, port):
        tools = await tools_of(toolbox, {"url": f"http://127.0.0.1:{port}/mcp"}, effect="read")
    async with everything_over_http(npm_servers, port):
        forgotten = await toolbox.call(tools["echo"], {"message": "hi"}, CONTEXT)

    assert forgotten == ToolText("Echo: hi")
