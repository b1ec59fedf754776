"""`mandate plan validate`: all that is wrong with plans, or what each consists of, in words, drawings and JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mandate.workers.main import main

FINDER = """\
name: finder
instructions: Find.
models: [openai:gpt-6-sol]
output_schema: {type: object, properties: {order: {type: integer}, rows: {type: array, items: {type: number}}}}
"""
WRITER = "name: writer\ninstructions: Write.\nmodels: [openai:gpt-6-sol]\n"
REFUND = """\
name: refund
tools: [{python: "tests.support.toolkit:pay"}]
steps:
  - {id: write, agent: writer, input: steps.pay.output}
  - {id: pay, tool: pay, for_each: steps.find.output.rows, input: {order: steps.find.output.order, amount: item}}
  - {id: find, agent: finder}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `mandate plan validate` in a project."""
    monkeypatch.chdir(tmp_path)
    for name in ("MANDATE_AGENTS", "MANDATE_PLANS", "MANDATE_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for folder in ("agents", "plans"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mandate.yaml").write_text("")
    (tmp_path / "agents" / "finder.yaml").write_text(FINDER)
    (tmp_path / "agents" / "writer.yaml").write_text(WRITER)
    (tmp_path / "plans" / "refund.yaml").write_text(REFUND)

    def run(*words: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*before, "plan", "validate", *words])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return run


LINE = "refund  plans/refund.yaml  3 steps (2 agents, 1 tool, 1 for each of a list) in 3 levels\n"


@pytest.mark.parametrize("words", [[], ["refund"], ["plans/refund.yaml"]])
def test_a_plan_without_faults_is_one_line(run: Run, words: list[str]) -> None:
    assert run(*words) == (0, LINE, "")


def test_a_plan_is_drawn(run: Run) -> None:
    drawn = """
1  find   agent finder

2  pay    tool pay
          for each of steps.find.output.rows
          <- find

3  write  agent writer
          <- pay
"""

    assert run("--draw") == (0, f"{LINE}{drawn}", "")


def test_a_flowchart_is_all_that_is_printed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plans" / "other.yaml").write_text(
        "name: other\nsteps:\n  - {id: a, agent: writer, when: 'false'}\n  - {id: b, plan: refund, depends_on: [a]}\n"
    )
    other = 'flowchart TD\n    s1("a<br/>agent writer<br/>when false")\n    s2[["b<br/>plan refund"]]\n    s1 --> s2\n'
    warned = (
        "warning: plans/other.yaml:4:40: steps[1].depends_on[0]: needs step 'a', which never runs, since its 'when' is "
        "false; its output is null\n"
    )

    assert run("other", "--mermaid") == (0, other, warned)
    code, out, _ = run("--mermaid")
    assert code == 0
    assert out.startswith(f"%% other\n{other}\n%% refund\nflowchart TD\n")


def test_all_faults_are_told_with_their_places(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plans" / "bad.yaml").write_text(
        "name: bad\nsteps:\n  - {id: a, agent: findr, input: steps.b.output}\n  - {id: b, plan: refnd, input: Do it}\n"
        "output: steps.a.output.\n"
    )
    (tmp_path / "plans" / "worse.yaml").write_text("name: worse\nsteps: []\n")
    bad = [
        ("plans/bad.yaml:3:13: steps[0].agent: there is no agent 'findr'; did you mean 'finder'? there are finder, "
        "writer"),
        ("plans/bad.yaml:4:13: steps[1].plan: there is no plan 'refnd'; did you mean 'refund'? there are bad, refund, "
        "worse"),
        ("plans/bad.yaml:4:26: steps[1].input: 'Do it' cannot be evaluated: it is no expression of CEL (line 1, column "
        "4); a text has quotes of its own inside those of YAML: \"'...'\""),
        ("plans/bad.yaml:5:1: output: 'steps.a.output.' cannot be evaluated: it is no expression of CEL (line 1, "
        "column 16)"),
    ]  # fmt: skip
    worse = "plans/worse.yaml:2:1: steps: must not be empty"

    assert run() == (2, "", "\n".join([*bad, worse, ""]))
    assert run("bad") == (2, "", "\n".join([*bad, ""]))
    assert run("worse") == (2, "", f"{worse}\n")
    assert run("refund") == (0, LINE, "")
    code, out, _ = run("bad", "-o", "json")
    assert (code, json.loads(out)) == (2, {"valid": False, "plans": [], "warnings": [], "faults": bad})


def test_json_has_all(run: Run) -> None:
    code, out, err = run("--draw", before=("-o", "json"))

    (told,) = json.loads(out)["plans"]
    assert (code, err) == (0, "")
    assert (told["name"], told["steps"], told["levels"]) == (
        "refund", ["write", "pay", "find"], [["find"], ["pay"], ["write"]],
    )  # fmt: skip
    assert (told["agents"], told["tools"], told["plans"]) == (["finder", "writer"], ["pay"], [])
    assert told["drawing"].startswith("refund: 3 steps in 3 levels")
    assert json.loads(run("-o", "json", "--mermaid")[1])["plans"][0]["mermaid"].startswith("flowchart TD")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["refnd"], "there is no plan 'refnd' in 'plans'; did you mean 'refund'? there are refund"),
        (["x.yaml"], "x.yaml does not exist; name a plan file, or a plan of plans"),
        (["plans"], "plans is a folder; name a plan file or a plan, or set MANDATE_PLANS to it"),
        (["--draw", "--mermaid"], "--draw and --mermaid: give one of them"),
    ],
)
def test_bad_usage_is_one_sentence(run: Run, words: list[str], told: str) -> None:
    assert run(*words) == (2, "", f"error: {told}\n")


def test_where_there_are_no_plans_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    way = "write one, name a plan file as FILE, or set MANDATE_PLANS to their folder"

    monkeypatch.setenv("MANDATE_PLANS", "nowhere")
    assert run() == (2, "", f"error: nowhere does not exist; {way}\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("MANDATE_PLANS", "empty")
    assert run() == (2, "", f"error: empty has no plan files (*.yaml); {way}\n")


def test_faults_of_agents_are_told_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "agents" / "finder.yaml").write_text(FINDER.replace("instructions", "instruction"))

    code, out, err = run()

    assert (code, out) == (2, "")
    assert "agents/finder.yaml:2:1: instruction: is not a key that is known here" in err
