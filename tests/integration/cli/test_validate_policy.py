"""`mandate validate` with policies: what can become of calls, what is left open, examples, and single calls."""

import json
import sys
from pathlib import Path
from typing import cast

import pytest

from mandate.workers.main import main

SHOP = '''
from mandate.activities.toolbox.decorator import tool

@tool(effect="keyed", tags=["refund"])
def issue_refund(order: int, amount: float, note: str = "") -> str:
    """Pay back."""
    return ""

@tool(effect="once", tags=["payroll"], risk=0.9)
def pay_salary(person: str) -> str:
    """Pay."""
    return ""

@tool(effect="once")
def send_note(text: str) -> str:
    """Send."""
    return ""

@tool(effect="read")
def look_up(order: int) -> str:
    """Look."""
    return ""
'''

AGENT = """\
name: refunds
instructions: Help.
models: [scripted:x.script.yaml]
tools:
  - python: validate_shop:look_up
  - python: validate_shop:issue_refund
  - python: validate_shop:pay_salary
  - python: validate_shop:send_note
policy:
  - {id: small, match: {tools: [issue_refund]}, verdict: allow}
  - id: large
    match: {tools: [issue_refund]}
    when: run.totals.issue_refund.amount + args.amount > 100.0
    verdict: ask
    approvers: {groups: [finance]}
    quorum: 2
    because: Large refunds are for finance.
policies: [limits]
"""

LIMITS = """\
name: limits
rules:
  - {id: payroll, match: {tags: [payroll]}, verdict: deny, because: No agent pays salaries.}
  - {id: lunch, match: {tags: [refund]}, when: run.now.getHours() == 12, verdict: deny}
examples:
  - {name: salary, call: {tool: pay, tags: [payroll]}, verdict: deny, rule: payroll}
  - name: refund
    call: {tool: issue_refund, tags: [refund]}
    run: {now: 2026-11-02T09:00:00Z}
    verdict: ask
    rule: null
  - name: refund of the agent
    agent: refunds
    call: {tool: issue_refund, args: {order: 1, amount: 60}}
    run: {now: 2026-11-02T09:00:00Z, calls: {issue_refund: 1}, totals: {issue_refund: {amount: 60.0}}}
    verdict: ask
    rule: large
"""

PEOPLE = "people: [{name: ann, groups: [finance]}, {name: bob, groups: [finance]}]\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one agent and one policy, in which commands run."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "validate_shop", raising=False)
    for name in ("MANDATE_POLICIES", "MANDATE_JWKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MANDATE_AGENTS", "agents")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "validate_shop.py").write_text(SHOP)
    monkeypatch.setenv("MANDATE_PEOPLE", "people.yaml")
    (tmp_path / "people.yaml").write_text(PEOPLE)
    (tmp_path / "agents").mkdir()
    (tmp_path / "policies").mkdir()
    (tmp_path / "agents" / "x.script.yaml").write_text("turns: [{say: Hello.}]")
    (tmp_path / "agents" / "refunds.yaml").write_text(AGENT)
    (tmp_path / "policies" / "limits.yaml").write_text(LIMITS)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and the lines of stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["validate", *words, "--color", "never"])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err.splitlines()


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    code, out, _ = run(capsys, *words, "-o", "json")
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer | {"code": code}


@pytest.mark.parametrize(
    ("control", "line", "known"),
    [
        ("", "anyone may steer, pause, resume and stop runs: people.yaml has no `control`", None),
        (
            "control: {groups: [finance], users: [ann]}\n",
            "group finance, ann may steer, pause, resume and stop runs: says people.yaml",
            {"groups": ["finance"], "users": ["ann"]},
        ),
    ],
)
def test_who_controls_runs_is_told(
    project: Path, capsys: pytest.CaptureFixture[str], control: str, line: str, known: object
) -> None:
    with (project / "people.yaml").open("a") as file:
        file.write(control)

    _, out, _ = run(capsys)

    assert f"control     {line}\n" in out
    assert told(capsys)["control"] == known


def test_each_tool_says_what_can_become_of_its_calls(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = run(capsys)

    table = out[out.index("  tool ") : out.index("  read_result ")].splitlines()
    at = table[0].index("when called")
    assert (code, errors) == (0, [])
    assert [(line[:at].split()[:1], line[at:]) for line in table[1:]] == [
        (["look_up"], "runs: only reads"),
        (["issue_refund"], "runs: rule small"),
        ([], "asks 2 of finance: rule large when run.totals.issue_refund.amount + args.amount > 100.0"),
        ([], "refused: rule lunch when run.now.getHours() == 12"),
        (["pay_salary"], "refused: rule payroll"),
        (["send_note"], "asks anyone: no rule allows it"),
    ]
    assert "  no rule allows send_note: each call waits for a person; allow it in `policy`\n" in out
    assert "  policies  limits\n" in out
    assert out.endswith("limits  policies/limits.yaml\n  2 rules, 3 examples: 3 of 3 as written\n")


@pytest.mark.parametrize(
    ("line", "has_people", "says", "wants", "signed"),
    [
        ("", True, "somebody in the file of people, else what a run asks can only be rejected", "known", False),
        ("requester: required", True, "required, somebody in the file of people", "required", False),
        ("people: {signature: required}", True, "required, somebody in the file of people, with a signed token",
         "required", True),
        ("requester: anyone", True, "anyone, who may then approve what they asked for: says the agent file",
         "anyone", False),
        ("requester: anyone\npeople: {signature: required}", True,
         "anyone, who may then approve what they asked for: says the agent file", "anyone", False),
        ("", False, "anyone, who may then approve what they asked for: there is no file of people (MANDATE_PEOPLE)",
         "anyone", False),
        ("requester: required", False, "required, any name: there is no file of people", "required", False),
    ],
)  # fmt: skip
def test_each_agent_says_who_may_ask_for_a_run(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    has_people: bool,
    says: str,
    wants: str,
    signed: bool,
) -> None:
    text = AGENT.replace("    approvers: {groups: [finance]}\n", "")
    (project / "agents" / "refunds.yaml").write_text(f"{text}{line}\n")
    if not has_people:
        monkeypatch.delenv("MANDATE_PEOPLE")

    _, out, _ = run(capsys)
    (agent,) = cast(list[dict[str, object]], told(capsys)["agents"])

    assert f"\n  requester {says}\n" in out
    assert (agent["requester"], agent["signed_start"]) == (wants, signed)


def test_same_is_told_to_programs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = told(capsys)

    (agent,) = answer["agents"]  # type: ignore[misc]
    refund = next(tool for tool in agent["tools"] if tool["name"] == "issue_refund")
    assert (answer["code"], answer["valid"], answer["faults"]) == (0, True, [])
    assert (agent["policies"], agent["open"], agent["unasked"]) == (["limits"], ["send_note"], {})
    assert (refund["allowed"], refund["rule"], refund["tags"], refund["risk"]) == (True, "small", ["refund"], 0.0)
    assert refund["outcomes"][1] == {
        "verdict": "ask",
        "rule": "large",
        "when": "run.totals.issue_refund.amount + args.amount > 100.0",
        "asks": ["finance"],
        "quorum": 2,
    }
    (policy,) = answer["policies"]  # type: ignore[misc]
    assert (policy["name"], policy["rules"]) == ("limits", ["payroll", "lunch"])
    assert [(result["name"], result["agent"], result["as_written"]) for result in policy["examples"]] == [
        ("salary", None, True),
        ("refund", None, True),
        ("refund of the agent", "refunds", True),
    ]


def test_group_that_nobody_knows_is_a_fault(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "people.yaml").write_text("people: [{name: ann, groups: [finanz]}]\n")

    code, _, errors = run(capsys)

    assert (code, len(errors)) == (2, 1)
    assert errors[0].startswith("agents/refunds.yaml:15:")
    assert "'finance'" in errors[0]


def test_policy_that_opens_all_is_told_what_that_opens(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = "policy:\n  - {id: all, match: {}, verdict: allow}\n"
    (project / "agents" / "refunds.yaml").write_text(AGENT.replace("policy:\n", everything, 1))

    code, out, _ = run(capsys)

    line = "  rule all lets send_note change the world without a person and without a condition\n"
    assert (code, line in out) == (0, True)
    assert told(capsys)["agents"][0]["unasked"] == {"all": ["send_note"]}  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "verdict: deny, rule: payroll}",
            "verdict: ask}",
            ("6:56: examples[0].verdict: example 'salary': wanted ask, "
            "got deny by rule 'payroll': rule 'payroll' denies 'pay': No agent pays salaries"),
        ),
        (
            "verdict: deny, rule: payroll}",
            "verdict: deny, rule: lunch}",
            ("6:56: examples[0].verdict: example 'salary': wanted deny by rule 'lunch', "
            "got deny by rule 'payroll': rule 'payroll' denies 'pay': No agent pays salaries"),
        ),
        (
            "verdict: deny, rule: payroll}",
            "verdict: deny, rule: null}",
            ("6:56: examples[0].verdict: example 'salary': wanted deny by no rule, "
            "got deny by rule 'payroll': rule 'payroll' denies 'pay': No agent pays salaries"),
        ),
        (
            "amount: 60}",
            "amount: 30}",
            ("16:5: examples[2].verdict: example 'refund of the agent': wanted ask by rule 'large', "
            "got allow by rule 'small': rule 'small' allows 'issue_refund'"),
        ),
        (
            "amount: 60}",
            "amont: 60}",
            ("14:5: examples[2].call: example 'refund of the agent': the arguments do not fit tool 'issue_refund', "
            "so no rule is read: "),
        ),
        (
            "agent: refunds",
            "agent: refnds",
            "13:5: examples[2].agent: 'refnds' is no agent that names this policy; there are refunds",
        ),
        (
            "run.now.getHours() == 12",
            "run.noon",
            ("4:42: rules[1].when: rule 'lunch', agent 'refunds', column 4: run has no 'noon'; "
            "it has budget_left_usd, calls, cost_usd, depth, id, labels, now, period_cost_usd, requester, speaker, "
            "step, tainted, tokens, totals"),
        ),
    ],
)  # fmt: skip
def test_difference_is_a_fault(
    old: str, new: str, fault: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "policies" / "limits.yaml").write_text(LIMITS.replace(old, new))

    code, _, errors = run(capsys)

    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(f"policies/limits.yaml:{fault}")
    assert told(capsys)["valid"] is False


def test_policy_file_is_checked_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("policies/limits.yaml", "policies"):
        assert run(capsys, source) == (
            0,
            (
                "limits  policies/limits.yaml\n"
                "  2 rules, 3 examples: 2 of 2 as written\n"
                "  example 'refund of the agent' is about agent 'refunds', which is not checked here\n"
            ),
            [],
        )


def test_policy_that_no_agent_names_is_checked_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "{id: a, match: {}, when: agnt.name, verdict: deny}"
    (project / "policies" / "other.yaml").write_text(f"name: other\nrules: [{rule}]\n")

    assert run(capsys)[0::2] == (
        2,
        [
            (
                "policies/other.yaml:2:28: rules[0].when: rule 'a', column 5: there is no 'agnt'; "
                "did you mean 'agent'? a condition sees agent, args, run, tool"
            )
        ],
    )


CALL = """\
agent: refunds
call: {tool: issue_refund, args: {order: 81, amount: 60}}
run: {now: 2026-11-02T09:00:00Z, calls: {issue_refund: 1}, totals: {issue_refund: {amount: 60.0}}}
"""


def test_single_call_says_verdict_and_every_rule(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "call.yaml").write_text(CALL)

    code, out, errors = run(capsys, "--call", "call.yaml")

    lines = [line.rstrip() for line in out.splitlines()]
    assert (code, errors) == (0, [])
    assert lines[0] == "asks people: rule 'large' asks people about 'issue_refund': Large refunds are for finance"
    assert [line.split(maxsplit=3) for line in lines[3:]] == [
        ["small", "allow", "yes", "it has no condition, and the tool fits"],
        ["large", "ask", "yes", "its condition is true"],
        ["payroll", "deny", "no", "its 'tags' do not fit the tool"],
        ["lunch", "deny", "no", "its condition is false"],
    ]


def test_single_call_is_told_to_programs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "call.json").write_text('{"call": {"tool": "pay_salary", "args": {"person": "ann"}}}')

    answer = told(capsys, "--call", "call.json", "agents/refunds.yaml")

    assert (answer["agent"], answer["tool"], answer["verdict"], answer["rule"]) == (
        "refunds", "pay_salary", "deny", "payroll",
    )  # fmt: skip
    assert answer["reason"] == "rule 'payroll' denies 'pay_salary': No agent pays salaries"
    assert [(rule["rule"], rule["matched"]) for rule in answer["rules"]] == [  # type: ignore[attr-defined]
        ("small", False), ("large", False), ("payroll", True), ("lunch", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("agent: x\ncall: {tool: x}\n", "call.yaml: agent: 'x' is no agent that is known here; there are refunds"),
        (
            "call: {tool: refund}\n",
            ("call.yaml: agent 'refunds' has no tool 'refund'; "
            "it has ask_person, issue_refund, keep_in_mind, look_up, pay_salary, read_result, send_note"),
        ),
        (
            "call: {tool: look_up, args: {order: x}}\n",
            "call.yaml: the arguments do not fit tool 'look_up', so no rule is read: ",
        ),
        (
            "call: {tool: look_up, args: {order: 1}}\nrun: {totals: {isue_refund: {amount: 1.0}}}\n",
            ("call.yaml: run.totals: agent 'refunds' has no tool 'isue_refund'; "
            "it has ask_person, issue_refund, keep_in_mind, look_up, pay_salary, read_result, send_note"),
        ),
        (
            "call: {tool: look_up, args: {order: 1}}\nrun: {totals: {issue_refund: {amuont: 1.0}}}\n",
            "call.yaml: run.totals.issue_refund: the tool has no number 'amuont'; it has order, amount",
        ),
        (
            "call: {tool: look_up, args: {order: 1}}\nrun: {calls: {look: 1}}\n",
            "call.yaml: run.calls: agent 'refunds' has no tool 'look'; it has ",
        ),
        (
            "call: {tool: look_up, args: {order: 1}}\nrun: {calls: {look_up: -1}}\n",
            "call.yaml:2:15: run.calls.look_up: -1: must be at least 0",
        ),
        ("call: {tol: x}\n", "call.yaml:1:1: call.tool: is missing: Name of the tool.; call.yaml:1:8: "),
        ("- a\n", "call.yaml:1:1: is not a mapping with 'call'"),
    ],
)  # fmt: skip
def test_call_that_cannot_be_judged_is_refused(
    text: str, sentence: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "call.yaml").write_text(text)

    code, out, errors = run(capsys, "--call", "call.yaml")

    assert (code, out) == (2, "")
    assert errors[0].startswith(f"error: {sentence}")


def test_sum_that_is_no_number_any_more_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals = '{"totals": {"issue_refund": {"amount": 1e400}}}'
    (project / "call.json").write_text(f'{{"call": {{"tool": "look_up", "args": {{"order": 1}}}}, "run": {totals}}}')

    code, out, errors = run(capsys, "--call", "call.json")

    assert (code, out) == (2, "")
    assert errors == ["error: call.json: run.totals.issue_refund.amount: inf is not a finite number"]


@pytest.mark.parametrize(
    ("words", "title"),
    [([], "Mandate agent file"), (["agent"], "Mandate agent file"), (["policy"], "Mandate policy file"),
     (["call"], "Mandate call file"), (["plan"], "Mandate plan file")],
)  # fmt: skip
def test_schemas_are_printed(words: list[str], title: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--schema", *words)

    assert (code, json.loads(out)["title"]) == (0, title)


def test_schema_of_nothing_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = "agent, policy, plan, call, budgets, providers, triggers"
    assert run(capsys, "--schema", "people") == (
        2,
        "",
        [f"error: --schema prints the schema of {kinds} files, not 'people'"],
    )
