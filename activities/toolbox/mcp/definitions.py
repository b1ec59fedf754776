"""Definitions of a server's tools as an agent file wants them; those that cannot be used are left out and named."""

import re
from collections.abc import Sequence

from mcp_types import Tool as ListedTool

from mandate.activities.toolbox.base import OfferedTools
from mandate.activities.toolbox.mcp.tool_list import find_tool_fault
from mandate.activities.toolbox.schema import check_schema
from mandate.workflows.contracts.tool import Effect, McpBinding, McpServer, Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

_NAMED_FAULTS = 3


class Definitions:
    """The tools of one entry, in the server's order, and why others that the server lists cannot be used."""

    def __init__(self, entry: McpTools, server: McpServer, listed: Sequence[ListedTool]) -> None:
        """Take the whole list.

        Raises:
            ValueError: the entry names a tool that is not in it.
        """
        usable = [tool for tool in listed if tool.execution is None or tool.execution.task_support != "required"]
        _check_names(entry, server, [tool.name for tool in usable])
        self._entry, self._server = entry, server
        self.chosen = [tool for tool in usable if entry.only is None or tool.name in entry.only]
        self._names = [tool.name for tool in self.chosen]
        self._made: list[ToolDefinition] = []
        self._faults: list[str] = []

    def add(self, listed: ListedTool) -> None:
        """Define one of the chosen tools.

        Raises:
            ValueError: it cannot be used, and the entry names it.
        """
        try:
            if self._names.count(listed.name) > 1:
                raise ValueError("the server lists it more than once")
            self._made.append(_definition(self._entry, self._server, listed))
        except ValueError as error:
            fault = f"MCP server {self._server.name!r}, tool {listed.name!r}: {error}"
            if self._entry.only is not None:
                raise ValueError(fault) from None
            if fault not in self._faults:
                self._faults.append(fault)

    def finish(self) -> OfferedTools:
        """Return what was defined.

        Raises:
            ValueError: no tool can be used, or two have one name for the model.
        """
        if self._faults and not self._made:
            more = len(self._faults) - _NAMED_FAULTS
            rest = (f"and {more} more",) if more > 0 else ()
            raise ValueError("; ".join((*self._faults[:_NAMED_FAULTS], *rest)))
        return OfferedTools(_distinct(self._server, self._made), self._faults)


def _check_names(entry: McpTools, server: McpServer, offered: Sequence[str]) -> None:
    settings = (
        ("only", entry.only or ()),
        ("effects", tuple(entry.effects)),
        ("errors", tuple(entry.errors)),
        ("caches", tuple(entry.caches)),
    )
    for key, names in settings:
        for name in names:
            if name not in offered:
                has = ", ".join(sorted(offered)) or "no tools"
                raise ValueError(f"{key}: MCP server {server.name!r} has no tool {name!r}; it has: {has}")


def _definition(entry: McpTools, server: McpServer, listed: ListedTool) -> ToolDefinition:
    if (fault := find_tool_fault(listed)) is not None:
        raise ValueError(fault)
    check_schema(listed.input_schema)
    settings: dict[str, object] = {
        name: value
        for name in ("timeout", "retries", "patience", "tags", "risk", "sensitive")
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
        binding=McpBinding(
            kind="mcp",
            server=server,
            tool=listed.name,
            claims=_claims(listed),
            error=failing,
            asks_before_acting=entry.asks_before_acting,
        ),
        cache=(entry.caches.get(listed.name) or entry.cache) if effect is Effect.READ else None,
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
