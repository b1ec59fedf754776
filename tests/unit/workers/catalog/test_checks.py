"""Checks and probes of agent files: made whole when they fit their tools, else every fault with its place."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.agent import OfferedAgent, _pin
from mandate.activities.files import FileError
from mandate.activities.people.requesters import Requester
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.catalog.checks import named
from mandate.workers.catalog.readiness import missing_keys, script_faults
from mandate.workers.main import main
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.verification import CheckPin, CheckSpec, ProbePin, ProbeSpec
from tests.unit.workers.catalog.test_catalog import StubServers

HEAD = "name: shop\ninstructions: Help.\nmodels: [scripted:shop.script.yaml]\n"
"""Lines 1 to 3."""

TOOLS = """\
tools:
  - python: checked_shop:find_refund
  - python: checked_shop:issue_refund
  - activity: {name: look_around, task_queue: other}
    effect: read
    input_schema: {type: object, properties: {}}
"""
"""Lines 4 to 9."""

SHOP = '''
from mandate.activities.checks.functions import check
from mandate.activities.toolbox.decorator import tool

@tool(effect="read")
def find_refund(order: int, key: str = "") -> dict[str, object]:
    """Find a refund."""
    return {}

@tool
def issue_refund(order: int, amount: float, note: str | None = None) -> dict[str, object]:
    """Pay money back."""
    return {}

@check
def is_paid(result: object, args: object) -> bool:
    return True

@check
def is_short(answer: str) -> bool:
    return True

def undecorated(result: object) -> bool:
    return True
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: `checked_shop.py` beside the folder of agent files, which it returns."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "checked_shop", raising=False)
    (tmp_path / "checked_shop.py").write_text(SHOP)
    agents = tmp_path / "agents"
    agents.mkdir()
    return agents


async def load(folder: Path, more: str, tools: str = TOOLS, servers: StubServers | None = None) -> Loaded:
    (folder / "shop.yaml").write_text(HEAD + tools + more)
    catalog = await Catalog.load(folder, servers or StubServers(), secrets=Secrets({}))
    return catalog.agents["shop"]


async def faults_of(folder: Path, more: str, tools: str = TOOLS) -> list[str]:
    with pytest.raises(FileError) as refused:
        await load(folder, more, tools)
    return [line.removeprefix(f"{folder}/shop.yaml:") for line in str(refused.value).splitlines()]


CHECKS = """\
checks:
  - {after: issue_refund, tool: find_refund, with: {order: args.order}, expect: "result.ok", when: "tool.risk > 0.5"}
  - {after: issue_refund, python: "checked_shop:is_paid", unable: pass, timeout: 5s, retries: 0}
  - {after: issue_refund, tool: find_refund, with: {order: "1", key: key}, expect: "result.amount == args.amount"}
  - {after: find_refund, expect: "has(result.done)"}
  - {after: find_refund, schema: {type: array}}
  - {name: claims, after: final, model: "scripted:judge.script.yaml", rubric: All claims hold.}
  - {after: final, python: "checked_shop:is_short"}
  - {after: final, when: "run.calls.issue_refund > 0", expect: "size(result) > 3"}
"""


async def test_checks_are_pinned_with_their_names(folder: Path) -> None:
    loaded = await load(folder, CHECKS)

    assert [check.name for check in loaded.pinned.checks] == [
        "issue_refund_tool_1",
        "issue_refund_python_1",
        "issue_refund_tool_2",
        "find_refund_expect_1",
        "find_refund_schema_1",
        "claims",
        "final_python_1",
        "final_expect_1",
    ]
    assert loaded.pinned.checks[0].arguments == {"order": "args.order"}
    assert loaded.pinned.checks[4].result_schema == {"type": "array"}


async def test_workflow_holds_of_checks_and_probes_what_it_decides_with(folder: Path) -> None:
    more = CHECKS + "after_failure: next_model\nsame_call: 7\n"
    loaded = await load(folder, more, TOOLS.replace("issue_refund\n", "issue_refund\n    probe: find_refund\n"))

    pin = _pin(_offered(loaded), "memory-1", (), Requester("ann", "known"))

    assert pin.checks[0] == CheckPin(
        name="issue_refund_tool_1",
        after="issue_refund",
        kind="tool",
        when="tool.risk > 0.5",
        tool="find_refund",
        arguments={"order": "args.order"},
    )
    assert pin.checks[1] == CheckPin(
        name="issue_refund_python_1",
        after="issue_refund",
        kind="python",
        unable="pass",
        timeout=timedelta(seconds=5),
        retries=0,
    )
    assert pin.probes == {"issue_refund": ProbePin(tool="find_refund", arguments={"order": "args.order"})}
    assert (pin.after_failure, pin.same_call, pin.recovers) == ("next_model", 7, True)


def _offered(loaded: Loaded) -> Any:
    return OfferedAgent(digest=loaded.digest, content=loaded.content, pinned=loaded.pinned)


def test_made_names_keep_off_given_ones_and_fit() -> None:
    long = "t" * 64
    checks = (
        CheckSpec(after="pay", expect="true"),
        CheckSpec(name="pay_expect_1", after="pay", expect="true"),
        CheckSpec(after=long, expect="true"),
        CheckSpec(after=long, expect="true"),
    )

    names = [check.name for check in named(checks)]

    assert names == ["pay_expect_2", "pay_expect_1", f"{long[:55]}_expect_1", f"{long[:55]}_expect_2"]


async def test_short_probe_is_given_the_arguments_that_both_have(folder: Path) -> None:
    tools = TOOLS.replace("issue_refund\n", "issue_refund\n    probe: find_refund\n")
    loaded = await load(folder, "", tools)

    assert loaded.pinned.probes == {"issue_refund": ProbeSpec(tool="find_refund", arguments={"order": "args.order"})}


async def test_whole_probe_is_taken_as_it_is(folder: Path) -> None:
    probe = """{tool: find_refund, with: {order: args.order, key: key}, done: "size(result.items) == 1",
      not_done: "size(result.items) == 0", patience: 10m}"""
    loaded = await load(folder, "", TOOLS.replace("issue_refund\n", f"issue_refund\n    probe: {probe}\n"))

    assert loaded.pinned.probes["issue_refund"] == ProbeSpec(
        tool="find_refund",
        arguments={"order": "args.order", "key": "key"},
        done="size(result.items) == 1",
        not_done="size(result.items) == 0",
        patience=timedelta(minutes=10),
    )


async def test_probe_of_a_server_is_that_of_its_tools_that_change_the_world(folder: Path) -> None:
    tools = """\
tools:
  - mcp: {name: files, command: [npx]}
    effects: {read_file: read}
    probe: read_file
"""
    loaded = await load(folder, "", tools, StubServers(files=("read_file", "write_file", "move_file")))

    assert set(loaded.pinned.probes) == {"write_file", "move_file"}


READ = "so its tool has 'effect: read'"
ALL = "it has ask_person, find_refund, issue_refund, keep_in_mind, look_around, read_result"


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        (
            "{after: issue_refnd, expect: 'true'}",
            [
                (
                    "11:6: checks[0].after: 'issue_refnd' is neither 'final' nor a tool of this agent; "
                    f"did you mean 'issue_refund'? {ALL}"
                )
            ],
        ),
        ("{after: ask_person, expect: 'true'}", ["11:6: checks[0].after: 'ask_person' is built in and has no checks"]),
        (
            "{after: final, tool: find, expect: 'true'}",
            [f"11:20: checks[0].tool: 'find' is no tool of this agent; {ALL}"],
        ),
        (
            "{after: final, tool: issue_refund, with: {order: '1', amount: '2.5'}, expect: 'true'}",
            [f"11:20: checks[0].tool: 'issue_refund' is 'once'; a check only reads, {READ}"],
        ),
        (
            "{after: final, tool: look_around, expect: 'true'}",
            [
                (
                    "11:20: checks[0].tool: 'look_around' is a tool of kind 'activity'; "
                    "a check can call those of python, mcp, http"
                )
            ],
        ),
        (
            "{after: issue_refund, tool: find_refund, expect: 'true'}",
            ["11:5: checks[0]: 'find_refund' needs the argument 'order'"],
        ),
        (
            "{after: issue_refund, tool: find_refund, with: {ordr: '1'}, expect: 'true'}",
            [
                "11:46: checks[0].with: 'find_refund' needs the argument 'order'",
                (
                    "11:53: checks[0].with.ordr: is no argument of 'find_refund'; "
                    "did you mean 'order'? it has key, order"
                ),
            ],
        ),
        (
            "{after: issue_refund, tool: find_refund, with: {order: args.oder, key: args.amount}, expect: 'true'}",
            [
                (
                    "11:53: checks[0].with.order: column 5: args has no 'oder'; did you mean 'order'? "
                    "it has amount, note, order"
                ),
                "11:71: checks[0].with.key: column 1: has the type double, which is no string",
            ],
        ),
        (
            "{after: issue_refund, expect: 'result.ok = args.amount'}",
            [
                (
                    "11:27: checks[0].expect: column 11: Syntax error: token recognition error at: '= '; "
                    "CEL writes '==' for equality, '&&' for and, '||' for or, '!' for not"
                )
            ],
        ),
        (
            "{after: issue_refund, expect: 'args.amount + 1.0'}",
            ["11:27: checks[0].expect: column 1: has the type double; a condition is true or false"],
        ),
        (
            "{after: issue_refund, expect: 'args.amunt > 1.0', when: 'tool.risc > 0.5'}",
            [
                (
                    "11:27: checks[0].expect: column 5: args has no 'amunt'; did you mean 'amount'? "
                    "it has amount, note, order"
                ),
                (
                    "11:55: checks[0].when: column 5: tool has no 'risc'; did you mean 'risk'? "
                    "it has effect, name, risk, source, tags, untrusted"
                ),
            ],
        ),
        (
            "{after: final, expect: 'args.amount > 1.0', when: 'tool.risk > 0.5'}",
            [
                "11:20: checks[0].expect: column 5: there is no 'args'; it sees result",
                "11:49: checks[0].when: column 5: there is no 'tool'; it sees agent, run",
            ],
        ),
        (
            "{after: final, tool: find_refund, with: {order: 'key'}, expect: 'true'}",
            ["11:46: checks[0].with.order: column 1: there is no 'key'; it sees nothing"],
        ),
        (
            "{after: final, python: 'checked_shop:is_pad'}",
            [
                "11:20: checks[0].python: module 'checked_shop' has no function 'is_pad'; did you mean 'is_paid'?",
            ],
        ),
        (
            "{after: final, python: 'checked_shop:undecorated'}",
            ["11:20: checks[0].python: 'checked_shop:undecorated' is not decorated with @check"],
        ),
        (
            "{after: final, python: 'checked_shop:is_paid'}",
            [
                (
                    "11:20: checks[0].python: 'checked_shop:is_paid' takes 'args', which a check after the final "
                    "answer does not have; it has result, answer and context"
                )
            ],
        ),
        (
            "{after: find_refund, python: 'checked_shop:is_short'}",
            [
                (
                    "11:26: checks[0].python: 'checked_shop:is_short' takes 'answer', which a check after a tool "
                    "does not have; it has result, args and context"
                )
            ],
        ),
        (
            "{after: final, schema: {type: arry}}",
            [
                (
                    "11:20: checks[0].schema: the schema is not valid: type: 'arry' is not a type of JSON Schema; "
                    "there are array, boolean, integer, null, number, object, string"
                )
            ],
        ),
        (
            "{after: final, model: 'openai:a', models: ['openai:b'], rubric: x}",
            [
                (
                    "11:5: checks[0]: a check has exactly one of 'python', 'tool', 'model', 'models', 'schema', "
                    "or 'expect' alone"
                )
            ],
        ),
        (
            "{after: final, models: ['openai:b', 'openai:b'], rubric: x}",
            ["11:41: checks[0].models[1]: 'openai:b' is given twice"],
        ),
        (
            "{name: x, after: final, expect: 'true'}\n  - {name: x, after: find_refund, expect: 'true'}",
            ["12:6: checks[1].name: 'x' is the name of checks[0] too; each check has its own"],
        ),
    ],
)
async def test_fault_of_a_check_is_told_with_its_place(folder: Path, check: str, faults: list[str]) -> None:
    assert await faults_of(folder, f"checks:\n  - {check}\n") == faults


async def test_tool_whose_results_are_kept_has_no_check(folder: Path) -> None:
    tools = TOOLS.replace("find_refund\n", "find_refund\n    cache: 10m\n", 1)

    assert await faults_of(folder, "checks:\n  - {after: find_refund, expect: 'true'}\n", tools) == [
        (
            "12:6: checks[0].after: 'find_refund' has 'cache': a result that fails this check would be the answer "
            "again; leave out one"
        )
    ]


@pytest.mark.parametrize(
    ("probe", "faults"),
    [
        (
            "find_refnd",
            [f"7:5: tools[1].probe: 'find_refnd' is no tool of this agent; did you mean 'find_refund'? {ALL}"],
        ),
        (
            "{tool: find_refund, with: {order: args.order}, absent: 'size(reslt) == 0'}",
            ["7:59: tools[1].probe.absent: column 6: there is no 'reslt'; did you mean 'result'? it sees args, result"],
        ),
        ("issue_refund", [f"7:5: tools[1].probe: 'issue_refund' is 'once'; a probe only reads, {READ}"]),
        (
            "{tool: find_refund, with: {order: args.order}, done: resul.x, not_done: 'args.order'}",
            [
                "7:59: tools[1].probe.done: column 6: there is no 'resul'; did you mean 'result'? it sees args, result",
                "7:74: tools[1].probe.not_done: column 1: has the type int; a condition is true or false",
            ],
        ),
        (
            "{tool: find_refund, with: {key: key}}",
            ["7:32: tools[1].probe.with: 'find_refund' needs the argument 'order'"],
        ),
    ],
)
async def test_fault_of_a_probe_is_told_with_its_place(folder: Path, probe: str, faults: list[str]) -> None:
    tools = TOOLS.replace("issue_refund\n", f"issue_refund\n    probe: {probe}\n")

    assert await faults_of(folder, "", tools) == faults


async def test_short_probe_must_be_given_what_its_tool_needs(folder: Path) -> None:
    tools = """\
tools:
  - python: checked_shop:find_refund
  - activity: {name: charge, task_queue: other}
    probe: find_refund
    input_schema: {type: object, properties: {amount: {type: number}}}
"""
    assert await faults_of(folder, "", tools) == [
        (
            "7:5: tools[1].probe: 'find_refund' needs the argument 'order', which calls of 'charge' do not have; "
            "give it by 'tool' and 'with'"
        )
    ]


async def test_tool_that_only_reads_needs_no_probe(folder: Path) -> None:
    tools = TOOLS.replace("find_refund\n", "find_refund\n    probe: find_refund\n")

    assert await faults_of(folder, "", tools) == [
        "6:5: tools[0].probe: belongs to tools that change the world; a call that only reads is made again"
    ]


async def test_tool_may_not_be_named_as_the_answer_is(folder: Path) -> None:
    tools = "tools:\n  - {python: checked_shop:find_refund, name: final}\n"

    assert await faults_of(folder, "checks:\n  - {after: final, expect: 'true'}\n", tools) == [
        "7:6: checks[0].after: 'final' is the final answer, and a tool has that name too; set another 'name'"
    ]


async def test_models_of_checks_must_be_ready_too(folder: Path) -> None:
    (folder / "shop.yaml").write_text(
        HEAD
        + TOOLS
        + """\
checks:
  - {after: final, model: "openai:gpt-6-sol", rubric: x}
  - {after: final, model: "scripted:judge.script.yaml", rubric: x}
  - {after: final, models: ["scripted:judge.script.yaml", "anthropic:b"], rubric: x}
"""
    )
    (folder / "shop.script.yaml").write_text("turns: []\n")
    catalog = await Catalog.load(folder, StubServers(), secrets=Secrets({}))
    settings = Settings.from_environment({"MANDATE_AGENTS": str(folder)})

    assert catalog.providers() == {"openai", "scripted", "anthropic"}
    assert [(fault.line, fault.key) for fault in missing_keys(catalog, settings)] == [
        (11, "checks[0].model"),
        (13, "checks[2].models[1]"),
    ]
    scripts = [(fault.line, fault.key) for fault in script_faults(catalog, settings)]
    assert {(12, "checks[1].model"), (13, "checks[2].models[0]")} <= set(scripts)


def test_validate_shows_checks_and_probes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    probed = TOOLS.replace("issue_refund\n", "issue_refund\n    probe: find_refund\n")
    (folder / "shop.yaml").write_text(HEAD + probed + CHECKS)
    turn = {"turns": [{"say": "done"}]}
    for script in ("shop", "judge"):
        (folder / f"{script}.script.yaml").write_text(json.dumps(turn))

    plain = _validate(capsys, folder)
    told = json.loads(_validate(capsys, folder, "-o", "json"))

    assert "issue_refund_tool_1: by find_refund: result.ok, when tool.risk > 0.5" in plain
    assert "issue_refund_python_1: by checked_shop:is_paid; passes if that cannot be found out" in plain
    assert "claims: by scripted:judge.script.yaml" in plain
    (agent,) = told["agents"]
    refund = next(tool for tool in agent["tools"] if tool["name"] == "issue_refund")
    assert refund["checks"] == ["issue_refund_tool_1", "issue_refund_python_1", "issue_refund_tool_2"]
    assert (refund["probe"]["tool"], refund["probe"]["with"]) == ("find_refund", {"order": "args.order"})
    assert [(check["after"], check["by"]) for check in agent["checks"][-2:]] == [
        ("final", "python"),
        ("final", "expect"),
    ]


def _validate(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(folder), *more, "--color", "never"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return said.out
