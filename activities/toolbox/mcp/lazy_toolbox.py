"""MCP servers for workers that may have none: the MCP SDK is imported when the first is named."""

import asyncio
from typing import TYPE_CHECKING

from mandate.activities.toolbox.base import CallContext, ResolveSecrets, ToolText
from mandate.activities.toolbox.mcp.client_sdk import deferred_packages
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

if TYPE_CHECKING:
    from mandate.activities.toolbox.mcp.toolbox import McpToolbox


class LazyMcpToolbox:
    """`McpToolbox`, made at its first use; its import takes a second, in a thread."""

    def __init__(self, resolve: ResolveSecrets) -> None:
        self._resolve = resolve
        self._making: asyncio.Task[McpToolbox] | None = None

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        """See `McpToolbox.definitions`."""
        return await (await self._load()).definitions(entry)

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """See `McpToolbox.call`."""
        return await (await self._load()).call(definition, arguments, context)

    async def close(self) -> None:
        if self._making is not None:
            await (await self._making).close()

    async def _load(self) -> "McpToolbox":
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        return await asyncio.shield(self._making)

    async def _make(self) -> "McpToolbox":
        return await asyncio.to_thread(_import, self._resolve)


def _import(resolve: ResolveSecrets) -> "McpToolbox":
    with deferred_packages():
        from mandate.activities.toolbox.mcp.toolbox import McpToolbox  # noqa: PLC0415 - the SDK takes long

    return McpToolbox(resolve)
