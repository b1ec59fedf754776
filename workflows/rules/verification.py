"""Checks that follow a call or the final answer, and the arguments of their tools."""

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.policy import RunFacts
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.contracts.verification import CheckPin
from mandate.workflows.rules import policy, redaction
from mandate.workflows.rules.cel import evaluation

_ARGUMENT = re.compile(r"""\s*args\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)')\s*\])\s*""", re.ASCII)
"""An expression that is one argument of the call and nothing else."""

_IDENTIFIER = re.compile(r"(?!(?:in|true|false|null)$)[A-Za-z_]\w*", re.ASCII)


def compute_arguments(
    expressions: Mapping[str, str], args: Mapping[str, JsonValue], key: str | None, **more: JsonValue
) -> JsonObject | evaluation.Unevaluable:
    """Compute the arguments of a check, a probe or a compensation: each of `expressions` over `args` and `key`.

    They are the call's; `more` is what else the expressions see.

    A sensitive argument, which the workflow knows by reference only, is handed on so; the activity has its value.

    An expression that is just an argument which the call left out is left out too, as its tool's default is then
    meant. One that cannot be evaluated makes all of them unusable, since a call without it asks for something else.
    """
    facts = evaluation.Facts({"args": args, "key": key or "", **more})
    arguments: JsonObject = {}
    for name, text in expressions.items():
        argument = find_argument(text)
        if argument not in {None, *args}:
            continue
        if argument is not None and redaction.is_hidden(args[argument]):
            arguments[name] = args[argument]
            continue
        value = facts.value(text)
        if type(value) is evaluation.Unevaluable:
            return evaluation.Unevaluable(f"the argument {name!r} cannot be computed: {value.reason}")
        arguments[name] = value
    return arguments


def find_argument(text: str) -> str | None:
    """Return the argument that the expression `text` is, if it is just one: `order` for `args.order`."""
    match = _ARGUMENT.fullmatch(text)
    return next((name for name in match.groups() if name is not None), None) if match else None


def format_argument(name: str) -> str:
    """Return the expression that is the argument `name`."""
    return f"args[{json.dumps(name, ensure_ascii=False)}]" if not _IDENTIFIER.fullmatch(name) else f"args.{name}"


def select_checks(checks: Sequence[CheckPin], after: AbstractSet[str]) -> tuple[CheckPin, ...]:
    """Return the checks of a tool by its names, or of the final answer (`FINAL`), in the order of the agent file."""
    return tuple(check for check in checks if check.after in after)


def applies(
    check: CheckPin,
    tool: Tool | None,
    arguments: Mapping[str, JsonValue],
    run: RunFacts,
    *,
    tools: Sequence[Tool] = (),
) -> bool | evaluation.Unevaluable:
    """Return whether the `when` of a check is true or cannot be evaluated, and in that case the reason for people.

    `tool` and `arguments` are of the call that is checked, as policy sees them; `None` for the final answer, whose
    condition sees `agent` and `run` only.
    """
    if check.when is None:
        return True
    seen = (
        policy.collect_run_variables(run, tools)
        if tool is None
        else policy.collect_variables(tool, arguments, run, tools)
    )
    return evaluation.Facts(seen).evaluate(check.when)
