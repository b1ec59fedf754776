"""The shop's return rules as an MCP server over stdio: `python -m mandate.workers.examples.shop_rules_server`.

It has two tools of the filesystem MCP server, with the same names, arguments and answers, so that either serves an
agent file: this one where there is no Node, that one with the folder `workers/examples/shop_rules`.
"""

from pathlib import Path
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

RULES = Path(__file__).parent / "shop_rules"

server = MCPServer("shop-rules", log_level="WARNING")
_READS = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=_READS, structured_output=False)
def list_directory(path: Annotated[str, Field(description="`.`: the folder with the shop's return rules.")]) -> str:
    """List the files of a folder, one a line, each after `[FILE]`."""
    if path.strip("/") not in {"", "."}:
        raise ToolError(f"there is no folder {path!r}; the only one is '.'")
    return "\n".join(f"[FILE] {file.name}" for file in sorted(RULES.glob("*.md")))


@server.tool(annotations=_READS, structured_output=False)
def read_text_file(path: Annotated[str, Field(description="A file as `list_directory` names it.")]) -> str:
    """Read one file as text."""
    files = {file.name: file for file in sorted(RULES.glob("*.md"))}
    file = files.get(path.removeprefix("./"))
    if file is None:
        raise ToolError(f"there is no file {path!r}; there are {', '.join(files)}")
    return file.read_text(encoding="utf-8")


if __name__ == "__main__":
    server.run("stdio")
