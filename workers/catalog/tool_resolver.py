"""The tools of one agent, found; whatever is wrong with them is told, also when its file has other faults."""

import asyncio
from collections.abc import Mapping, Sequence

from mandate.activities.documents import Document, Fault, Place
from mandate.activities.toolbox.closed_schemas import close_schema, open_schema
from mandate.activities.toolbox.schema import check_schema
from mandate.activities.toolbox.schema_types import find_numeric
from mandate.workers.catalog import mcp_acceptance
from mandate.workers.catalog.agent_parts import FaultyEntry, whole_schema
from mandate.workers.catalog.tools import (
    McpDefinitions,
    definitions,
    name_of,
    readable_python,
    reasons,
    secret_texts,
    source_of,
)
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools, ToolEntry, find_entry_name
from mandate.workflows.rules.names import is_sensitive

Found = tuple[ToolDefinition | str, ...]
"""The tools of one entry; only a name where something is wrong with a tool."""


class ToolResolver:
    """Search for every tool of every entry: `tools` are those of valid entries, `faults` those of all."""

    def __init__(self, document: Document, entries: Sequence[ToolEntry | FaultyEntry], secrets: Secrets) -> None:
        self.tools: list[ToolDefinition] = []
        self.faults: list[Fault] = []
        self.entry_of: dict[str, int] = {}
        """Position of the entry that a tool is from; built-in tools have none."""
        self._document = document
        self._entries = entries
        self._secrets = secrets

    async def run(
        self, mcp: McpDefinitions, builtins: tuple[ToolDefinition, ...], output_schema: JsonObject | None
    ) -> None:
        """Ask for all entries at the same time; `builtins` come last, and no other tool may have their names."""
        entries = asyncio.gather(*(self._entry(index, mcp) for index in range(len(self._entries))))
        self._compare(await entries, dict.fromkeys((made.tool.name for made in builtins), "a built-in tool"))
        self.tools = [self._finished(made) for made in (*self.tools, *builtins)]
        if output_schema is not None:
            self._check(("output_schema",), output_schema)

    async def _entry(self, index: int, mcp: McpDefinitions) -> Found:
        entry = self._entries[index]
        lacking = self._lacks_secrets(index)
        if isinstance(entry, Mapping):
            return await self._faulty(index, entry, mcp)
        # A server is started with all that it needs, or not at all.
        if isinstance(entry, McpTools) and lacking:
            return ()
        found = await self._definitions(index, entry, mcp)
        self._compare_words(index, entry, found)
        own = ("input_schema",) if "input_schema" in type(entry).model_fields else ()
        for made in found:
            if isinstance(made, ToolDefinition):
                self._check(("tools", index, *own), made.input_schema, "" if own else f"{made.tool.name}: ")
        return found

    async def _faulty(self, index: int, entry: FaultyEntry, mcp: McpDefinitions) -> Found:
        """Return the names of a faulty entry; no server is asked: what is wrong may be how, or for what."""
        if (python := readable_python(entry)) is not None:
            found = await self._definitions(index, python, mcp)
            return tuple(map(_name, found)) if entry.get("name") == python.name else ()
        if (schema := whole_schema(entry.get("input_schema"))) is not None:
            # That it must be for an object has been told with the file.
            self._check(("tools", index, "input_schema"), schema | {"type": "object"})
        name = find_entry_name(entry)
        return () if name is None else (name,)

    async def _definitions(self, index: int, entry: ToolEntry, mcp: McpDefinitions) -> Found:
        try:
            return await definitions(entry, mcp)
        except ValueError as error:
            for reason in reasons(entry, error):
                self._fault(("tools", index, source_of(entry)), reason)
        name = name_of(entry)
        return () if name is None else (name,)

    def _compare_words(self, index: int, entry: ToolEntry, found: Found) -> None:
        """Tell that a server says something else of its tools than was accepted."""
        made = [each for each in found if isinstance(each, ToolDefinition)]
        if isinstance(entry, McpTools) and len(made) == len(found):
            why = mcp_acceptance.fault(entry, made, self._document.file) if made or entry.accepted else None
            if why is not None and not any(fault.key.startswith(f"tools[{index}]") for fault in self.faults):
                self._fault(("tools", index, "accepted"), why)

    def _lacks_secrets(self, index: int) -> bool:
        missing = [
            (place, name)
            for place, text in secret_texts(self._entries[index])
            for name in self._secrets.missing([text])
        ]
        for place, name in missing:
            self._fault(("tools", index, *place), self._secrets.explain(name))
        return bool(missing)

    def _compare(self, found: Sequence[Found], taken: dict[str, str]) -> None:
        """Keep the tools, and tell which names are taken: `taken` says by whom."""
        known = [find_entry_name(entry) for entry in self._entries]
        for index, tools in enumerate(found):
            way = "choose tools by 'only'" if isinstance(self._entries[index], McpTools) else "set another 'name'"
            for made in tools:
                name = _name(made)
                # Of two names that the file itself gives, the second has been told with the file.
                if name in taken and not (name == known[index] and name in known[:index]):
                    self._fault(("tools", index), f"the name {name!r} is taken by {taken[name]}; {way}")
                taken.setdefault(name, f"tools[{index}]")
                if not isinstance(made, str):
                    self.tools.append(made)
                    self.entry_of.setdefault(name, index)

    def _finished(self, made: ToolDefinition) -> ToolDefinition:
        """Return `made` with its schema closed where nothing opens it, and with the arguments that runs sum up.

        The schema is the one that the model is told, calls are checked against and conditions have their types from.
        """
        if self.faults:
            return made
        schema, entry = made.input_schema, self._entry_of(made)
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

    def _entry_of(self, made: ToolDefinition) -> ToolEntry | FaultyEntry | None:
        index = self.entry_of.get(made.tool.name)
        return None if index is None else self._entries[index]

    def _check(self, place: Place, schema: JsonObject, of: str = "") -> None:
        try:
            check_schema(schema)
        except ValueError as error:
            self._fault(place, f"{of}{error}")

    def _fault(self, place: Place, message: str) -> None:
        self.faults.append(self._document.fault(place, message))


def _name(found: ToolDefinition | str) -> str:
    return found if isinstance(found, str) else found.tool.name
