"""A toolbox with the planned MCP peer behind it: over stdio or HTTP, in old versions of the protocol and the last."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, OfferedTools, ToolText
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.tool import Effect, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.mcp_peer import BARE_COMMAND

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to speak with a server."""

    transport: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.protocol}"


WAYS = (
    Way("stdio", "2025-06-18"),
    Way("stdio", "2026-07-28"),
    Way("http", "2025-11-25"),
    Way("http", "2026-07-28"),
)
OVER_HTTP = WAYS[2:]


def text_result(text: str, **more: object) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": text}], **more}}


def listed(name: str, **more: object) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def context(seconds: float = 20, key: str = "key-1") -> CallContext:
    return CallContext("w", "r", 1, key, 1, timedelta(seconds=seconds))


class McpBench:
    """A toolbox and a peer."""

    def __init__(self, toolbox: McpToolbox, server: dict[str, object], journal: Path) -> None:
        self.toolbox = toolbox
        self.server = server
        self._journal = journal

    async def offered(self, **settings: object) -> OfferedTools:
        return await self.toolbox.definitions(McpTools.model_validate({"mcp": self.server, **settings}))

    async def tools(self, **settings: object) -> dict[str, ToolDefinition]:
        return {definition.tool.name: definition for definition in await self.offered(**settings)}

    async def tool(self, name: str, effect: Effect = Effect.READ) -> ToolDefinition:
        return (await self.tools(effect=effect))[name]

    async def say(self, name: str, effect: Effect = Effect.READ, *, seconds: float = 20) -> str:
        """What the model is told, or what is known of the attempt."""
        try:
            answer = await self.toolbox.call(await self.tool(name, effect), {}, context(seconds))
        except ToolError as error:
            return f"{error.outcome}: {error.reason}"
        return described(answer)

    def seen(self, method: str) -> list[dict[str, Any]]:
        return [line for line in lines(self._journal) if line.get("method") == method]

    def started(self) -> list[int]:
        return [line["start"] for line in lines(self._journal) if "start" in line]


def described(answer: ToolText) -> str:
    return f"{'lost: ' if answer.is_lost else ''}{'error: ' if answer.error else ''}{answer.text}"


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


@asynccontextmanager
async def mcp_bench(folder: Path, way: Way, plan: dict[str, object]) -> AsyncIterator[McpBench]:
    journal = folder / f"journal-{way}"
    env = {"PLAN": json.dumps({"protocol": way.protocol, **plan}), "JOURNAL": str(journal)}
    toolbox = McpToolbox(lambda text: text)
    try:
        if way.transport == "stdio":
            server: dict[str, object] = {"name": "peer", "command": [*BARE_COMMAND, "planned"], "env": env}
            yield McpBench(toolbox, server, journal)
            return
        async with planned_over_http(journal, env) as url:
            yield McpBench(toolbox, {"name": "peer", "url": url}, journal)
    finally:
        await toolbox.close()


@asynccontextmanager
async def planned_over_http(journal: Path, env: dict[str, str]) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *BARE_COMMAND, "planned", "http", cwd=ROOT, env={**os.environ, **env}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while not (ports := [line["port"] for line in lines(journal) if "port" in line]):
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{ports[-1]}/mcp"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
