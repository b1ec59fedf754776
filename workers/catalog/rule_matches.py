"""Rules that match no tool: a fault in one that asks or denies, since a misspelt name would let calls through."""

from collections.abc import Iterator, Sequence

from mandate.workflows.contracts.faults import Located, did_you_mean
from mandate.workflows.contracts.policy import Rule
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules import policy

_LETS_THROUGH = {"ask": "it asks about nothing", "deny": "it denies nothing"}


def find_misses(rule: Rule, tools: Sequence[Tool]) -> list[Located]:
    """Return the places in `match` of an agent's own rule because of which it asks about or denies nothing.

    A rule without names and tags is about a kind of tools, of which there may be none yet.
    """
    match = rule.match
    if rule.verdict == "allow" or (match.tools is None and match.tags is None):
        return []
    if any(policy.matches(match, tool) for tool in tools):
        return []
    effect = _LETS_THROUGH[rule.verdict]
    if match.tools is not None and not any(policy.fits_any(match.tools, tool.name) for tool in tools):
        return [(place, f"{message}; {effect}") for place, message in _unknown_names(rule, tools)]
    if found := list(_unknown_tags(rule, tools)):
        return [(place, f"{message}; {effect}") for place, message in found]
    return [((), f"no tool of this agent fits all of it; {effect}")]


def find_vain_matches(rule: Rule, tools: Sequence[Tool]) -> list[Located]:
    """Return the names and tags of a rule that no tool has, where that is no fault."""
    return [] if find_misses(rule, tools) else [*_unknown_names(rule, tools), *_unknown_tags(rule, tools)]


def find_unknown(rule: Rule, tools: Sequence[Tool], agents: str) -> list[Located]:
    """Return the names of a shared rule that asks or denies, if none is a tool of any of `agents`, which have it.

    Patterns, tags and effects in shared rules are for whatever tools there will be.
    """
    named = rule.match.tools or ()
    names = sorted({tool.name for tool in tools})
    if rule.verdict == "allow" or any("*" in name or name in names for name in named):
        return []
    ends = f"these agents have it: {agents}; {_LETS_THROUGH[rule.verdict]}"
    return [
        (
            ("tools", position),
            f"{name!r} is no tool of any agent that has this policy{did_you_mean(name, names)} {ends}",
        )
        for position, name in enumerate(named)
    ]


def _unknown_names(rule: Rule, tools: Sequence[Tool]) -> Iterator[Located]:
    names = sorted(tool.name for tool in tools)
    for position, pattern in enumerate(rule.match.tools or ()):
        if not any(policy.fits_any((pattern,), name) for name in names):
            hint = did_you_mean(pattern, names)
            yield ("tools", position), f"{pattern!r} is no tool of this agent{hint} it has {', '.join(names)}"


def _unknown_tags(rule: Rule, tools: Sequence[Tool]) -> Iterator[Located]:
    tags = sorted({tag for tool in tools for tag in tool.tags})
    for position, tag in enumerate(rule.match.tags or ()):
        if tag not in tags:
            hint = did_you_mean(tag, tags)
            has = ", ".join(tags) or "none"
            yield ("tags", position), f"{tag!r} is a tag of no tool of this agent{hint} they have {has}"
