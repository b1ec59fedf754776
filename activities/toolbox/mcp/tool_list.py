"""The list of a server's tools, and how much of it is taken."""

from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND, PaginatedRequestParams
from mcp_types import Tool as ListedTool

from mandate.activities.toolbox.base import MAX_BYTES
from mandate.activities.toolbox.mcp import tool_entries
from mandate.activities.toolbox.mcp.message_filter import ANSWER_TOO_LARGE, MAX_TOOLS

MAX_PAGES = 200
MAX_NAME = 128
"""Characters of a tool's name, as the protocol has it."""
MAX_DESCRIPTION = 32 * 1024
"""Characters of a tool's description."""
MAX_SCHEMA = 256 * 1024
"""Bytes of a tool's schema."""


class McpUnavailable(Exception):
    """The server could not be started or reached: nothing was sent to it."""

    def __init__(self, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds after which it wants to be asked again."""


async def list_tools(session: ClientSession) -> list[ListedTool]:
    """Return all tools, page by page; none for a server that offers no tools.

    Raises:
        MCPError: the server refused or the connection ended.
        McpUnavailable: the list has no end, or more than is taken.
    """
    tools: list[ListedTool] = []
    cursor: str | None = None
    size = 0
    for _ in range(MAX_PAGES):
        try:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND and cursor is None:
                return []
            if error.code == ANSWER_TOO_LARGE:
                raise McpUnavailable(f"the list of tools cannot be taken: {error.message}") from None
            raise
        tools += page.tools
        size += sum(len(tool.model_dump_json()) for tool in page.tools)
        if len(tools) > MAX_TOOLS:
            raise McpUnavailable(f"the list has more than {MAX_TOOLS:,} tools")
        if size > MAX_BYTES:
            raise McpUnavailable(f"the list of tools is larger than {MAX_BYTES:,} bytes")
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise McpUnavailable(f"the list of tools has more than {MAX_PAGES} pages")


def find_tool_fault(listed: ListedTool) -> str | None:
    """Return why a tool is not of the protocol's shape or too large; its schema's cost is another matter."""
    if (fault := tool_entries.find_fault(listed)) is not None:
        return fault
    if len(listed.name) > MAX_NAME:
        return f"its name has {len(listed.name):,} characters; at most {MAX_NAME} are allowed"
    description = len(listed.description or listed.title or "")
    if description > MAX_DESCRIPTION:
        return f"its description has {description:,} characters; at most {MAX_DESCRIPTION:,} are allowed"
    schema = len(listed.model_dump_json(include={"input_schema"}))
    if schema > MAX_SCHEMA:
        return f"its schema has {schema:,} bytes; at most {MAX_SCHEMA:,} are allowed"
    return None
