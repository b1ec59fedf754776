"""Types of what conditions see: the arguments of a call, and the facts of tool, agent and run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2, descriptor_pool
from mandate.workers.catalog.condition_kinds import (
    KNOWN,
    MAPPING,
    NUMBER,
    TEXT,
    TEXTS,
    TEXTS_BY_TEXT,
    TIME,
    TRUTH,
    WHOLE,
    Message,
    Struct,
    field_of,
    member,
    message_kind,
)
from mandate.workers.catalog.condition_schemas import Schema
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import Tool

THIS_TOOL = "tool__name"
"""Stands for `[tool.name]`; as long as that, so that columns stay."""

_TOOL = {
    "name": TEXT,
    "effect": TEXT,
    "source": TEXT,
    "tags": TEXTS,
    "risk": NUMBER,
    "untrusted": TRUTH,
}
_AGENT = {"name": TEXT, "version": TEXT}
_RUN = {
    "id": TEXT,
    "requester": TEXT,
    "labels": TEXTS_BY_TEXT,
    "depth": WHOLE,
    "step": WHOLE,
    "cost_usd": NUMBER,
    "now": TIME,
    "tainted": TRUTH,
}


@dataclass(slots=True)
class Types:
    """The types of one agent, in files of their own so that none can spoil another."""

    pool: descriptor_pool.DescriptorPool = field(default_factory=descriptor_pool.DescriptorPool)
    structs: dict[str, Struct] = field(default_factory=dict)
    """By full name of the type, as the library's faults write it."""
    _files: int = 0

    def __post_init__(self) -> None:
        for known in KNOWN:
            self.pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)

    def arguments(self, schema: JsonObject) -> str | None:
        """Return the type of `args` by a tool's input schema; `None` when it does not say which arguments exist."""
        package = self._package()
        made = Schema(schema, package)
        kind = made.kind(schema, "args", 0)
        if kind.message not in made.messages:
            return None
        self._add(package, made.messages.values())
        return kind.message.removeprefix(".")

    def facts(self, tools: Sequence[Tool], *, this: Tool | None) -> dict[str, str]:
        """Return the types of `tool`, `agent` and `run`.

        Args:
            tools: All that the agent has.
            this: The tool whose calls are judged; `None` for rules of no agent, which may name any tool.
        """
        package = self._package()
        sums = [
            Message(package, f"Sums{index}", member("run.totals", tool.name), dict.fromkeys(tool.numeric, NUMBER))
            for index, tool in enumerate(tools)
        ]
        totals = {tool.name: message_kind(message.name) for tool, message in zip(tools, sums, strict=True)}
        calls = dict.fromkeys(totals, WHOLE)
        run = {**_RUN, "calls": MAPPING, "totals": MAPPING}
        if this is not None:
            calls.setdefault(THIS_TOOL, WHOLE)
            totals.setdefault(THIS_TOOL, totals[this.name])
            run |= {"calls": message_kind(f".{package}.Calls"), "totals": message_kind(f".{package}.Totals")}
        made = (
            Message(package, "Calls", "run.calls", calls),
            Message(package, "Totals", "run.totals", totals),
            Message(package, "Tool", "tool", _TOOL),
            Message(package, "Agent", "agent", _AGENT),
            Message(package, "Run", "run", run),
        )
        self._add(package, (*sums, *made))
        return {name: f"{package}.{name.capitalize()}" for name in ("tool", "agent", "run")}

    def _package(self) -> str:
        self._files += 1
        return f"seen{self._files}"

    def _add(self, package: str, messages: "Iterable[Message]") -> None:
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
        file.dependency.extend(known.DESCRIPTOR.name for known in KNOWN)
        for message in messages:
            message.write(file.message_type.add())
            self.structs[message.name.removeprefix(".")] = Struct(
                message.where, {field_of(name): name for name in message.kinds if name != THIS_TOOL}
            )
        self.pool.Add(file)
