"""Entries of `tools` in an agent file as tools in full."""

from collections.abc import Iterator
from typing import Protocol, assert_never

from activities.documents import Place
from activities.toolbox import registry
from workflows.contracts.tool import (
    ActivityBinding,
    Effect,
    HttpBinding,
    RemoteActivity,
    Tool,
    ToolDefinition,
    ToolSource,
)
from workflows.contracts.tool_entry import ActivityTool, HttpTool, McpTools, NamedToolSettings, PythonTool, ToolEntry


class McpDefinitions(Protocol):
    """Asks MCP servers for their tools."""

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        """Raises an exception that says in one sentence what is wrong with the server or with the entry."""
        ...


def source_of(entry: ToolEntry) -> ToolSource:
    """The key of the file that says where the tools of `entry` come from."""
    match entry:
        case PythonTool():
            return "python"
        case McpTools():
            return "mcp"
        case ActivityTool():
            return "activity"
        case HttpTool():
            return "http"
    assert_never(entry)


async def definitions(entry: ToolEntry, mcp: McpDefinitions) -> tuple[ToolDefinition, ...]:
    """The tools of one entry; their schemas are not checked yet.

    Raises:
        ValueError: a function that cannot be a tool, or whatever `mcp` says; one sentence.
    """
    match entry:
        case PythonTool():
            return (registry.definition(registry.load_function(entry.python), entry),)
        case McpTools():
            try:
                return await mcp.definitions(entry)
            except Exception as error:  # noqa: BLE001 - whatever a server does, the fault names its entry
                raise ValueError(str(error) or type(error).__name__) from None
        case ActivityTool():
            return (_activity(entry),)
        case HttpTool():
            return (_http(entry),)
    assert_never(entry)


def secret_texts(entry: ToolEntry) -> Iterator[tuple[Place, str]]:
    """The texts of `entry` that may name secrets, each with its place in the entry."""
    match entry:
        case McpTools(mcp=server):
            yield from ((("mcp", "env", key), text) for key, text in server.env.items())
            yield from ((("mcp", "headers", key), text) for key, text in server.headers.items())
        case HttpTool():
            yield from ((("headers", key), text) for key, text in entry.headers.items())


def _activity(entry: ActivityTool) -> ToolDefinition:
    remote = RemoteActivity(
        name=entry.activity.name,
        task_queue=entry.activity.task_queue,
        arguments=entry.arguments,
        failed_types=entry.failed_types,
    )
    tool = _tool(entry, entry.name or entry.activity.name, "activity").model_copy(update={"remote": remote})
    return _limited(
        entry,
        ToolDefinition(
            tool=tool,
            description=entry.description or "",
            input_schema=entry.input_schema,
            binding=ActivityBinding(kind="activity", activity=remote),
        ),
    )


def _http(entry: HttpTool) -> ToolDefinition:
    binding = HttpBinding(
        kind="http", method=entry.http.method, url=entry.http.url, headers=entry.headers, query=entry.query
    )
    return _limited(
        entry,
        ToolDefinition(
            tool=_tool(entry, entry.name, "http"),
            description=entry.description or "",
            input_schema=entry.input_schema,
            binding=binding,
        ),
    )


def _tool(entry: NamedToolSettings, name: str, source: ToolSource) -> Tool:
    """What the entry sets, the defaults of `Tool` for the rest."""
    its = {
        "timeout": entry.timeout,
        "retries": entry.retries,
        "tags": entry.tags,
        "untrusted": entry.untrusted,
        "sensitive": entry.sensitive,
    }
    return Tool.model_validate(
        {"name": name, "source": source, "effect": entry.effect or Effect.ONCE}
        | {key: value for key, value in its.items() if value is not None}
    )


def _limited(entry: NamedToolSettings, made: ToolDefinition) -> ToolDefinition:
    if entry.result_limit is None:
        return made
    return made.model_copy(update={"result_limit_bytes": entry.result_limit})
