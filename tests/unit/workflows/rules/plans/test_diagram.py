"""Plans as pictures: all that matters is in them, within the width, and nothing of a plan breaks them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules.plain_text import make_plain_lines
from mandate.workflows.rules.plans.diagram import LEAST_WIDTH, draw, write_mermaid


def plan(*steps: dict[str, Any], **keys: Any) -> PlanSpec:
    return PlanSpec.model_validate({"name": "refunds", "steps": list(steps), **keys})


REFUNDS = plan(
    {"id": "write", "agent": "writer", "input": "steps.find.output", "when": "input.mail == true",
     "on_failure": "stop"},
    {"id": "find", "agent": "researcher"},
    {"id": "end", "plan": "audit", "input": "[steps.check.output, steps.write.output]", "attempts": 3,
     "success": "output.ok"},
    {"id": "check", "tool": "find_refund", "for_each": "steps.find.output.rows", "needs": 40, "max_parallel": 5,
     "on_failure": "continue"},
    output="steps.end.output",
)  # fmt: skip

DRAWN = """\
refunds: 4 steps in 3 levels, at most 50 at once

1  find   agent researcher

2  check  tool find_refund
          for each of steps.find.output.rows, at most 5 at once,
            40 must end well
          others go on if it fails
          <- find
   write  agent writer
          when input.mail == true
          the plan ends if it fails
          <- find

3  end    plan audit
          well if output.ok
          at most 3 attempts
          <- check, write

output: steps.end.output"""

MERMAID = """\
flowchart TD
    s1("find<br/>agent researcher")
    s2["check<br/>tool find_refund<br/>for each of steps.find.output.rows, at most 5 at once, 40 must end well<br/>\
others go on if it fails"]
    s3("write<br/>agent writer<br/>when input.mail == true<br/>the plan ends if it fails")
    s4[["end<br/>plan audit<br/>well if output.ok<br/>at most 3 attempts"]]
    s1 --> s2
    s1 --> s3
    s2 --> s4
    s3 --> s4"""


def test_a_plan_is_drawn_as_levels() -> None:
    assert draw(REFUNDS, 66) == DRAWN


def test_a_plan_is_a_flowchart() -> None:
    assert write_mermaid(REFUNDS) == MERMAID


def test_steps_that_can_never_begin_come_last() -> None:
    drawn = draw(
        plan(
            {"id": "a", "agent": "w", "depends_on": ["b"]},
            {"id": "b", "agent": "w", "depends_on": ["a"]},
            {"id": "c", "agent": "w", "depends_on": ["nobody"]},
        )
    )

    assert drawn.splitlines()[2:] == [
        "1  c  agent w", "      <- nobody", "", "-  a  agent w", "      <- b", "   b  agent w", "      <- a",
    ]  # fmt: skip


def test_long_ids_have_lines_of_their_own() -> None:
    long = "x" * 64
    drawn = draw(plan({"id": long, "agent": "w"}, {"id": "short", "agent": "w", "depends_on": [long]}), 40)

    assert drawn.splitlines()[3:] == [
        f"1  {long[:37]}", f"   {long[37:]}", "          agent w", "",
        "2  short  agent w", f"          <- {long[:27]}", f"             {long[27:54]}", f"             {long[54:]}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '"] --> x',
        "a\nb",
        "`x`",
        "<b>&amp;</b>",
        "#quot;",
        "end",
        "\\n",
        "]] click s1",
        "%%{init: {}}%%",
        "style x:#fff;",
    ],
)
def test_nothing_in_an_expression_leaves_its_label(text: str) -> None:
    written = write_mermaid(plan({"id": "end", "agent": "graph", "when": f"input == {text!r}"}))

    lines = written.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r'    s1\("end<br/>agent graph<br/>when (?:[^"#%&:;<>\\`{}]|#\d+;)*"\)', lines[1])


TEXTS = st.text(min_size=1, max_size=200).filter(str.strip)
IDS = ["a", "b-2", "c_long_name_of_a_step_that_is_not_short", "end"]
STEPS = st.fixed_dictionaries(
    {"tool": st.sampled_from(["t", "tool-with-a-long-name"])},
    optional={
        **dict.fromkeys(("when", "for_each", "success"), TEXTS),
        "depends_on": st.lists(st.sampled_from(IDS), unique=True),
    },
)


@given(st.lists(STEPS, min_size=1, max_size=4), st.integers(0, 200))
def test_no_line_is_too_long_and_no_step_is_left_out(drawn: list[dict[str, Any]], width: int) -> None:
    made = plan(*({"id": name, **step} for name, step in zip(IDS, drawn, strict=False)))

    picture = draw(made, width)

    assert max(map(len, picture.splitlines())) <= max(width, LEAST_WIDTH)
    without_spaces = "".join(picture.split())
    assert all(step.id in without_spaces for step in made.steps)
    assert make_plain_lines(picture) == picture


@given(st.lists(STEPS, min_size=1, max_size=4))
def test_flowchart_has_nodes_and_edges_only(drawn: list[dict[str, Any]]) -> None:
    made = plan(*({"id": name, **step} for name, step in zip(IDS, drawn, strict=False)))

    head, *lines = write_mermaid(made).splitlines()

    assert head == "flowchart TD"
    assert sum('"' in line for line in lines) == len(made.steps)
    assert all(re.fullmatch(r'    s\d+\["[^"`\\&\n]+"\]|    s\d+ --> s\d+', line) for line in lines)
