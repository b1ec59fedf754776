"""The checks, probes and compensations of an agent file, made whole, and all that is wrong with them."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from mandate.activities.checks.functions import load_check
from mandate.activities.documents import Document, Fault
from mandate.activities.toolbox.base import SOURCES, is_read
from mandate.activities.toolbox.schema import check_schema
from mandate.activities.toolbox.schema_names import list_arguments, list_required
from mandate.activities.toolbox.schema_types import list_types
from mandate.activities.toolbox.signature import InvalidTool
from mandate.workers.catalog.condition_errors import Problem
from mandate.workers.catalog.condition_reads import sensitive_reads
from mandate.workers.catalog.tools import ToolResolver
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.faults import Place, did_you_mean, find_repeated
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import ToolSettings
from mandate.workflows.contracts.verification import FINAL, CheckSpec, ProbeSpec
from mandate.workflows.rules.names import is_sensitive
from mandate.workflows.rules.verification import find_argument, format_argument

if TYPE_CHECKING:
    from mandate.workers.catalog.conditions import Conditions

NAME_CHARACTERS = 64
COMPENSATION = "a compensation"


def named(checks: tuple[CheckSpec, ...]) -> tuple[CheckSpec, ...]:
    """Return `checks`, each with a name: its own, or one made from what it is after and its kind."""
    taken = {check.name for check in checks if check.name is not None}
    made = []
    for check in checks:
        name, number = check.name, 0
        while name is None:
            number += 1
            end = f"_{check.kind}_{number}"
            wanted = check.after[: NAME_CHARACTERS - len(end)] + end
            name = wanted if wanted not in taken else None
        taken.add(name)
        made.append(check.model_copy(update={"name": name}))
    return tuple(made)


class AgentChecks:
    """The checks and probes of one valid agent file; its tools are there when they are asked for."""

    def __init__(self, spec: AgentSpec, document: Document, search: ToolResolver) -> None:
        self.checks = named(spec.checks)
        self._spec = spec
        self._document = document
        self._search = search
        self._known: Conditions | None = None

    @property
    def probes(self) -> dict[str, ProbeSpec]:
        """Probes by the tool that they are about; a short form is spelt out."""
        return {tool: probe for tool, _, probe in self._probes()}

    @property
    def compensations(self) -> dict[str, CompensationSpec]:
        """Compensations by the tool whose calls they take back; a short form is spelt out."""
        return {tool: spec for tool, _, spec in self._compensations()}

    def faults(self) -> Iterator[Fault]:
        """Yield the faults; those that depend on the tools are not looked for while these have faults."""
        yield from self._names()
        for index, check in enumerate(self._spec.checks):
            yield from self._of_itself(check, ("checks", index))
        if self._search.faults:
            return
        for index, check in enumerate(self._spec.checks):
            yield from self._with_tools(check, ("checks", index))
        yield from self._idle_settings()
        for tool, place, probe in self._probes():
            yield from self._of_probe(tool, place, probe)
        for tool, place, spec in self._compensations():
            short = not isinstance(self._entry(tool).compensate, CompensationSpec)
            yield from self._of_call(spec.tool, spec.arguments, place, tool, COMPENSATION, short=short)

    def _names(self) -> Iterator[Fault]:
        for again, name, first in find_repeated([check.name for check in self._spec.checks]):
            message = f"{name!r} is the name of checks[{first}] too; each check has its own"
            yield self._document.fault(("checks", again, "name"), message)

    def _of_itself(self, check: CheckSpec, place: Place) -> Iterator[Fault]:
        try:
            if check.python is not None:
                load_check(check.python, check.after)
            if check.result_schema is not None:
                check_schema(check.result_schema, of_object=False)
        except InvalidTool as error:
            yield self._document.fault((*place, "python"), str(error))
        except ValueError as error:
            yield self._document.fault((*place, "schema"), str(error))

    def _with_tools(self, check: CheckSpec, place: Place) -> Iterator[Fault]:
        tools = self._tools
        about = None if check.after == FINAL else check.after
        if (why := _wrong_after(check.after, tools)) is not None:
            yield self._document.fault((*place, "after"), why)
        if about in tools and tools[about].cache is not None:
            message = f"{about!r} has 'cache': a result that fails this check would be the answer again; leave out one"
            yield self._document.fault((*place, "after"), message)
        # What is said of the call of a tool that does not exist is wrong in another way.
        known = about is None or about in tools
        if check.when is not None and known:
            yield from self._told((*place, "when"), check.when, self._conditions.of_call(check.when, about))
        if check.expect is not None and known:
            yield from self._told((*place, "expect"), check.expect, self._conditions.of_result(check.expect, about))
        if check.tool is not None:
            yield from self._of_call(check.tool, check.arguments, place, about if known else "", "a check")

    def _idle_settings(self) -> Iterator[Fault]:
        """Yield the probes and compensations of tools that need none."""
        changing = {self._search.entry_of[name] for name in self._search.entry_of if self._changes_world(name)}
        for index, entry in enumerate(self._spec.tools):
            if index in changing:
                continue
            if entry.probe is not None:
                message = "belongs to tools that change the world; a call that only reads is made again"
                yield self._document.fault(("tools", index, "probe"), message)
            if entry.compensate is not None:
                message = "belongs to tools that change the world; of a call that only reads nothing can be taken back"
                yield self._document.fault(("tools", index, "compensate"), message)

    def _changes_world(self, tool: str) -> bool:
        return self._tools[tool].tool.effect.changes_world

    def _of_probe(self, tool: str, place: Place, probe: ProbeSpec) -> Iterator[Fault]:
        for key in ("done", "not_done", "absent"):
            condition: str | None = getattr(probe, key)
            if condition is None:
                continue
            yield from self._told((*place, key), condition, self._conditions.of_result(condition, tool))
        short = not isinstance(self._entry(tool).probe, ProbeSpec)
        yield from self._of_call(probe.tool, probe.arguments, place, tool, "a probe", short=short)

    def _of_call(
        self,
        name: str,
        arguments: Mapping[str, str],
        place: Place,
        about: str | None,
        what: str,
        *,
        short: bool = False,
    ) -> Iterator[Fault]:
        """Yield the faults of the tool of a check, probe or compensation, and of what it is given.

        `about` is the tool whose call it follows, empty for one that does not exist.
        """
        at = place if short else (*place, "tool")
        reader = self._tools.get(name)
        if reader is None:
            yield self._document.fault(at, f"{name!r} is no tool of this agent{_there_are(name, self._tools)}")
            return
        why = _not_undoing(reader, about) if what is COMPENSATION else _unaskable(reader, what)
        if why is not None:
            yield self._document.fault(at, why)
        if about:
            yield from self._of_sensitive(about, name, arguments, place, what)
        known, required = list_arguments(reader.input_schema), list_required(reader.input_schema)
        where = place if short or not arguments else (*place, "with")
        for needed in required:
            if needed not in arguments:
                share = f", which calls of {about!r} do not have; give it by 'tool' and 'with'" if short else ""
                yield self._document.fault(where, f"{name!r} needs the argument {needed!r}{share}")
        for argument, text in arguments.items():
            if known is not None and argument not in known:
                message = f"is no argument of {name!r}{_there_are(argument, known)}"
                yield self._document.fault((*place, "with", argument), message)
            elif about != "":
                takes = list_types(reader.input_schema, argument)
                problems = self._conditions.of_arguments(text, about, takes, with_result=what is COMPENSATION)
                yield from self._told((*place, "with", argument), text, problems)

    def _of_sensitive(
        self, about: str, name: str, arguments: Mapping[str, str], place: Place, what: str
    ) -> Iterator[Fault]:
        """Find what is shown nowhere and is handed to an argument that is shown, or computed with in the workflow."""
        called, given = self._tools[about].tool, self._tools.get(name)
        if not called.sensitive or given is None:
            return
        for argument, text in arguments.items():
            from_result = what is COMPENSATION and re.search(r"\bresult\b", text) is not None
            reads = sensitive_reads(text, called.sensitive)
            if not reads and not from_result:
                continue
            used = next((read.name for read in reads if read.name is not None), None)
            source = f"the sensitive {used or called.sensitive[0]!r}"
            if not reads:
                source = "the result of a tool with sensitive arguments"
            if not is_sensitive(argument, given.tool.sensitive):
                message = f"is made from {source}; name {argument!r} under 'sensitive' of {name!r}"
                if given.tool.remote is not None:
                    message = f"is made from {source}, and {name!r} is an activity, whose arguments Temporal keeps"
                yield self._document.fault((*place, "with", argument), message)
            elif what is not COMPENSATION and find_argument(text) is None:
                message = (
                    f"computes with {source}, of which the workflow has only a digest; hand it on as it is, as in "
                    f"{format_argument(used or called.sensitive[0])}"
                )
                yield self._document.fault((*place, "with", argument), message)

    def _told(self, place: Place, text: str, problems: tuple[Problem, ...]) -> Iterator[Fault]:
        for problem in problems:
            yield self._document.fault(place, f"{problem.place(text)}: {problem.message}")

    def _probes(self) -> Iterator[tuple[str, Place, ProbeSpec]]:
        """Yield the tools with a probe, its place, and the probe spelt out."""
        for name, index in self._search.entry_of.items():
            probe = self._entry(name).probe
            if probe is not None and self._changes_world(name):
                if not isinstance(probe, ProbeSpec):
                    probe = ProbeSpec(tool=probe, arguments=self._shared(probe, name))
                yield name, ("tools", index, "probe"), probe

    def _compensations(self) -> Iterator[tuple[str, Place, CompensationSpec]]:
        """Yield the tools with a compensation, its place, and the compensation spelt out."""
        for name, index in self._search.entry_of.items():
            spec = self._entry(name).compensate
            if spec is not None and self._changes_world(name):
                if not isinstance(spec, CompensationSpec):
                    spec = CompensationSpec(tool=spec, arguments=self._shared(spec, name))
                yield name, ("tools", index, "compensate"), spec

    def _shared(self, given: str, called: str) -> dict[str, str]:
        """Return the arguments of the call `called` that the tool `given` has too, as expressions."""
        reader = self._tools.get(given)
        takes = list_arguments(reader.input_schema) if reader is not None else None
        shared = [name for name in list_arguments(self._tools[called].input_schema) or () if name in (takes or ())]
        return {name: format_argument(name) for name in shared}

    def _entry(self, tool: str) -> ToolSettings:
        return self._spec.tools[self._search.entry_of[tool]]

    @property
    def _tools(self) -> dict[str, ToolDefinition]:
        return {made.tool.name: made for made in self._search.tools}

    @property
    def _conditions(self) -> "Conditions":
        if self._known is None:
            from mandate.workers.catalog.conditions import Conditions  # noqa: PLC0415 - CEL only where conditions are

            self._known = Conditions(self._search.tools, agent=self._spec.name)
        return self._known


def _wrong_after(after: str, tools: Mapping[str, ToolDefinition]) -> str | None:
    if after == FINAL:
        return (
            f"{FINAL!r} is the final answer, and a tool has that name too; set another 'name'" * (FINAL in tools)
            or None
        )
    if after not in tools:
        return f"{after!r} is neither {FINAL!r} nor a tool of this agent{_there_are(after, tools)}"
    return f"{after!r} is built in and has no checks" if tools[after].tool.source == "builtin" else None


def _unaskable(reader: ToolDefinition, what: str) -> str | None:
    tool = reader.tool
    if is_read(tool):
        return None
    if tool.effect.changes_world:
        return f"{tool.name!r} is {str(tool.effect)!r}; {what} only reads, so its tool has 'effect: read'"
    return f"{tool.name!r} is a tool of kind {tool.source!r}; {what} can call those of {', '.join(SOURCES)}"


def _not_undoing(undoing: ToolDefinition, about: str | None) -> str | None:
    tool = undoing.tool
    if tool.name == about:
        return "takes its own calls back, which would be taken back in turn; name another tool"
    return None if tool.effect.changes_world else f"{tool.name!r} only reads, which takes nothing back"


def _there_are(name: str, known: Collection[str]) -> str:
    return f"{did_you_mean(name, known)} it has {', '.join(sorted(known)) or 'none'}"
