"""One MCP server of one worker: started when it is first needed, and again after it died."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from mcp.client._probe import negotiate_auto
from mcp.client.context import ClientRequestContext
from mcp.client.session import ClientSession
from mcp_types import METHOD_NOT_FOUND, ElicitRequestParams, ElicitResult, ErrorData, Implementation
from mcp_types import Tool as ListedTool
from pydantic import ValidationError

from mandate.activities.toolbox.base import ResolveSecrets
from mandate.activities.toolbox.mcp import http_refusal
from mandate.activities.toolbox.mcp.causes import find_cause
from mandate.activities.toolbox.mcp.message_filter import MessageFilter
from mandate.activities.toolbox.mcp.tool_entries import describe_protocol_fault
from mandate.activities.toolbox.mcp.tool_list import McpUnavailable, list_tools
from mandate.activities.toolbox.mcp.transport import Stderr, open_transport
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workflows.contracts.templates import find_secrets
from mandate.workflows.contracts.tool import McpServer
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

log = logging.getLogger(__name__)

START_SECONDS = 30.0
CLOSE_SECONDS = 8.0
"""For all that a server may still do when the worker stops; what it has not ended by then is left, and killed."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class Link:
    """One connection; `over` is set when it has ended or shall end."""

    session: ClientSession
    over: asyncio.Event
    tools: dict[str, ListedTool]
    """By name, as they were listed when the connection was made."""
    messages: MessageFilter
    credentials: tuple[str, ...] | None = field(default=None, repr=False)
    """Environment and headers that it was made with; `None` without a secret in them."""
    users: int = 0
    retired: bool = False


class ServerConnection:
    """The worker's one connection to a server, made in a task of its own: the SDK's client must be left in the task
    that entered it, while calls come from many.
    """

    def __init__(self, server: McpServer, resolve: ResolveSecrets, start_seconds: float = START_SECONDS) -> None:
        self._server = server
        self._secrets = SecretValues(resolve)
        self.start_seconds = start_seconds
        """Longest time until the server has listed its tools."""
        self._link: Link | None = None
        self._starting: asyncio.Task[Link] | None = None
        self._owners: dict[asyncio.Task[None], asyncio.Event] = {}
        self._fruitless_starts = 0
        self._not_before = 0.0
        self._closing = asyncio.Event()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Link]:
        """Return the live connection; callers at the same time share one start.

        Raises:
            McpUnavailable: it did not start, for a reason that the message gives.
        """
        link = await self._live()
        link.users += 1
        try:
            yield link
        finally:
            link.users -= 1
            if link.retired and not link.users:
                link.over.set()

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def is_remote(self) -> bool:
        return self._server.url is not None

    def note_answer(self) -> None:
        """Note that the server has answered: a start after this one need not wait."""
        self._fruitless_starts = 0

    def strike(self, text: str) -> str:
        """Return `text` without the secrets that the server was given."""
        return self._secrets.strike(text)

    def retire(self, link: Link) -> None:
        """Make a new connection for the next call, and end this one after the calls that use it."""
        if self._link is link:
            link.retired = True
            self._link = None

    async def close(self) -> None:
        """End the connection and the child process; takes up to some seconds if the child does not go."""
        self._closing.set()
        for owner, over in self._owners.items():
            if self._starting is not None and not self._starting.done():
                owner.cancel()
            over.set()
        ending = {*self._owners, *(() if self._starting is None else (self._starting,))}
        if ending:
            await asyncio.wait(ending, timeout=CLOSE_SECONDS)

    async def _live(self) -> Link:
        link = self._link
        if link is not None and not link.over.is_set():
            if self._fill_credentials() in {None, link.credentials}:
                return link
            self.retire(link)
            if not link.users:
                link.over.set()
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._starting)

    def _fill_credentials(self) -> tuple[str, ...] | None:
        """Return environment and headers as they are now; `None` if they have no secrets or one of these is missing."""
        texts = (*self._server.env.values(), *self._server.headers.values())
        if not any(find_secrets(text) for text in texts):
            return None
        try:
            return tuple(self._secrets.fill(text) for text in texts)
        except LookupError:
            return None

    async def _start(self) -> Link:
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._not_before):
                await self._closing.wait()
        if self._closing.is_set():
            raise McpUnavailable(f"MCP server {self._server.name!r} was closed: the worker stops")
        await self._wait_for_the_end_of_others()
        pause = min(_FIRST_PAUSE_SECONDS * 2.0**self._fruitless_starts, _LONGEST_PAUSE_SECONDS)
        self._not_before = loop.time() + pause
        self._fruitless_starts = min(self._fruitless_starts + 1, 10)
        over = asyncio.Event()
        ready: asyncio.Future[Link] = loop.create_future()
        owner = asyncio.create_task(self._run_client(ready, over))
        self._owners[owner] = over
        owner.add_done_callback(self._owners.pop)
        self._link = await ready
        return self._link

    async def _wait_for_the_end_of_others(self) -> None:
        """Wait until processes that were given up are gone: two at a time may fight for a file or a port."""
        ending = {owner for owner, over in self._owners.items() if over.is_set()}
        if ending and not self.is_remote:
            await asyncio.wait(ending, timeout=CLOSE_SECONDS)

    async def _run_client(self, ready: asyncio.Future[Link], over: asyncio.Event) -> None:
        """Enter the client, keep it until `over`, leave it; `ready` gets the link or why there is none."""
        stderr, messages = Stderr(self._server.name, self._secrets), MessageFilter()
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self.start_seconds):
                    credentials = self._fill_credentials()
                    transport = open_transport(self._server, self._secrets, stderr, over, messages)
                    info = Implementation(name="mandate", version="1")
                    reading, writing = await stack.enter_async_context(transport)
                    session = await stack.enter_async_context(
                        ClientSession(reading, writing, client_info=info, elicitation_callback=_refuse_question)
                    )
                    await negotiate_auto(session)
                    # Listed before any call: the SDK sends by the tools' schemas, and results are checked by them.
                    listed = await list_tools(session)
                ready.set_result(Link(session, over, {tool.name: tool for tool in listed}, messages, credentials))
                await over.wait()
        except BaseException as error:
            if not ready.done():
                wait = http_refusal.find_wait(find_cause(error))
                ready.set_exception(McpUnavailable(self._explain(error, stderr, messages), wait))
            elif not isinstance(error, asyncio.CancelledError):
                log.debug("mcp server %s ended: %s", self._server.name, self.strike(repr(find_cause(error))))
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            over.set()

    def _explain(self, error: BaseException, stderr: Stderr, messages: MessageFilter) -> str:
        match find_cause(error):
            case LookupError() as leaf if leaf.args:
                why = str(leaf.args[0])
            case FileNotFoundError():
                why = f"the command {self._server.command[0]!r} was not found"
            case TimeoutError():
                limit = quantities.write_seconds(self.start_seconds)
                why = f"no answer within {limit}; set 'start' for a server that needs longer, for example 'start: 60s'"
            case asyncio.CancelledError():
                why = "the worker stops"
            case ValidationError() as leaf:
                why = describe_protocol_fault(leaf)
            case leaf:
                why = str(leaf) or type(leaf).__name__
        wrote = f"; it wrote: {' / '.join(stderr.last)}" if stderr.last else ""
        if messages.last_noise is not None:
            wrote += f"; its stdout must have messages of the protocol alone, and has: {messages.last_noise}"
        return shorten(self.strike(f"MCP server {self._server.name!r} did not start: {why}{wrote}"))


async def _refuse_question(
    context: ClientRequestContext,  # noqa: ARG001 - the SDK calls it by name
    params: ElicitRequestParams,  # noqa: ARG001
) -> ElicitResult | ErrorData:
    """Refuse a question that cannot wait for people; with a callback the SDK says that questions can be asked at all.

    In versions of the protocol before 2026-07-28 a call waits in the server's memory meanwhile; `transport` tells their
    servers that nothing can be asked.
    """
    return ErrorData(code=METHOD_NOT_FOUND, message="nobody can be asked during a call in this version of the protocol")
