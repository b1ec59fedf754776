"""Outcomes of the calls of a tool, told from the rules alone: for people who read a policy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mandate.workflows.contracts.policy import Asking, Rule
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules import policy

ANYONE = "anyone"
"""Who is asked where nobody is named: everybody in the file of people but the requester."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that can become of a call."""

    kind: Literal["allow", "ask", "deny"]
    rule: str | None = None
    """`None` for calls that no rule matches."""
    when: str | None = None
    """The condition under which it does; `None`: whenever nothing stricter does."""
    who: tuple[str, ...] = ()
    """Whom `ask` asks."""
    quorum: int = 1

    def __str__(self) -> str:
        """`asks finance: rule large when args.amount >= 100.0`."""
        why = f"rule {self.rule}" if self.rule is not None else _no_rule(self.kind)
        when = " ".join(self.when.split()) if self.when else ""
        return f"{self._word()}: {why}{f' when {when}' if when else ''}"

    def _word(self) -> str:
        match self.kind:
            case "allow":
                return "runs"
            case "deny":
                return "refused"
            case "ask":
                several = f"{self.quorum} of " if self.quorum > 1 else ""
                return f"asks {several}{', '.join(self.who)}"


def outcomes(rules: Sequence[Rule], people: Asking, tool: Tool) -> tuple[Outcome, ...]:
    """Return what becomes of calls whatever their arguments, then what conditions add, the strictest last.

    Left out is what can never decide: all else beside a `deny` without a condition, `allow` beside such an `ask`.
    """
    matching = [rule for rule in rules if policy.matches(rule.match, tool)]
    found = [_outcome(rule, people) for rule in matching]
    denies, asks, allows = (
        [outcome for outcome in found if outcome.kind == kind and outcome.when is None]
        for kind in ("deny", "ask", "allow")
    )
    if denies:
        return (denies[0],)
    base = tuple(asks) or tuple(allows[:1]) or (_unmatched(people, tool),)
    looser = ("allow",) if not asks and not allows and base[0].kind == "ask" else ()
    added = [
        outcome
        for kind in (*looser, "ask", "deny")
        for outcome in found
        if outcome.kind == kind and outcome.when is not None
    ]
    return (*base, *added)


def runs_unasked(rules: Sequence[Rule], people: Asking, tools: Iterable[Tool]) -> dict[str, list[str]]:
    """Find the tools that change the world and run without a person or a condition, by the rule that lets them."""
    found: dict[str, list[str]] = {}
    for tool in tools:
        only = outcomes(rules, people, tool)
        if tool.effect.changes_world and len(only) == 1 and only[0].kind == "allow" and only[0].rule is not None:
            found.setdefault(only[0].rule, []).append(tool.name)
    return found


def _outcome(rule: Rule, people: Asking) -> Outcome:
    if rule.verdict != "ask":
        return Outcome(rule.verdict, rule.id, rule.when)
    return Outcome("ask", rule.id, rule.when, _asked(rule, people), rule.quorum or people.quorum or 1)


def _unmatched(people: Asking, tool: Tool) -> Outcome:
    if not tool.effect.changes_world:
        return Outcome("allow")
    return Outcome("ask", who=_asked(people, people), quorum=people.quorum or 1)


def _asked(asking: Asking, people: Asking) -> tuple[str, ...]:
    approvers = asking.approvers or people.approvers
    return (*approvers.groups, *approvers.users) if approvers is not None else (ANYONE,)


def _no_rule(kind: str) -> str:
    return "only reads" if kind == "allow" else "no rule allows it"
