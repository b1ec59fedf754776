"""A stdio MCP server over the fault server: `faults`.

It says that a call failed (`isError`) only when it knows that nothing was done; when it does not know, it answers with
an internal error. With `MANDATE_TEST_NAIVE` set it lets every exception become `isError`, as the SDK does.
"""

import asyncio
import http.client
import os
from collections.abc import Sequence
from typing import Any

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import INTERNAL_ERROR

from tests.support import fault_client
from tests.support.mcp_peer.keys import sent_key

server = MCPServer("faults")


async def _call(name: str, task: str, item: str, context: Context[Any, Any]) -> str:
    try:
        return await asyncio.to_thread(fault_client.call, name, task, item, sent_key(context))
    except fault_client.Busy as busy:
        raise ToolError(str(busy)) from None
    except (OSError, http.client.HTTPException) as error:
        if os.environ.get(fault_client.NAIVE):
            raise
        raise MCPError(INTERNAL_ERROR, f"it is not known whether it was done: {error!r}") from None


@server.tool(structured_output=False)
async def look_mcp(task: str, item: str, context: Context[Any, Any]) -> str:
    """Look something up."""
    return await _call("look_mcp", task, item, context)


@server.tool(structured_output=False)
async def set_mcp(task: str, item: str, context: Context[Any, Any]) -> str:
    """Set something."""
    return await _call("set_mcp", task, item, context)


@server.tool(structured_output=False)
async def pay_mcp(task: str, item: str, context: Context[Any, Any]) -> str:
    """Pay something."""
    return await _call("pay_mcp", task, item, context)


@server.tool(structured_output=False)
async def send_mcp(task: str, item: str, context: Context[Any, Any]) -> str:
    """Send something."""
    return await _call("send_mcp", task, item, context)


def main(_: Sequence[str]) -> None:
    server.run("stdio")
