"""Entries of `tools` in an agent file as tools in full."""

import sys
from collections.abc import Iterator, Mapping
from typing import Protocol, assert_never

from mandate.activities.documents import Place
from mandate.activities.toolbox import decorator
from mandate.activities.toolbox.signature import Function
from mandate.workers.catalog.agent_parts import FaultyEntry, without_blanks
from mandate.workflows.contracts.tool import (
    ActivityBinding,
    Effect,
    HttpBinding,
    RemoteActivity,
    Tool,
    ToolDefinition,
    ToolSource,
)
from mandate.workflows.contracts.tool_checks import is_name
from mandate.workflows.contracts.tool_entry import (
    ActivityTool,
    HttpTool,
    McpTools,
    NamedToolSettings,
    PythonTool,
    ToolEntry,
    find_entry_name,
)
from pydantic import ValidationError
from pydantic_core import to_json


class McpDefinitions(Protocol):
    """Source of the tools of MCP servers."""

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        """Return the tools of a server; raise an exception that says in one sentence what is wrong."""
        ...


def source_of(entry: ToolEntry) -> ToolSource:
    """Return the key of the file that says where the tools of `entry` come from."""
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
    """Return the tools of one entry; their schemas are not checked yet.

    Raises:
        ValueError: a function that cannot be a tool, or whatever `mcp` says; one sentence.
    """
    match entry:
        case PythonTool():
            return (decorator.define_tool(decorator.load_function(entry.python), entry),)
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


def reasons(entry: ToolEntry, error: ValueError) -> tuple[str, ...]:
    """Return why there are no tools of `entry`: `error`, and what a Python function would be refused for next."""
    function = _function(entry)
    if not isinstance(entry, PythonTool) or function is None:
        return (str(error),)
    sensitive = _settings(function).sensitive if entry.sensitive is None else entry.sensitive
    found = [str(error)]
    for arguments in ((), *((argument,) for argument in sensitive)):
        try:
            decorator.define_tool(function, entry.model_copy(update={"sensitive": arguments}))
        except decorator.InvalidTool as another:
            found.append(str(another))
    return tuple(dict.fromkeys(found))


def name_of(entry: ToolEntry) -> str | None:
    """Return the name of the tool of `entry`, as far as one is known although there is no tool."""
    function = _function(entry)
    if find_entry_name(entry) is not None or function is None:
        return find_entry_name(entry)
    name = _settings(function).name or getattr(function, "__name__", None)
    return name if is_name(name) else None


def _function(entry: ToolEntry) -> Function | None:
    """Return the function of a Python tool; a module that does not import is not tried again."""
    if not isinstance(entry, PythonTool) or entry.python.partition(":")[0] not in sys.modules:
        return None
    try:
        return decorator.load_function(entry.python)
    except decorator.InvalidTool:
        return None


def _settings(function: Function) -> decorator.ToolSettings:
    return decorator.find_settings(function) or decorator.ToolSettings()


def readable_python(entry: FaultyEntry) -> PythonTool | None:
    """Return `entry` without the settings that cannot be read, if it is a Python tool and says which."""
    known = {key: value for key, value in entry.items() if key in PythonTool.model_fields}
    try:
        return PythonTool.model_validate_json(to_json(without_blanks(known)), strict=True)
    except ValidationError:
        return None


def secret_texts(entry: ToolEntry | FaultyEntry) -> Iterator[tuple[Place, str]]:
    """Yield the texts of `entry` that may name secrets, each with its place; unreadable ones are left out."""
    keys = entry if isinstance(entry, Mapping) else entry.model_dump()
    for place in (("mcp", "env"), ("mcp", "headers")) if "mcp" in keys else (("headers",),):
        found: object = keys
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        texts = found if isinstance(found, Mapping) else {}
        yield from (((*place, key), text) for key, text in texts.items() if isinstance(text, str))


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
    """Return the settings of the entry, the defaults of `Tool` for the rest."""
    its = {
        "timeout": entry.timeout,
        "retries": entry.retries,
        "key_valid": entry.key_valid,
        "tags": entry.tags,
        "risk": entry.risk,
        # What an address answers with is foreign until somebody says otherwise.
        "untrusted": source == "http" if entry.untrusted is None else entry.untrusted,
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
