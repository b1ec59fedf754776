"""Conditions checked against the tools that they are about, before any call is judged."""

import re
from collections.abc import Mapping, Sequence

from cel_expr_python import cel

from mandate.activities.documents import Fault
from mandate.workers.catalog.condition_errors import VARIABLES, Problem, problems, wrong_result
from mandate.workers.catalog.condition_reads import sensitive_reads
from mandate.workers.catalog.condition_types import THIS_TOOL, Types, field_of
from mandate.workers.catalog.policies import PlacedRule
from mandate.workflows.contracts.tool import Tool, ToolDefinition
from mandate.workflows.rules import policy

MOST_NAMED = 3
"""Tools that one fault names; of more it gives the number."""

_TRUTHS = (cel.Type.BOOL, cel.Type.DYN)
_JSON_TYPES = {
    "bool": {"boolean"},
    "double": {"integer", "number"},
    "int": {"integer", "number"},
    "string": {"string"},
    "uint": {"integer", "number"},
}
"""By kind of CEL, whose numbers are all one in JSON."""

_ABOUT_THE_CALL = re.compile(r"\bargs\b|\[\s*tool\s*\.\s*name\s*\]")
_TEXT = r"""\"\"\".*?\"\"\" | '''.*?''' | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'"""
_CONSTANTS = re.compile(
    rf"(?P<function>matches|timestamp|duration) \s*\(\s* (?P<text>{_TEXT}) \s*\) | {_TEXT} | //[^\n]*",
    re.VERBOSE | re.DOTALL,
)
_TAKES = {
    "matches": "regular expression",
    "timestamp": "time, for example '2026-11-02T09:00:00Z'",
    "duration": "duration, for example '90m'",
}
_PLAIN = cel.NewEnv()
_ANYTHING = Types()
_NAMES = re.compile(
    rf"""
    (?P<skip> {_TEXT} | //[^\n]* )
    | (?<=[\w)\]`]) (?<!\bin) (?P<space>\s*) \[ \s*
      (?: (?P<quote>["']) (?P<constant>[^"'\\\n]*) (?P=quote) | (?P<this>tool\s*\.\s*name) ) \s* \]
    | \.`(?P<quoted>[^`\n]*)`
    """,
    re.VERBOSE | re.DOTALL,
)


class Conditions:
    """The conditions that rules of one agent may have, by the tools it has; compiles nothing before it is asked."""

    def __init__(self, tools: Sequence[ToolDefinition], *, agent: str = "") -> None:
        self._tools = {made.tool.name: made for made in tools}
        self._agent = agent
        self._types = Types()
        self._environments: dict[str, cel.Env] = {}
        self._arguments: dict[str, cel.Type] = {}

    def faults(self, placed: PlacedRule) -> list[Fault]:
        """Return all faults of the condition of one rule, for each tool that the rule is about.

        A rule that is about no tool of the agent is checked as one of a policy file that stands alone.
        """
        rule = placed.rule
        if rule.when is None:
            return []
        matching = [made.tool for made in self._tools.values() if policy.matches(rule.match, made.tool)]
        of_itself = _unreadable(rule.when) if matching else check(rule.when)
        if of_itself or not matching:
            return [_fault(placed, problem) for problem in of_itself]
        about_the_call = _ABOUT_THE_CALL.search(rule.when) is not None
        found: dict[Problem, list[str]] = {}
        for tool in matching if about_the_call else matching[:1]:
            for problem in (*hidden_reads(rule.when, tool), *_typed(rule.when, self._environment(tool), self._types)):
                found.setdefault(problem, []).extend([tool.name] * about_the_call)
        agent = f"agent {self._agent!r}, " if placed.policy else ""
        return [_fault(placed, problem, f"{agent}{_named(names)}") for problem, names in found.items()]

    def of_call(self, when: str, tool: str | None) -> tuple[Problem, ...]:
        """Return the faults of a condition over a call of `tool`; over the run alone, without a tool."""
        if tool is not None:
            its = self._tools[tool].tool
            return _unreadable(when) or hidden_reads(when, its) or _typed(when, self._environment(its), self._types)
        facts = self._types.facts([made.tool for made in self._tools.values()], this=None)
        kinds = {name: cel.Type(facts[name]) for name in ("agent", "run")}
        return self._wrong(when, kinds)

    def of_route(self, when: str) -> tuple[Problem, ...]:
        """Return the faults of the condition of a model of the route."""
        facts = self._types.facts([made.tool for made in self._tools.values()], this=None, is_of_route=True)
        return self._wrong(when, {name: cel.Type(facts[name]) for name in ("agent", "run")})

    def of_result(self, expect: str, tool: str | None) -> tuple[Problem, ...]:
        """Return the faults of a condition over a result, and over the arguments of a call of `tool` if given."""
        return self._wrong(expect, {**self._args(tool), "result": cel.Type.DYN})

    def of_arguments(
        self, text: str, tool: str | None, takes: Sequence[str], *, with_result: bool = False
    ) -> tuple[Problem, ...]:
        """Return the faults of an expression for an argument of one of the types `takes`, of JSON; empty for any."""
        kinds = {**self._args(tool), **({"key": cel.Type.STRING} if tool is not None else {})}
        if with_result:
            kinds["result"] = cel.Type.DYN
        return self._wrong(text, kinds, takes)

    def _args(self, tool: str | None) -> dict[str, cel.Type]:
        if tool is None:
            return {}
        if tool not in self._arguments:
            kind = self._types.arguments(self._tools[tool].input_schema)
            self._arguments[tool] = cel.Type.DYN if kind is None else cel.Type(kind)
        return {"args": self._arguments[tool]}

    def _wrong(
        self, text: str, kinds: Mapping[str, cel.Type], takes: Sequence[str] | None = None
    ) -> tuple[Problem, ...]:
        environment = cel.NewEnv(self._types.pool, variables=dict(kinds))
        return _unreadable(text) or _typed(text, environment, self._types, variables=sorted(kinds), takes=takes)

    def _environment(self, tool: Tool) -> cel.Env:
        if tool.name not in self._environments:
            args = self._types.arguments(self._tools[tool.name].input_schema)
            facts = self._types.facts([made.tool for made in self._tools.values()], this=tool)
            self._environments[tool.name] = _environment(self._types, facts, args)
        return self._environments[tool.name]


def hidden_reads(text: str, tool: Tool) -> tuple[Problem, ...]:
    """Return where the workflow would have to read a sensitive argument of `tool`, of which it has only a digest."""
    found = []
    for read in sensitive_reads(text, tool.sensitive):
        if read.name is not None:
            what = f"reads {read.name!r}, which is sensitive"
        else:
            what = f"reads 'args' as a whole, and {', '.join(map(repr, tool.sensitive))} is sensitive"
        line = text.count("\n", 0, read.offset) + 1
        column = read.offset - text.rfind("\n", 0, read.offset)
        why = "the workflow, which evaluates it, has only a digest of that; name arguments that are not sensitive"
        found.append(Problem(line, column, f"{what}: {why}"))
    return tuple(found)


def _fault(placed: PlacedRule, problem: Problem, of: str = "") -> Fault:
    assert placed.rule.when is not None
    where = problem.place(placed.rule.when)
    return placed.fault(f"rule {placed.rule.id!r}, {of}{where}: {problem.message}", "when")


def check(when: str) -> tuple[Problem, ...]:
    """Return the faults of a condition whatever the tools are."""
    types = Types()
    facts = types.facts((), this=None)
    return _unreadable(when) or _typed(when, _environment(types, facts, None), types)


def check_over(variable: str, text: str, takes: Sequence[str] | None) -> tuple[Problem, ...]:
    """Return the faults of an expression over one variable of any shape; `takes` are types of JSON, `None` a condition.

    An empty `takes` is for a value of any type.
    """
    environment = cel.NewEnv(_ANYTHING.pool, variables={variable: cel.Type.DYN})
    return _unreadable(text) or _typed(text, environment, _ANYTHING, variables=(variable,), takes=takes)


def _unreadable(when: str) -> tuple[Problem, ...]:
    """Return faults of syntax, and constants that are not what a function takes."""
    try:
        _PLAIN.compile(when, disable_check=True)
    except RuntimeError as error:
        return problems(when, str(error), {})
    return tuple(
        Problem(
            when.count("\n", 0, found.start()) + 1, found.start("text") - when.rfind("\n", 0, found.start()), message
        )
        for found in _CONSTANTS.finditer(when)
        if found["text"] and (message := _no_constant(found["function"], found["text"]))
    )


def _no_constant(function: str, text: str) -> str | None:
    """Return why the function always fails for this text."""
    call = f"''.matches({text})" if function == "matches" else f"{function}({text})"
    if _PLAIN.compile(call).eval().type() != cel.Type.ERROR:
        return None
    return f"{text} is no {_TAKES[function]}"


def _typed(
    when: str,
    environment: cel.Env,
    types: Types,
    *,
    variables: Sequence[str] = VARIABLES,
    takes: Sequence[str] | None = None,
) -> tuple[Problem, ...]:
    """Return the faults of a condition, or of an expression for a value of one of the JSON types `takes`."""
    text = _NAMES.sub(_as_field, when)
    try:
        result = environment.compile(text).return_type()
    except RuntimeError as error:
        return problems(when, str(error), types.structs, variables)
    if takes is None:
        return () if result in _TRUTHS else (wrong_result(result.name().lower()),)
    return _not_taken(result.name().lower(), takes)


def _not_taken(kind: str, takes: Sequence[str]) -> tuple[Problem, ...]:
    """Return the fault of a value of one plain kind where only others fit; one of several kinds is seen later."""
    fits = _JSON_TYPES.get(kind)
    if fits is None or not takes or not fits.isdisjoint(takes):
        return ()
    return (Problem(1, 1, f"has the type {kind}, which is no {' or '.join(takes)}"),)


def _environment(types: Types, facts: Mapping[str, str], args: str | None) -> cel.Env:
    kinds = {name: cel.Type(kind) for name, kind in facts.items()}
    return cel.NewEnv(types.pool, variables={**kinds, "args": cel.Type.DYN if args is None else cel.Type(args)})


def _as_field(found: re.Match[str]) -> str:
    """Write a name in brackets as a field of the same length: objects of a known type have no other way to it."""
    if found["skip"] is not None:
        return found[0]
    if found["quoted"] is not None:
        return f".{field_of(found['quoted'])}".ljust(len(found[0]))
    field = THIS_TOOL if found["this"] else field_of(found["constant"])
    return f"{found['space']}.{field}".ljust(len(found[0]))


def _named(tools: Sequence[str]) -> str:
    if not tools:
        return ""
    more = f" and {len(tools) - MOST_NAMED} more" if len(tools) > MOST_NAMED else ""
    return f"tool{'s' * (len(tools) > 1)} {', '.join(map(repr, tools[:MOST_NAMED]))}{more}, "
