"""The tools of an agent: entries of `tools` in its file as tools in full, and all that is wrong with them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, assert_never

from mandate.activities.documents import Document, Fault
from mandate.activities.toolbox import decorator
from mandate.activities.toolbox.base import OfferedTools
from mandate.activities.toolbox.closed_schemas import close_schema, open_schema
from mandate.activities.toolbox.schema import check_schema
from mandate.activities.toolbox.schema_types import find_numeric
from mandate.workers.catalog import children, mcp_acceptance
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import Place
from mandate.workflows.contracts.tool import (
    ActivityBinding,
    Effect,
    HttpBinding,
    RemoteActivity,
    Tool,
    ToolDefinition,
    ToolSource,
)
from mandate.workflows.contracts.tool_entry import (
    ActivityTool,
    AgentTool,
    HttpTool,
    McpTools,
    NamedToolSettings,
    PythonTool,
    ToolEntry,
)
from mandate.workflows.rules.names import is_sensitive

PATIENCE_SECONDS = 2.0
"""Longest wait for MCP servers of which nothing is said."""


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
        case AgentTool():
            return "agent"
    assert_never(entry)


async def definitions(
    entry: ToolEntry, mcp: McpDefinitions, agents: Mapping[str, AgentSpec] = MappingProxyType({})
) -> tuple[ToolDefinition, ...]:
    """Return the tools of one entry; their schemas are not checked yet. `agents` are those that it may name.

    Raises:
        ValueError: a function that cannot be a tool, an unknown agent, or whatever `mcp` says; one sentence.
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
        case AgentTool():
            return (children.define_tool(entry, agents),)
    assert_never(entry)


def secret_texts(entry: ToolEntry) -> Iterator[tuple[Place, str]]:
    """Find the texts of `entry` that may name secrets, each with its place in the entry."""
    mappings: dict[Place, Mapping[str, str]] = {}
    if isinstance(entry, McpTools):
        mappings = {("mcp", "env"): entry.mcp.env, ("mcp", "headers"): entry.mcp.headers}
    elif isinstance(entry, HttpTool):
        mappings = {("headers",): entry.headers}
    for place, texts in mappings.items():
        yield from (((*place, key), text) for key, text in texts.items())


class ToolResolver:
    """The tools of one agent, once they have been looked for, and all that is wrong with them."""

    def __init__(self, document: Document, entries: Sequence[ToolEntry], secrets: Secrets) -> None:
        self.tools: list[ToolDefinition] = []
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        """Tools that an MCP server lists and that cannot be used."""
        self.entry_of: dict[str, int] = {}
        """Position of the entry that a tool is from; built-in tools have none."""
        self._document = document
        self._entries = entries
        self._secrets = secrets

    async def run(
        self,
        mcp: McpDefinitions,
        builtins: tuple[ToolDefinition, ...],
        output_schema: JsonObject | None,
        agents: Mapping[str, AgentSpec] = MappingProxyType({}),
    ) -> None:
        """Ask for all entries at the same time; `builtins` come last, and no other tool may have their names."""
        found = await asyncio.gather(
            *(self._find(index, entry, mcp, agents) for index, entry in enumerate(self._entries))
        )
        self._compare(found, dict.fromkeys((made.tool.name for made in builtins), "a built-in tool"))
        self.tools = [self._finish(made) for made in (*self.tools, *builtins)]
        if output_schema is not None:
            self._check(("output_schema",), output_schema)

    async def _find(
        self, index: int, entry: ToolEntry, mcp: McpDefinitions, agents: Mapping[str, AgentSpec]
    ) -> tuple[ToolDefinition, ...]:
        # A server is started with all that it needs, or not at all.
        if self._lacks_secrets(index, entry) and isinstance(entry, McpTools):
            return ()
        try:
            found = tuple(map(_repair_description, await definitions(entry, mcp, agents)))
        except ValueError as error:
            self._fault(("tools", index, source_of(entry)), str(error))
            return ()
        if isinstance(found, OfferedTools):
            of = ("tools", index, "mcp")
            self.warnings += [self._document.fault(of, f"{why}; it is left out") for why in found.left_out]
        own = ("input_schema",) if getattr(entry, "input_schema", None) is not None else ()
        sound = [
            self._check(("tools", index, *own), made.input_schema, "" if own else f"{made.tool.name}: ")
            for made in found
        ]
        if isinstance(entry, McpTools) and all(sound):
            why = mcp_acceptance.fault(entry, found, self._document.file)
            if why is not None:
                self._fault(("tools", index, "accepted"), why)
        return found

    def _lacks_secrets(self, index: int, entry: ToolEntry) -> bool:
        missing = [(place, name) for place, text in secret_texts(entry) for name in self._secrets.missing([text])]
        for place, name in missing:
            self._fault(("tools", index, *place), self._secrets.explain(name))
        return bool(missing)

    def _compare(self, found: Sequence[tuple[ToolDefinition, ...]], taken: dict[str, str]) -> None:
        """Keep the tools, and tell which names are taken: `taken` says by whom."""
        for index, tools in enumerate(found):
            way = "choose tools by 'only'" if isinstance(self._entries[index], McpTools) else "set another 'name'"
            for made in tools:
                name = made.tool.name
                if name in taken:
                    self._fault(("tools", index), f"the name {name!r} is taken by {taken[name]}; {way}")
                taken.setdefault(name, f"tools[{index}]")
                self.tools.append(made)
                self.entry_of.setdefault(name, index)

    def _finish(self, made: ToolDefinition) -> ToolDefinition:
        """Close the schema of a tool where nothing opens it, and note the arguments of which runs keep sums.

        The schema is the one that the model is told, calls are checked against and conditions have their types from.
        """
        if self.faults:
            return made
        index = self.entry_of.get(made.tool.name)
        schema, entry = made.input_schema, None if index is None else self._entries[index]
        try:
            if isinstance(entry, McpTools) and entry.additional_arguments == "allow":
                schema = open_schema(schema)
            else:
                schema = close_schema(schema, only_file_opens=isinstance(entry, McpTools))
        except ValueError as error:
            self._fault(("tools", self.entry_of[made.tool.name]), f"{made.tool.name}: {error}")
        # The workflow has no value of what is sensitive, and a sum would tell it.
        numeric = [name for name in find_numeric(schema) if not is_sensitive(name, made.tool.sensitive)]
        tool = made.tool.model_copy(update={"numeric": tuple(numeric)})
        return made.model_copy(update={"tool": tool, "input_schema": schema})

    def _check(self, place: Place, schema: JsonObject, of: str = "") -> bool:
        try:
            check_schema(schema)
        except ValueError as error:
            self._fault(place, f"{of}{error}")
            return False
        return True

    def _fault(self, place: Place, message: str) -> None:
        self.faults.append(self._document.fault(place, message))


class AnnouncedWaits:
    """Source of tools that tells in one line when servers take longer than `PATIENCE_SECONDS`."""

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


def _repair_description(made: ToolDefinition) -> ToolDefinition:
    """Return a tool whose description any encoding can carry: half of a surrogate pair, which is no text, is `?`."""
    description = made.description.encode(errors="replace").decode()
    return made if description == made.description else made.model_copy(update={"description": description})


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
        kind="http",
        method=entry.http.method,
        url=entry.http.url,
        headers=entry.headers,
        query=entry.query,
        body=entry.body,
    )
    return _limited(
        entry,
        ToolDefinition(
            tool=_tool(entry, entry.name, "http"),
            description=entry.description or "",
            input_schema=entry.input_schema,
            binding=binding,
            cache=entry.cache,
        ),
    )


def _tool(entry: NamedToolSettings, name: str, source: ToolSource) -> Tool:
    """Return the settings of the entry, the defaults of `Tool` for the rest."""
    its = {
        "timeout": entry.timeout,
        "retries": entry.retries,
        "patience": entry.patience,
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
