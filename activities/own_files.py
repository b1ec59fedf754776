"""Limits of one worker to its own files: no command, module, host or secret that only another worker's files name.

Workers of one task queue and store may have other files, and an agent is pinned by one of them. A call of a tool that
stands in no file of this worker is not sent: another worker may make it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import urlsplit

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, Toolbox, ToolText
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import HttpBinding, McpServer, ToolDefinition

PATIENCE = 15.0
"""Seconds before another attempt, which another worker may take."""


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Commands, modules, hosts and secrets that the agent files of this worker name."""

    functions: frozenset[str] = frozenset()
    """Python tools as `module:name`."""
    checks: frozenset[str] = frozenset()
    servers: tuple[McpServer, ...] = ()
    headers: dict[tuple[str, str, int | None], frozenset[tuple[str, str]]] = field(default_factory=dict)
    """By scheme, host and port of HTTP tools: names and values of headers, secrets unresolved."""
    scripts: frozenset[str] = frozenset()

    def refusal(self, definition: ToolDefinition) -> str | None:
        """Return why this worker does not make calls of a tool, in one sentence."""
        binding, name = definition.binding, definition.tool.name
        match binding.kind:
            case "python":
                own = binding.function in self.functions
                named = f"the function {binding.function!r}"
            case "mcp":
                own = binding.server.without_start() in self.servers
                named = f"the MCP server {binding.server.name!r} as it was pinned"
            case "http":
                own = self._names_host(binding)
                named = f"the host and headers of {urlsplit(binding.url).netloc!r}"
            case "activity" | "agent" | "builtin":
                return None
            case _:
                assert_never(binding.kind)
        return None if own else f"the files of this worker do not name {named}, which tool {name!r} needs"

    def refuse_others(self, definition: ToolDefinition) -> None:
        """Raise for a tool that the files of this worker do not name.

        Raises:
            ToolError: not sent, to be tried again: another worker may take it.
        """
        if (reason := self.refusal(definition)) is not None:
            raise ToolError(Outcome.NOT_SENT, reason, retry_after=PATIENCE)

    def _names_host(self, binding: HttpBinding) -> bool:
        known = self.headers.get(_origin(binding.url))
        return known is not None and known.issuperset(binding.headers.items())


def collect_named(agents: Iterable[PinnedAgent]) -> OwnFiles:
    """Return what the files that these agents were loaded from name."""
    functions, checks, scripts = set[str](), set[str](), set[str]()
    servers, headers = list[McpServer](), dict[tuple[str, str, int | None], frozenset[tuple[str, str]]]()
    for agent in agents:
        for definition in agent.tools:
            binding = definition.binding
            match binding.kind:
                case "python":
                    functions.add(binding.function)
                case "mcp":
                    servers.append(binding.server.without_start())
                case "http":
                    origin = _origin(binding.url)
                    headers[origin] = headers.get(origin, frozenset()) | frozenset(binding.headers.items())
                case _:
                    pass
        checks.update(check.python for check in agent.checks if check.python is not None)
        scripts.update(model.partition(":")[2] for model in agent.models_asked if model.startswith("scripted:"))
    return OwnFiles(frozenset(functions), frozenset(checks), tuple(servers), headers, frozenset(scripts))


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


class OwnToolbox:
    """A toolbox that makes calls of this worker's own tools only."""

    def __init__(self, toolbox: Toolbox, own: OwnFiles) -> None:
        self._toolbox = toolbox
        self._own = own

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        self._own.refuse_others(definition)
        return await self._toolbox.call(definition, arguments, context)

    async def close(self) -> None:
        await self._toolbox.close()
