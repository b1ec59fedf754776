"""Rules that match no tool of their agent."""

from typing import Any

import pytest

from mandate.workers.catalog.rule_matches import find_misses, find_unknown, find_vain_matches
from mandate.workflows.contracts.policy import Rule
from mandate.workflows.contracts.tool import Effect, Tool

TOOLS = [
    Tool(name="issue_refund", effect=Effect.KEYED, source="python", tags=("money",)),
    Tool(name="look_up", effect=Effect.READ, source="python"),
]
MISSPELT = "'isue_refund' is no tool of this agent; did you mean 'issue_refund'? it has issue_refund, look_up"
NO_SUCH_TAG = "'mony' is a tag of no tool of this agent; did you mean 'money'? they have money"

SHARED = (
    "'isue_refund' is no tool of any agent that has this policy; did you mean 'issue_refund'? these agents have it: "
    "clerk, shop; it"
)


def rule(verdict: str, match: dict[str, Any]) -> Rule:
    return Rule.model_validate({"id": "one", "verdict": verdict, "match": match})


@pytest.mark.parametrize(
    ("match", "faults"),
    [
        ({"tools": ["isue_refund"]}, [(("tools", 0), MISSPELT)]),
        ({"tools": ["pay_*"]}, [(("tools", 0), "'pay_*' is no tool of this agent; it has issue_refund, look_up")]),
        ({"tags": ["mony"]}, [(("tags", 0), NO_SUCH_TAG)]),
        ({"tools": ["*"], "tags": ["mony"]}, [(("tags", 0), NO_SUCH_TAG)]),
        ({"tools": ["issue_refund"], "effects": ["once"]}, [((), "no tool of this agent fits all of it")]),
        ({"tools": ["look_up"], "tags": ["money"]}, [((), "no tool of this agent fits all of it")]),
        # About tools of a kind, of which there may be none yet.
        ({"effects": ["once"]}, []),
        ({"sources": ["mcp"]}, []),
        ({}, []),
        ({"tools": ["issue_refund", "isue_refund"]}, []),
        ({"tools": ["issue_*", "pay_*"]}, []),
        ({"tags": ["money", "mony"]}, []),
    ],
)
def test_rule_that_names_no_tool_is_a_fault_if_it_asks_or_denies(match: dict[str, Any], faults: list[Any]) -> None:
    for verdict, ends in (("ask", "it asks about nothing"), ("deny", "it denies nothing")):
        assert find_misses(rule(verdict, match), TOOLS) == [(place, f"{said}; {ends}") for place, said in faults]
    assert find_misses(rule("allow", match), TOOLS) == []


@pytest.mark.parametrize(
    ("verdict", "match", "warnings"),
    [
        ("allow", {"tools": ["isue_refund"]}, [(("tools", 0), MISSPELT)]),
        ("allow", {"tags": ["mony"]}, [(("tags", 0), NO_SUCH_TAG)]),
        ("deny", {"tools": ["issue_refund", "isue_refund"]}, [(("tools", 1), MISSPELT)]),
        ("ask", {"tags": ["money", "mony"]}, [(("tags", 1), NO_SUCH_TAG)]),
        ("deny", {"tools": ["isue_refund"]}, []),
    ],
)
def test_what_is_no_fault_is_a_warning(verdict: str, match: dict[str, Any], warnings: list[Any]) -> None:
    assert find_vain_matches(rule(verdict, match), TOOLS) == warnings


@pytest.mark.parametrize(
    ("verdict", "match", "faults"),
    [
        (
            "deny",
            {"tools": ["isue_refund"]},
            [(("tools", 0), f"{SHARED} denies nothing")],
        ),
        ("ask", {"tools": ["isue_refund", "look_up"]}, []),
        ("ask", {"tools": ["pay_*"]}, []),
        ("ask", {"tags": ["mony"]}, []),
        ("allow", {"tools": ["isue_refund"]}, []),
    ],
)
def test_shared_rule_is_about_a_tool_of_some_agent(verdict: str, match: dict[str, Any], faults: list[Any]) -> None:
    assert find_unknown(rule(verdict, match), TOOLS, "clerk, shop") == faults
