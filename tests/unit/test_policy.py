"""Judging calls by rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.contracts.policy import Match, Rule, Verdict
from workflows.contracts.tool import Effect, Tool
from workflows.rules.policy import judge

LOOKUP = Tool(name="lookup_order", source="python", effect=Effect.READ)
REFUND = Tool(name="issue_refund", source="python", effect=Effect.KEYED, tags=("money",))
REMOVE = Tool(name="rm", source="mcp")


def rule(verdict: str, **match: object) -> Rule:
    return Rule.model_validate({"id": verdict, "match": match, "verdict": verdict})


@pytest.mark.parametrize(
    ("tool", "match", "fits"),
    [
        (REFUND, {}, True),
        (REFUND, {"tools": ["issue_refund"]}, True),
        (REFUND, {"tools": ["issue_*"]}, True),
        (REFUND, {"tools": ["*refund*"]}, True),
        (REFUND, {"tools": ["issue"]}, False),
        (REFUND, {"tools": ["issue.refund"]}, False),
        (REFUND, {"tools": ["*"]}, True),
        (REFUND, {"tools": ["other", "issue_refund"]}, True),
        (REFUND, {"effects": ["keyed"]}, True),
        (REFUND, {"effects": ["once", "read"]}, False),
        (REFUND, {"tags": ["money"]}, True),
        (REFUND, {"tags": ["other"]}, False),
        (REFUND, {"sources": ["python"]}, True),
        (REFUND, {"sources": ["mcp", "http"]}, False),
        (REFUND, {"tools": ["issue_refund"], "tags": ["other"]}, False),
        (LOOKUP, {"tags": ["money"]}, False),
    ],
)
def test_rule_matches_when_every_key_fits(tool: Tool, match: dict[str, object], fits: bool) -> None:
    verdict = judge((rule("deny", **match),), tool)

    assert (verdict.rule == "deny") is fits


def test_unnamed_effect_is_refused() -> None:
    verdict = judge((rule("allow", tools=["search"]),), REMOVE)

    assert verdict == Verdict(allowed=False, rule=None, reason="no rule names 'rm', which changes the world")


def test_unnamed_read_runs() -> None:
    verdict = judge((), LOOKUP)

    assert verdict == Verdict(allowed=True, rule=None, reason="no rule names 'lookup_order', which only reads")


def test_deny_wins_over_allow_whatever_the_order() -> None:
    rules = (rule("allow", tools=["*"]), rule("deny", tags=["money"]))

    assert judge(rules, REFUND) == judge(rules[::-1], REFUND)
    assert judge(rules, REFUND).reason == "rule 'deny' denies 'issue_refund'"


RULES = st.lists(
    st.builds(
        lambda number, verdict, tools: Rule(id=f"r{number}", match=Match(tools=tools), verdict=verdict),
        st.integers(0, 9),
        st.sampled_from(["allow", "deny"]),
        st.one_of(st.none(), st.lists(st.sampled_from(["rm", "r*", "x", "*"]), min_size=1).map(tuple)),
    ),
    max_size=8,
)


@given(RULES, RULES)
def test_more_rules_never_undo_a_refusal_by_rule(rules: list[Rule], more: list[Rule]) -> None:
    verdict = judge(rules, REMOVE)

    if verdict.rule is not None and not verdict.allowed:
        assert not judge((*more, *rules), REMOVE).allowed


@given(RULES)
def test_an_effect_runs_only_by_a_rule_that_allows_it(rules: list[Rule]) -> None:
    verdict = judge(rules, REMOVE)

    if verdict.allowed:
        assert any(rule.id == verdict.rule and rule.verdict == "allow" for rule in rules)
