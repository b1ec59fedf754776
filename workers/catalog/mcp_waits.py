"""MCP servers that keep somebody waiting."""

import asyncio
from collections.abc import Callable

from mandate.workers.catalog.tools import McpDefinitions
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

PATIENCE_SECONDS = 2.0


class AnnouncedWaits:
    """`mcp`, and one line to `tell` when its servers take longer than `PATIENCE_SECONDS`."""

    def __init__(self, mcp: McpDefinitions, tell: Callable[[str], None]) -> None:
        self._mcp = mcp
        self._tell = tell
        self._waiting: list[str] = []
        self._told = False

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        """See `McpDefinitions.definitions`."""
        self._waiting.append(entry.mcp.name)
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._announce)
        try:
            return await self._mcp.definitions(entry)
        finally:
            timer.cancel()
            self._waiting.remove(entry.mcp.name)

    def _announce(self) -> None:
        if not self._told:
            self._told = True
            self._tell(f"waiting for MCP servers: {', '.join(sorted(set(self._waiting)))}")
