"""MCP servers as tools: one client a server and worker, and the table of how their failures read."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    URL_ELICITATION_REQUIRED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types import Tool as ListedTool
from pydantic import TypeAdapter, ValidationError

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import AsksPeople, CallContext, OfferedTools, ResolveSecrets, ToolText
from mandate.activities.toolbox.mcp.causes import find_cause
from mandate.activities.toolbox.mcp.definitions import Definitions
from mandate.activities.toolbox.mcp.elicitation import CannotAsk
from mandate.activities.toolbox.mcp.http_refusal import SERVER_FAILED, SESSION_GONE, TURNED_AWAY, find_wait
from mandate.activities.toolbox.mcp.json_message import OWN_SERVER_ERROR
from mandate.activities.toolbox.mcp.message_filter import ANSWER_TOO_LARGE, NOT_CONNECTED
from mandate.activities.toolbox.mcp.result import (
    EMPTY,
    ResultUnusable,
    find_schema_fault,
    format_result,
    read_result,
)
from mandate.activities.toolbox.mcp.rounds import Answered, Rounds
from mandate.activities.toolbox.mcp.session import START_SECONDS, Link, ServerConnection
from mandate.activities.toolbox.mcp.tool_entries import describe_protocol_fault
from mandate.activities.toolbox.mcp.tool_list import McpUnavailable, list_tools
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, ErrorMeaning, McpBinding, McpServer, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

KEY_META = "mandate/idempotency-key"
_LASTING = (METHOD_NOT_FOUND, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, URL_ELICITATION_REQUIRED)
"""Refusals of the server itself that another attempt would meet again."""
_REFUSED = (*_LASTING, NOT_CONNECTED)
_CLOSE_TO_THE_END_SECONDS = 1.0
NO_REASON = "(the tool says that it failed, and gives no reason)"
_T = TypeVar("_T")
_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


def decide_outcome(
    answer: CallToolResult | BaseException, effect: Effect, error_means: ErrorMeaning | None = None
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
        case MCPError() if answer.code in (*_REFUSED, SESSION_GONE, TURNED_AWAY):
            return Outcome.NOT_SENT
        case _:
            return Outcome.UNKNOWN


class McpToolbox:
    """Tools with an `McpBinding`. Annotations of servers are claims of strangers: nothing here reads them."""

    def __init__(self, resolve: ResolveSecrets, *, start_seconds: float = START_SECONDS) -> None:
        self._resolve = resolve
        self._start_seconds = start_seconds
        self._servers: dict[bytes, ServerConnection] = {}

    async def definitions(self, entry: McpTools) -> OfferedTools:
        """Return the tools of a server as the agent file wants them, in the server's order.

        Tools that can only run as MCP tasks are left out, and those that are broken, which the answer names.

        Raises:
            McpUnavailable: the server did not start or did not list its tools.
            ValueError: a tool that the entry names does not exist or is broken, all are, or two names are one.
        """
        settings = entry.mcp.model_dump(exclude_none=True)
        server = McpServer(**settings | ({} if entry.start is None else {"start": entry.start}))
        connection = self._connection(server)
        found = Definitions(entry, server, await self._list(connection))
        try:
            async with asyncio.timeout(connection.start_seconds):
                for tool in found.chosen:
                    found.add(tool)
                    # Compiling a schema may take a third of a second: others go on in between, signals too.
                    await asyncio.sleep(0)
        except TimeoutError:
            raise McpUnavailable(f"MCP server {server.name!r}: its tools' schemas take too long to read") from None
        return found.finish()

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """Make one attempt; raise as `Toolbox.call`, by `decide_outcome`."""
        binding = definition.binding
        assert isinstance(binding, McpBinding)
        effect = definition.tool.effect
        connection = self._connection(binding.server)
        try:
            answer, fault = await self._send(connection, definition, arguments, context)
        except AsksPeople:
            connection.note_answer()
            raise
        except ResultUnusable as error:
            connection.note_answer()
            return _report_unusable(connection.strike(str(error)), effect)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the outcome is unknown and must be said
            raise _tool_error(find_cause(error), effect, connection, binding) from None
        connection.note_answer()
        if fault is not None:
            return _report_unusable(connection.strike(fault), effect)
        text = connection.strike(format_result(answer)) or (NO_REASON if answer.is_error else EMPTY)
        if decide_outcome(answer, effect, _meaning_of_error(binding, context)) is Outcome.UNKNOWN:
            raise ToolError(Outcome.UNKNOWN, f"the tool says that it failed, and may have acted: {text}")
        return ToolText(text, error=answer.is_error)

    async def close(self) -> None:
        """End all connections and child processes."""
        await asyncio.gather(*(connection.close() for connection in self._servers.values()))

    def _connection(self, server: McpServer) -> ServerConnection:
        key = canonical_json(server.without_start().model_dump(mode="json"))
        if key not in self._servers:
            self._servers[key] = ServerConnection(server, self._resolve)
        connection = self._servers[key]
        connection.start_seconds = self._start_seconds if server.start is None else server.start.total_seconds()
        return connection

    async def _list(self, connection: ServerConnection) -> list[ListedTool]:
        try:
            listed = await _in_a_session(lambda: self._list_once(connection))
        except (MCPError, TimeoutError, ValidationError) as error:
            why = (
                describe_protocol_fault(error)
                if isinstance(error, ValidationError)
                else str(error) or "no answer in time"
            )
            why = connection.strike(why)
            raise McpUnavailable(f"MCP server {connection.name!r} did not list its tools: {why}") from None
        connection.note_answer()
        return listed

    async def _list_once(self, connection: ServerConnection) -> list[ListedTool]:
        async with connection.use() as link:
            try:
                async with asyncio.timeout(connection.start_seconds):
                    return await list_tools(link.session)
            except (MCPError, TimeoutError):
                connection.retire(link)
                raise

    async def _send(
        self,
        connection: ServerConnection,
        definition: ToolDefinition,
        arguments: JsonObject,
        context: CallContext,
    ) -> Answered:
        """Send the call and return the server's result, and why it cannot be used if so."""
        binding, effect = definition.binding, definition.tool.effect
        assert isinstance(binding, McpBinding)
        tool = binding.tool
        meta = {KEY_META: context.idempotency_key} if effect.changes_world else None
        deadline = asyncio.get_running_loop().time() + context.timeout.total_seconds()

        async def send(responses: Mapping[str, JsonObject], state: str | None) -> Answered:
            given = {key: ElicitResult.model_validate(response) for key, response in responses.items()}
            params = CallToolRequestParams(
                name=tool, arguments=arguments, _meta=meta, input_responses=given or None, request_state=state
            )
            # A session that the server forgot has not taken the call.
            return await _in_a_session(lambda: self._send_once(connection, params, deadline))

        asked = _outcome_of_question(binding, effect)
        rounds = Rounds(connection.name, definition.tool.sensitive, asked=asked, strike=connection.strike)
        return await rounds.run(send, context.dialogue)

    async def _send_once(
        self, connection: ServerConnection, params: CallToolRequestParams, deadline: float
    ) -> Answered:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    link = await stack.enter_async_context(connection.use())
            except TimeoutError:
                raise McpUnavailable(f"MCP server {connection.name!r} did not start in time") from None
            answer = await _ask(connection, link, params, deadline)
            result = read_result(answer)
            listed = link.tools.get(params.name)
            return result, find_schema_fault(result, None if listed is None else listed.output_schema)


async def _ask(
    connection: ServerConnection, link: Link, params: CallToolRequestParams, deadline: float
) -> CallToolResult | InputRequiredResult:
    try:
        async with asyncio.timeout_at(deadline):
            return await link.session.send_request(CallToolRequest(params=params), _ANSWER)
    except TimeoutError:
        # It may hang for good: the next call finds another process, or another session.
        connection.retire(link)
        raise TimeoutError(link.messages.last_noise or "") from None
    except asyncio.CancelledError:
        # Temporal gives an attempt as much time as the tool has, and may come first.
        if deadline - asyncio.get_running_loop().time() < _CLOSE_TO_THE_END_SECONDS:
            connection.retire(link)
        raise
    except MCPError as error:
        if error.code == ANSWER_TOO_LARGE:
            raise ResultUnusable(error.message) from None
        # How a server says that it forgot the session differs (several codes): a new one cures all.
        if connection.is_remote and error.code not in (*_REFUSED, TURNED_AWAY):
            connection.retire(link)
        raise


async def _in_a_session(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do `work`, and once more when the server says that it does not know the session any more."""
    try:
        return await work()
    except MCPError as error:
        if error.code != SESSION_GONE:
            raise
    return await work()


def _meaning_of_error(binding: McpBinding, context: CallContext) -> ErrorMeaning | None:
    """Return what it means that the tool failed: not done, if people refused what it must know before it acts."""
    responses = context.dialogue.responses.values() if context.dialogue is not None else ()
    was_refused = any(response.get("action") != "accept" for response in responses)
    return "not_done" if binding.asks_before_acting and was_refused else binding.error


def _outcome_of_question(binding: McpBinding, effect: Effect) -> Outcome:
    """Return what is known of a call whose server asks: it may have acted before, which only `once` cannot bear."""
    return Outcome.NOT_DONE if binding.asks_before_acting or effect is not Effect.ONCE else Outcome.UNKNOWN


def _tool_error(error: BaseException, effect: Effect, connection: ServerConnection, binding: McpBinding) -> ToolError:
    if isinstance(error, CannotAsk):
        outcome = Outcome.NOT_DONE if error.is_lacking else _outcome_of_question(binding, effect)
        return ToolError(outcome, connection.strike(_reason(error, binding)), lasting=True)
    wait = error.retry_after if isinstance(error, McpUnavailable) else find_wait(error)
    is_lasting = isinstance(error, MCPError) and (
        error.code in _LASTING or (error.code == TURNED_AWAY and wait is None)
    )
    reason = connection.strike(_reason(error, binding))
    return ToolError(decide_outcome(error, effect), reason, retry_after=wait, lasting=is_lasting)


def _report_unusable(why: str, effect: Effect) -> ToolText:
    """Return the failure for a call that was done, and whose result cannot be told."""
    done = "it was done, but" if effect.changes_world else "but"
    sentence = f"The call was answered; {done} its result cannot be used: {why}"
    return ToolText(sentence, error=not effect.changes_world, is_lost=effect.changes_world)


def _reason(error: BaseException, binding: McpBinding) -> str:
    server = binding.server.name
    match error:
        case McpUnavailable():
            return str(error)
        case MCPError():
            return f"MCP server {server!r} {_describe(error)}"
        case TimeoutError():
            noise = f"; its stdout must have messages of the protocol alone, and has: {error}" if str(error) else ""
            return f"MCP server {server!r} did not answer in time{noise}"
        case CannotAsk():
            return f"MCP server {server!r} {error}"
        case ValidationError():
            return f"MCP server {server!r}: {describe_protocol_fault(error)}"
        case _:
            return f"MCP server {server!r}: the call failed: {type(error).__name__}{f': {error}' if str(error) else ''}"


def _describe(error: MCPError) -> str:
    match error.code:
        case code if code == NOT_CONNECTED:
            return f"cannot be reached: {error.message}"
        case code if code == CONNECTION_CLOSED:
            return "ended or was cut off during the call"
        case code if code == SESSION_GONE:
            return f"does not know the session any more: {error.message}"
        case code if code in (TURNED_AWAY, SERVER_FAILED):
            return f"answered {error.message}"
        case code if code in (MISSING_REQUIRED_CLIENT_CAPABILITY, URL_ELICITATION_REQUIRED):
            return f"needs what this client cannot do: {error.message} ({code})"
        case code:
            return f"refused the call: {error.message} ({-32000 if code == OWN_SERVER_ERROR else code})"
