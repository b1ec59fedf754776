"""An MCP server on the SDK with tools of every sort: `good stdio|PORT [JOURNAL]`.

Every call is appended to the journal file as one JSON line with the idempotency key that came with it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.utilities.types import Image
from pydantic import BaseModel, Field

from tests.support.mcp_peer.keys import sent_key

JOURNAL = Path(sys.argv[3]) if len(sys.argv) > 3 else None
server = MCPServer("test")


class Weather(BaseModel):
    degrees: int


def record(tool: str, context: Context[Any, Any], **more: str) -> None:
    entry = {"tool": tool, "key": sent_key(context), "pid": os.getpid(), **more}
    if JOURNAL is not None:
        with JOURNAL.open("a") as journal:
            journal.write(json.dumps(entry) + "\n")


@server.tool(structured_output=False)
async def echo(text: str, context: Context[Any, Any]) -> str:
    """Say the same again."""
    record("echo", context)
    return text


@server.tool()
async def weather(city: str, context: Context[Any, Any]) -> Weather:
    record("weather", context)
    return Weather(degrees=len(city))


@server.tool(structured_output=False)
async def slow(seconds: float, context: Context[Any, Any]) -> str:
    record("slow", context)
    await asyncio.sleep(seconds)
    record("slow finished", context)
    return "done"


@server.tool(structured_output=False)
async def fail(context: Context[Any, Any]) -> str:
    record("fail", context)
    raise RuntimeError("no such order")


@server.tool(structured_output=False)
async def crash(context: Context[Any, Any]) -> str:
    record("crash", context)
    os._exit(3)


@server.tool(structured_output=False)
async def crash_at_first(text: str, context: Context[Any, Any]) -> str:
    """Say the same again, but not to the first call in the journal."""
    assert JOURNAL is not None
    is_first = not JOURNAL.exists()
    record("crash_at_first", context, text=text)
    if is_first:
        os._exit(3)
    return text


@server.tool(structured_output=False)
async def environment(name: Annotated[str, Field(description="Which variable.")]) -> str:
    return os.environ.get(name, "not set")


@server.tool(name="pics.image", structured_output=False)
async def image(context: Context[Any, Any]) -> list[Image | str]:
    record("pics.image", context)
    return [Image(data=b"\x89PNG" * 10, format="png"), "a picture"]


def main(words: Sequence[str]) -> None:
    print("ready, with", os.environ.get("TOKEN", "no token"), file=sys.stderr, flush=True)
    time.sleep(float(os.environ.get("START_SLOWLY", "0")))
    if words[0] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(words[0]))
