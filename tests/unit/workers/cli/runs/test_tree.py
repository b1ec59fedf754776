"""Lines of a drawn tree."""

from decimal import Decimal

import pytest

from mandate.workers.cli.output import Output
from mandate.workers.cli.runs.tree import draw_tree
from mandate.workers.history.tree import TreeRun
from mandate.workflows.contracts.model import Usage

LONG = "a long reason " * 12


def run(workflow_id: str, **keys: object) -> TreeRun:
    return TreeRun(workflow_id, agent="works", usage=Usage(cost_usd=Decimal("0.25")), **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        (run("a", status="running", doing="look"), ["a  works  running  $0.2500", "  look"]),
        (run("a", status="stopped", reason=LONG), ["a  works  stopped  $0.2500", f"  {LONG.strip()}"]),
        (
            run("a", status="running", is_silent=True, reason="no worker polls task queue 'q'"),
            ["a  works  running  $0.2500", "  does not answer: no worker polls task queue 'q'"],
        ),
        (
            run("a", status="waiting", doing="waiting for finance", requests=2, waits_for=("finance", "ann")),
            ["a  works  waiting  $0.2500  2 requests to finance, ann"],
        ),
        (run("a", kind="PlanWorkflow", status="completed"), ["a  plan  works  completed  $0.2500"]),
        (TreeRun("a", kind="OrderWorkflow", status="running"), ["a  (OrderWorkflow)  running"]),
        (TreeRun("a"), ["a  gone"]),
    ],
)
def test_a_run_is_one_or_two_whole_lines(capsys: pytest.CaptureFixture[str], made: TreeRun, lines: list[str]) -> None:
    Output().draw(draw_tree(made, "a"))

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == lines


def test_children_are_named_by_the_end_of_their_ids(capsys: pytest.CaptureFixture[str]) -> None:
    leaf = run("a/1b2c3d4e/c1/c2", status="completed")
    root = run("a", status="running", children=[run("a/1b2c3d4e/c1", status="running", children=[leaf])])

    Output().draw(draw_tree(root, leaf.workflow_id))

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "a  works  running  $0.2500",
        "└── 1b2c3d4e/c1  works  running  $0.2500",
        "    └── c2  works  completed  $0.2500  ← this run",
    ]


def test_what_an_agent_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output().draw(draw_tree(run("a", status="running", doing="says \x1b[31mred\nand [bold]more"), "a"))

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]more" in out
    assert len(out.splitlines()) == 2
