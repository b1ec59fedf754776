"""Judging calls: the only way to a verdict."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from workflows.contracts.policy import Match, Rule, Verdict
from workflows.contracts.tool import Tool


def judge(rules: Sequence[Rule], tool: Tool) -> Verdict:
    """What becomes of a call of `tool`: all matching rules are read and the strictest wins.

    A call that no rule matches runs only if the tool reads; anything else is refused.
    """
    matching = [rule for rule in rules if matches(rule.match, tool)]
    denying = next((rule for rule in matching if rule.verdict == "deny"), None)
    if denying is not None:
        return Verdict(allowed=False, rule=denying.id, reason=f"rule {denying.id!r} denies {tool.name!r}")
    if matching:
        return Verdict(allowed=True, rule=matching[0].id, reason=f"rule {matching[0].id!r} allows {tool.name!r}")
    if tool.effect.changes_world:
        return Verdict(allowed=False, reason=f"no rule names {tool.name!r}, which changes the world")
    return Verdict(allowed=True, reason=f"no rule names {tool.name!r}, which only reads")


def matches(match: Match, tool: Tool) -> bool:
    """Whether every key of `match` fits `tool`."""
    return (
        (match.tools is None or any_name_fits(match.tools, tool.name))
        and (match.effects is None or tool.effect in match.effects)
        and (match.tags is None or not set(match.tags).isdisjoint(tool.tags))
        and (match.sources is None or tool.source in match.sources)
    )


def any_name_fits(patterns: Iterable[str], name: str) -> bool:
    """Whether `name` is one of `patterns`, in which `*` stands for any text."""
    return any(pattern == name or ("*" in pattern and _compiled(pattern).fullmatch(name)) for pattern in patterns)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
