"""MCP servers as tools: one client a server and worker, and the table of how their failures read."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack

from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
)
from mcp_types import Tool as ListedTool
from pydantic import TypeAdapter, ValidationError

from mandate.activities.failures import ToolError
from mandate.activities.toolbox.base import CallContext, ResolveSecrets, ToolText
from mandate.activities.toolbox.mcp.message_filter import ANSWER_TOO_LARGE, NOT_CONNECTED
from mandate.activities.toolbox.mcp.result import (
    InputRequired,
    ResultUnusable,
    find_schema_fault,
    format_result,
    read_result,
)
from mandate.activities.toolbox.mcp.session import START_SECONDS, ServerConnection
from mandate.activities.toolbox.mcp.tool_list import (
    McpUnavailable,
    describe_protocol_fault,
    find_size_fault,
    list_tools,
)
from mandate.activities.toolbox.schema import check_schema
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, ErrorMeaning, McpBinding, McpServer, Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

KEY_META = "mandate/idempotency-key"
_REFUSED = (METHOD_NOT_FOUND, INVALID_PARAMS, NOT_CONNECTED)
_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


def decide_outcome(
    answer: CallToolResult | Exception, effect: Effect, error_means: ErrorMeaning | None = None
) -> Outcome:
    """Return the outcome of an attempt by its answer; `error_means` is what the agent file says of errors.

    A tool that says it failed may have acted before, since servers answer so to every exception, a lost reply
    included: for `once` and `keyed` tools that is unknown unless the agent file says otherwise, and the latter are
    asked again under their key. Where repeating does no harm it is taken at its word.
    """
    match answer:
        case CallToolResult(is_error=True) if error_means is not None:
            return Outcome(error_means)
        case CallToolResult(is_error=True):
            return Outcome.UNKNOWN if effect in {Effect.ONCE, Effect.KEYED} else Outcome.NOT_DONE
        case CallToolResult():
            return Outcome.DONE
        case ResultUnusable():
            return Outcome.DONE
        case McpUnavailable():
            return Outcome.NOT_SENT
        case MCPError() if answer.code in _REFUSED:
            return Outcome.NOT_SENT
        case _:
            return Outcome.UNKNOWN


class McpToolbox:
    """Tools with an `McpBinding`. Annotations of servers are claims of strangers: nothing here reads them."""

    def __init__(self, resolve: ResolveSecrets, *, start_seconds: float = START_SECONDS) -> None:
        self._resolve = resolve
        self._start_seconds = start_seconds
        self._servers: dict[bytes, ServerConnection] = {}

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        """Return the tools of a server as the agent file wants them, in the server's order.

        Tools that can only run as MCP tasks are left out.

        Raises:
            McpUnavailable: the server did not start or did not list its tools.
            ValueError: a tool that the entry names does not exist, a schema cannot be used, or two names are one.
        """
        server = McpServer(**entry.mcp.model_dump(exclude_none=True))
        connection = self._connection(server)
        try:
            async with connection.use() as link, asyncio.timeout(self._start_seconds):
                listed = await list_tools(link.session)
        except (MCPError, TimeoutError, ValidationError) as error:
            why = (
                describe_protocol_fault(error)
                if isinstance(error, ValidationError)
                else str(error) or "no answer in time"
            )
            raise McpUnavailable(f"MCP server {server.name!r} did not list its tools: {why}") from None
        connection.note_answer()
        usable = [tool for tool in listed if tool.execution is None or tool.execution.task_support != "required"]
        _check_names(entry, server, [tool.name for tool in usable])
        chosen = [tool for tool in usable if entry.only is None or tool.name in entry.only]
        definitions: list[ToolDefinition] = []
        try:
            async with asyncio.timeout(self._start_seconds):
                for tool in chosen:
                    definitions.append(_definition(entry, server, tool))
                    # Compiling a schema may take a third of a second: others go on in between, signals too.
                    await asyncio.sleep(0)
        except TimeoutError:
            raise McpUnavailable(f"MCP server {server.name!r}: its tools' schemas take too long to read") from None
        return _distinct(server, definitions)

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """Make one attempt; raise as `Toolbox.call`, by `decide_outcome`."""
        binding = definition.binding
        assert isinstance(binding, McpBinding)
        effect = definition.tool.effect
        connection = self._connection(binding.server)
        try:
            answer, fault = await self._send(connection, binding, arguments, effect, context)
        except ResultUnusable as error:
            connection.note_answer()
            return _report_unusable(connection.strike(str(error)), effect)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the outcome is unknown and must be said
            raise ToolError(decide_outcome(error, effect), connection.strike(_reason(error, binding))) from None
        connection.note_answer()
        if fault is not None:
            return _report_unusable(connection.strike(fault), effect)
        text = connection.strike(format_result(answer))
        if decide_outcome(answer, effect, binding.error) is Outcome.UNKNOWN:
            raise ToolError(Outcome.UNKNOWN, f"the tool says that it failed, and may have acted: {text}")
        return ToolText(text, error=answer.is_error)

    async def close(self) -> None:
        """End all connections and child processes."""
        await asyncio.gather(*(connection.close() for connection in self._servers.values()))

    def _connection(self, server: McpServer) -> ServerConnection:
        key = canonical_json(server.model_dump(mode="json"))
        if key not in self._servers:
            self._servers[key] = ServerConnection(server, self._resolve, self._start_seconds)
        return self._servers[key]

    async def _send(
        self,
        connection: ServerConnection,
        binding: McpBinding,
        arguments: JsonObject,
        effect: Effect,
        context: CallContext,
    ) -> tuple[CallToolResult, str | None]:
        """Send the call and return the server's result, and why it cannot be used if so."""
        meta = {KEY_META: context.idempotency_key} if effect.changes_world else None
        params = CallToolRequestParams(name=binding.tool, arguments=arguments, _meta=meta)
        deadline = asyncio.get_running_loop().time() + context.timeout.total_seconds()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    link = await stack.enter_async_context(connection.use())
            except TimeoutError:
                raise McpUnavailable(f"MCP server {binding.server.name!r} did not start in time") from None
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await link.session.send_request(CallToolRequest(params=params), _ANSWER)
            except MCPError as error:
                if error.code == ANSWER_TOO_LARGE:
                    raise ResultUnusable(error.message) from None
                # How a server says that it forgot the session differs (400, 404, several codes): a new one cures all.
                if binding.server.url is not None and error.code not in _REFUSED:
                    connection.retire(link)
                raise
            result = read_result(answer)
            listed = link.tools.get(binding.tool)
            return result, find_schema_fault(result, None if listed is None else listed.output_schema)


def _report_unusable(why: str, effect: Effect) -> ToolText:
    """Return the failure for a call that was done, and whose result cannot be told."""
    done = "it was done, but" if effect.changes_world else "but"
    sentence = f"The call was answered; {done} its result cannot be used: {why}"
    return ToolText(sentence, error=not effect.changes_world, is_lost=effect.changes_world)


def _reason(error: Exception, binding: McpBinding) -> str:
    server = binding.server.name
    match error:
        case McpUnavailable():
            return str(error)
        case MCPError() if error.code == NOT_CONNECTED:
            return f"MCP server {server!r} cannot be reached"
        case MCPError() if error.code == CONNECTION_CLOSED:
            return f"MCP server {server!r} ended or was cut off during the call"
        case MCPError():
            return f"MCP server {server!r} refused the call: {error.message} ({error.code})"
        case TimeoutError():
            return f"MCP server {server!r} did not answer in time"
        case InputRequired():
            return f"MCP server {server!r} asks for input that this client cannot give"
        case ValidationError():
            return f"MCP server {server!r}: {describe_protocol_fault(error)}"
        case _:
            return f"MCP server {server!r}: the call failed ({type(error).__name__})"


def _check_names(entry: McpTools, server: McpServer, offered: Sequence[str]) -> None:
    settings = (("only", entry.only or ()), ("effects", tuple(entry.effects)), ("errors", tuple(entry.errors)))
    for key, names in settings:
        for name in names:
            if name not in offered:
                has = ", ".join(sorted(offered)) or "no tools"
                raise ValueError(f"{key}: MCP server {server.name!r} has no tool {name!r}; it has: {has}")


def _definition(entry: McpTools, server: McpServer, listed: ListedTool) -> ToolDefinition:
    try:
        if (fault := find_size_fault(listed)) is not None:
            raise ValueError(fault)
        check_schema(listed.input_schema)
    except ValueError as error:
        raise ValueError(f"MCP server {server.name!r}, tool {listed.name!r}: {error}") from None
    settings: dict[str, object] = {
        name: value
        for name in ("timeout", "retries", "tags", "risk", "sensitive")
        if (value := getattr(entry, name)) is not None
    }
    effect = entry.effects.get(listed.name) or entry.effect or Effect.ONCE
    failing = entry.errors.get(listed.name) or entry.error
    tool = Tool(
        name=_model_name(listed.name),
        source="mcp",
        effect=effect,
        key_valid=entry.key_valid if effect is Effect.KEYED else None,
        untrusted=entry.untrusted is not False,
        **settings,
    )
    limit = {} if entry.result_limit is None else {"result_limit_bytes": entry.result_limit}
    return ToolDefinition(
        tool=tool,
        description=listed.description or listed.title or "",
        input_schema=listed.input_schema,
        binding=McpBinding(kind="mcp", server=server, tool=listed.name, claims=_claims(listed), error=failing),
        **limit,
    )


def _claims(listed: ListedTool) -> tuple[str, ...]:
    hints = listed.annotations
    if hints is None:
        return ()
    hinted = (("only reads", hints.read_only_hint), ("idempotent", hints.idempotent_hint))
    return tuple(words for words, claimed in (*hinted, ("destructive", hints.destructive_hint)) if claimed)


def _model_name(name: str) -> str:
    """Return `name` in the characters that every model provider accepts."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    return (plain if plain[:1].isalpha() else f"t_{plain}")[:64]


def _distinct(server: McpServer, definitions: Sequence[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    seen: dict[str, str] = {}
    for definition in definitions:
        assert isinstance(definition.binding, McpBinding)
        own, name = definition.binding.tool, definition.tool.name
        if name in seen:
            raise ValueError(
                f"MCP server {server.name!r}: tools {seen[name]!r} and {own!r} would both be called {name!r}; "
                "take one of them with 'only'"
            )
        seen[name] = own
    return tuple(definitions)
