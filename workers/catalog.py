"""The agents that a worker offers: files, their tools resolved, pinned to content and digest."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from activities.documents import Document, Fault, Place, in_order
from activities.toolbox import builtin
from activities.toolbox.schema import check_schema
from workers.agent_files import AgentFile, AgentFileError, scan_agents
from workers.secrets import Secrets
from workers.tool_entries import McpDefinitions, definitions, secret_texts, source_of
from workflows.contracts.agent import AgentSpec, PinnedAgent
from workflows.contracts.base import Digest, JsonObject, canonical_json, digest_of
from workflows.contracts.policy import Match
from workflows.contracts.tool import Tool, ToolDefinition
from workflows.contracts.tool_entry import McpTools
from workflows.rules import policy


@dataclass(frozen=True, slots=True)
class Loaded:
    """One agent that runs can be started with."""

    pinned: PinnedAgent
    digest: Digest
    content: bytes
    """What is stored as a blob: `pinned` as canonical JSON, whose address is `digest`."""
    path: Path | None
    """Its file; `None` for an agent that was made in code."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All agents of a worker, by name."""

    agents: Mapping[str, Loaded]
    warnings: tuple[Fault, ...] = ()
    """What is allowed and yet probably not meant."""

    @classmethod
    async def load(
        cls,
        source: Path | Iterable[AgentSpec],
        mcp: McpDefinitions,
        *,
        secrets: Secrets,
        builtins: tuple[ToolDefinition, ...] = builtin.DEFINITIONS,
    ) -> "Catalog":
        """The agents of a folder, of one file, or made in code, with all their tools.

        Modules of Python tools are also looked for in the current directory and in the folder above the agent files.

        Args:
            source: Where the agents are.
            mcp: Asks MCP servers for their tools; each entry once, at the same time.
            secrets: Where the secrets that the agents name must be.
            builtins: Tools that every agent has.

        Raises:
            AgentFileError: all faults of all agents; none of them is loaded then.
        """
        files, faults = _files(source)
        drafts = [_Draft(file, secrets) for file in files]
        await asyncio.gather(*(draft.resolve(mcp, builtins) for draft in drafts))
        found = [*faults, *(fault for draft in drafts for fault in draft.faults)]
        if found:
            raise AgentFileError(found)
        warnings = in_order([warning for draft in drafts for warning in draft.warnings()])
        return cls({draft.spec.name: draft.pin() for draft in drafts}, warnings)

    def providers(self) -> set[str]:
        """Names of the model providers that the agents use."""
        return {model.partition(":")[0] for loaded in self.agents.values() for model in loaded.pinned.models}


class _Draft:
    """One agent on its way into the catalog; its faults are collected, never raised."""

    def __init__(self, file: AgentFile, secrets: Secrets) -> None:
        self.spec = file.spec
        self.faults: list[Fault] = []
        self._path = file.path
        self._document = file.document
        self._secrets = secrets
        self._tools: list[ToolDefinition] = []

    async def resolve(self, mcp: McpDefinitions, builtins: tuple[ToolDefinition, ...]) -> None:
        """Find every tool of every entry."""
        found = await asyncio.gather(*(self._entry(index, mcp) for index in range(len(self.spec.tools))))
        taken = dict.fromkeys((made.tool.name for made in builtins), "a built-in tool")
        for index, tools in enumerate(found):
            for made in tools:
                name = made.tool.name
                if name in taken:
                    way = (
                        "choose tools by 'only'"
                        if isinstance(self.spec.tools[index], McpTools)
                        else "set another 'name'"
                    )
                    self._fault(("tools", index), f"the name {name!r} is taken by {taken[name]}; {way}")
                taken.setdefault(name, f"tools[{index}]")
                self._tools.append(made)
        self._tools.extend(builtins)
        if self.spec.output_schema is not None:
            self._check(("output_schema",), self.spec.output_schema)

    def pin(self) -> Loaded:
        """The agent as runs keep it."""
        whole = PinnedAgent(
            name=self.spec.name,
            instructions=self.spec.instructions,
            models=self.spec.models,
            tools=tuple(self._tools),
            policy=self.spec.policy,
            attempts=self.spec.attempts,
            budget=self.spec.budget,
            output_schema=self.spec.output_schema,
            max_output_tokens=self.spec.max_output_tokens,
        )
        content = canonical_json(whole.model_dump(mode="json"))
        path = self._path if self._document.value is not None else None
        # Read back, so that this worker has it in no other form than one that loads the blob.
        return Loaded(PinnedAgent.model_validate_json(content), digest_of(content), content, path)

    def warnings(self) -> list[Fault]:
        """Rules that fit no tool: one that denies a misspelt name denies nothing."""
        tools = [made.tool for made in self._tools]
        return [
            self._document.fault(("policy", index, "match", *place), message)
            for index, rule in enumerate(self.spec.policy)
            for place, message in _unmatched(rule.match, tools)
        ]

    async def _entry(self, index: int, mcp: McpDefinitions) -> tuple[ToolDefinition, ...]:
        """The tools of one entry; none when something is wrong with it."""
        entry = self.spec.tools[index]
        before = len(self.faults)
        for place, text in secret_texts(entry):
            for name in self._secrets.missing([text]):
                self._fault(("tools", index, *place), self._secrets.explain(name))
        if len(self.faults) > before:
            return ()
        try:
            found = await definitions(entry, mcp)
        except ValueError as error:
            self._fault(("tools", index, source_of(entry)), str(error))
            return ()
        for made in found:
            own = ("input_schema",) if "input_schema" in type(entry).model_fields else ()
            self._check(("tools", index, *own), made.input_schema, "" if own else f"{made.tool.name}: ")
        return found

    def _check(self, place: Place, schema: JsonObject, of: str = "") -> None:
        try:
            check_schema(schema)
        except ValueError as error:
            self._fault(place, f"{of}{error}")

    def _fault(self, place: Place, message: str) -> None:
        self.faults.append(self._document.fault(place, message))


def _files(source: Path | Iterable[AgentSpec]) -> tuple[tuple[AgentFile, ...], tuple[Fault, ...]]:
    if isinstance(source, Path):
        _look_for_modules(source.absolute().parent if source.is_dir() else source.absolute().parent.parent)
        return scan_agents(source)
    made = [AgentFile(Path(), spec, Document(f"agent {spec.name!r}", None, (), {})) for spec in source]
    return tuple(made), ()


def _look_for_modules(folder: Path) -> None:
    """Behind everything else, so that no file of a user replaces an installed module."""
    for wanted in (Path.cwd(), folder):
        if not any(Path(known or ".").absolute() == wanted for known in sys.path):
            sys.path.append(str(wanted))


def _unmatched(match: Match, tools: list[Tool]) -> list[tuple[Place, str]]:
    """The names and tags of a rule that no tool has."""
    names = sorted(tool.name for tool in tools)
    tags = sorted({tag for tool in tools for tag in tool.tags})
    found: list[tuple[Place, str]] = [
        (("tools", position), f"{pattern!r} is no tool of this agent; it has {', '.join(names)}")
        for position, pattern in enumerate(match.tools or ())
        if not any(policy.any_name_fits((pattern,), name) for name in names)
    ]
    found += [
        (("tags", position), f"{tag!r} is a tag of no tool of this agent; they have {', '.join(tags) or 'none'}")
        for position, tag in enumerate(match.tags or ())
        if tag not in tags
    ]
    return found
