"""Shared policies: what is read, every fault with its place, and how their rules join those of an agent."""

import sys
from pathlib import Path

import jsonschema_rs
import pytest

from mandate.activities.files import FileError
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.examples import run_examples
from mandate.workers.catalog.policies import policy_folder, policy_schema, read_policy_file
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

PROJECT = Path(__file__).parents[4]
ESCALATION = PROJECT / "deploy" / "policies" / "escalation.yaml"
AGENT = "instructions: Help.\nmodels: [openai:gpt-6-sol]\n"
RULES = "name: limits\nrules:\n"
RULE_KEYS = "approvers, because, expires, id, match, on_expiry, quorum, rejections, remind, signature, verdict, when"

SHOP = '''
from mandate.activities.toolbox.decorator import tool

@tool(effect="keyed", tags=["refund", "financial"], risk=0.4)
def issue_refund(order: int, amount: float) -> str:
    """Pay back."""
    return ""

@tool(effect="once", tags=["financial"])
def pay(cents: int) -> str:
    """Pay."""
    return ""

@tool(effect="read", tags=["refund"])
def list_refunds(order: int) -> str:
    """Look."""
    return ""

@tool(effect="once", tags=["order"])
def place_order(sku: str, quantity: int) -> str:
    """Order."""
    return ""

@tool(effect="once", tags=["signature"])
def sign(document: str) -> str:
    """Sign."""
    return ""

@tool(effect="once", tags=["deployment"], risk=0.9)
def deploy(service: str) -> str:
    """Deploy."""
    return ""
'''


class NoServers:
    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        raise AssertionError(entry)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `agents`, `policies` and the module `policy_shop`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "policy_shop", raising=False)
    (tmp_path / "policy_shop.py").write_text(SHOP)
    (tmp_path / "agents").mkdir()
    (tmp_path / "policies").mkdir()
    return tmp_path


def write_agent(project: Path, more: str, *tools: str, name: str = "shop") -> None:
    entries = "".join(f"  - python: policy_shop:{tool}\n" for tool in tools)
    (project / "agents" / f"{name}.yaml").write_text(f"name: {name}\n{AGENT}tools:\n{entries}{more}")


def write_policy(project: Path, name: str, rules: str) -> None:
    (project / "policies" / f"{name}.yaml").write_text(f"name: {name}\nrules:\n{rules}")


async def load(project: Path, policies: Path | None = None) -> Catalog:
    return await Catalog.load(project / "agents", NoServers(), secrets=Secrets({}), policies=policies)


async def faults_of(project: Path) -> list[str]:
    with pytest.raises(FileError) as refused:
        await load(project)
    return [line.replace(f"{project}/", "") for line in str(refused.value).splitlines()]


def lines_of(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        read_policy_file(path)
    return [str(fault).removeprefix(f"{path}:") for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", [" is empty"]),
        ("- a\n", ["1:1: is not a mapping with 'name' and 'rules'"]),
        ("name: a\nb", ["2:2: is not valid YAML: while scanning a simple key, could not find expected ':'"]),
        ("name: limits\n", ["1:1: rules: is missing: Rules, merged with those of the agent file."]),
        ("name: limits\nrules: []\n", ["2:1: rules: must not be empty"]),
        (
            "name: limit\nrules: [{id: a, match: {}, verdict: deny}]\n",
            ["1:1: name: 'limit' is not the name of its file, 'limits.yaml' without '.yaml'"],
        ),
        (
            RULES + "  - {id: a, match: {}, verdict: ask}\n  - {id: a, match: {}, verdict: allow}\n",
            ["4:6: rules[1].id: 'a' is the id of rules[0] too; each rule has its own"],
        ),
        (
            RULES
            + """\
  - {id: a, match: {tool: [x]}, verdict: ask, quorum: 0}
  - {id: a, match: {}, verdict: allow, expires: 1h}
  - {id: 1, match: {}, verdict: maybe, wen: x}
  - {id: b, match: {}, verdict: ask, on_expiry: {escalate: {}}, remind: 30}
examples:
  - {name: one, call: {tool: x, arg: {}}, verdict: ask}
  - {name: two, call: {tool: x}, run: {now: noon, totals: {x: 3}}}
""",
            [
                ("3:21: rules[0].match.tool: is not a key that is known here; did you mean 'tools'? "
                "allowed are effects, sources, tags, tools"),
                "3:47: rules[0].quorum: 0: must be at least 1",
                "4:40: rules[1].expires: belongs to rules with 'verdict: ask', not 'allow'",
                "5:6: rules[2].id: 1 is not a text; put it in quotes",
                "5:24: rules[2].verdict: 'maybe' is not one of allow, ask, deny",
                f"5:40: rules[2].wen: is not a key that is known here; did you mean 'when'? allowed are {RULE_KEYS}",
                "6:50: rules[3].on_expiry.escalate: names nobody; give 'users', 'groups' or both",
                "6:65: rules[3].remind: 30: a duration needs a unit, for example '30s', '5m', '2h' or '1d'",
                ("8:33: examples[0].call.arg: is not a key that is known here; did you mean 'args'? "
                "allowed are args, effect, risk, source, tags, tool"),
                "9:5: examples[1].verdict: is missing: What must become of it.",
                "9:40: examples[1].run.now: 'noon' is not a time with its zone, for example 2026-11-02T09:00:00Z",
                "9:60: examples[1].run.totals.x: 3 is not a mapping",
            ],
        ),
    ],
)  # fmt: skip
def test_every_fault_is_told_with_its_place(text: str, faults: list[str], tmp_path: Path) -> None:
    assert lines_of(text, tmp_path) == faults


def test_schema_is_for_editors() -> None:
    validator = jsonschema_rs.Draft202012Validator(policy_schema())

    assert validator.is_valid({"name": "a", "rules": [{"id": "a", "match": {}, "verdict": "deny"}]})
    assert not validator.is_valid({"name": "a", "rules": [{"id": "a", "match": {}, "verdict": "dny"}]})
    assert policy_schema()["title"] == "Mandate policy file"


async def test_rules_of_the_agent_come_first_then_those_of_its_policies_in_order(project: Path) -> None:
    write_policy(project, "zeta", "  - {id: z, match: {}, verdict: deny}\n")
    write_policy(project, "beta", "  - {id: b1, match: {}, verdict: allow}\n  - {id: b2, match: {}, verdict: allow}\n")
    write_policy(project, "unused", "  - {nonsense\n")
    write_agent(
        project,
        "policy: [{id: own, match: {}, verdict: allow}]\npolicies: [zeta, beta]\npeople: {quorum: 2}\n",
        "issue_refund",
    )

    catalog = await load(project)

    loaded = catalog.agents["shop"]
    assert [rule.id for rule in loaded.pinned.policy] == ["own", "z", "b1", "b2"]
    assert loaded.pinned.people.quorum == 2
    assert (loaded.policies, list(catalog.policies)) == (("zeta", "beta"), ["zeta", "beta"])


async def test_version_of_an_agent_changes_with_a_shared_file(project: Path) -> None:
    write_agent(project, "policies: [limits]\n", "issue_refund")
    write_policy(project, "limits", "  - {id: a, match: {}, verdict: deny}\n")
    before = (await load(project)).agents["shop"].digest

    write_policy(project, "limits", "  - {id: a, match: {}, verdict: allow}\n")

    assert (await load(project)).agents["shop"].digest != before


async def test_policy_that_does_not_exist_is_told_with_those_that_do(project: Path) -> None:
    write_policy(project, "limits", "  - {id: a, match: {}, verdict: deny}\n")
    write_policy(project, "escalation", "  - {id: a, match: {}, verdict: deny}\n")
    write_agent(project, "policies: [escalaton]\n", "issue_refund")

    assert await faults_of(project) == [
        (
            "agents/shop.yaml:6:12: policies[0]: 'escalaton' is no policy file of 'policies'; "
            "did you mean 'escalation'? there are escalation, limits"
        )
    ]


async def test_missing_folder_is_named(project: Path) -> None:
    (project / "policies").rmdir()
    write_agent(project, "policies: [limits]\n", "issue_refund")

    (fault,) = await faults_of(project)

    assert fault == (
        "agents/shop.yaml:6:12: policies[0]: 'limits': there is no folder 'policies'; "
        "MANDATE_POLICIES names that of policy files"
    )


async def test_rule_ids_are_unique_over_all_files(project: Path) -> None:
    write_policy(project, "one", "  - {id: own, match: {}, verdict: deny}\n")
    write_policy(project, "two", "  - {id: x, match: {}, verdict: deny}\n")
    write_policy(project, "three", "  - {id: x, match: {}, verdict: deny}\n")
    write_agent(project, "policy:\n  - {id: own, match: {}, verdict: allow}\npolicies: [one, two, three]\n", "pay")

    assert await faults_of(project) == [
        (
            "agents/shop.yaml:8:12: policies[0]: rule 'own' at policies/one.yaml:3 has the id of the rule at "
            "agents/shop.yaml:7; each has its own"
        ),
        (
            "agents/shop.yaml:8:22: policies[2]: rule 'x' at policies/three.yaml:3 has the id of the rule at "
            "policies/two.yaml:3; each has its own"
        ),
    ]


async def test_faults_of_named_policies_and_of_agents_come_together(project: Path) -> None:
    write_policy(project, "limits", "  - {id: a, match: {}, verdict: dny}\n")
    rule = "  - id: large\n    match: {tags: [financial]}\n    when: args.amont > 100.0\n    verdict: deny\n"
    write_policy(project, "large", rule)
    write_agent(project, "policies: [limits]\n", "issue_refund")
    write_agent(project, "policies: [large]\n", "issue_refund", "pay", name="till")
    write_agent(project, "attempts: 0\n", "pay", name="zero")

    assert await faults_of(project) == [
        "agents/zero.yaml:6:1: attempts: 0: must be at least 1",
        (
            "policies/large.yaml:5:5: rules[0].when: rule 'large', agent 'till', tool 'issue_refund', column 5: "
            "args has no 'amont'; did you mean 'amount'? it has amount, order"
        ),
        (
            "policies/large.yaml:5:5: rules[0].when: rule 'large', agent 'till', tool 'pay', column 5: "
            "args has no 'amont'; it has cents"
        ),
        "policies/limits.yaml:3:24: rules[0].verdict: 'dny' is not one of allow, ask, deny",
    ]


async def test_condition_of_an_agent_stops_its_start(project: Path) -> None:
    write_agent(
        project,
        "policy:\n  - id: small\n    match: {tools: [issue_refund]}\n    when: args.amount < 100\n    verdict: allow\n",
        "issue_refund",
    )

    assert await faults_of(project) == [
        (
            "agents/shop.yaml:9:5: policy[0].when: rule 'small', tool 'issue_refund', column 13: "
            "found no matching overload for '<' applied to '(double, int)'; "
            "write a whole number as 100.0, or double(...) around it"
        )
    ]


async def test_policy_about_none_of_the_tools_is_a_warning(project: Path) -> None:
    write_policy(project, "limits", "  - {id: a, match: {tags: [payroll]}, when: args.x > 1, verdict: deny}\n")
    write_agent(project, "policies: [limits]\n", "issue_refund")

    catalog = await load(project)

    assert [str(warning).replace(f"{project}/", "") for warning in catalog.warnings] == [
        "agents/shop.yaml:6:12: policies[0]: no rule of policy 'limits' is about a tool of this agent"
    ]


async def test_shared_rule_must_be_about_a_tool_of_some_agent_of_the_folder(project: Path) -> None:
    write_policy(project, "limits", "  - {id: a, match: {tools: [plce_order]}, verdict: deny}\n")
    write_agent(project, "policies: [limits]\n", "issue_refund")
    write_agent(project, "policies: [limits]\n", "issue_refund", name="other")
    fault = (
        "policies/limits.yaml:3:29: rules[0].match.tools[0]: 'plce_order' is no tool of any agent that has this policy"
        "{} these agents have it: other, shop; it denies nothing"
    )

    assert await faults_of(project) == [fault.format(";")]

    write_agent(project, "policies: [limits]\n", "issue_refund", "place_order")
    assert await faults_of(project) == [fault.format("; did you mean 'place_order'?")]

    write_policy(project, "limits", "  - {id: a, match: {tools: [place_order]}, verdict: deny}\n")
    catalog = await load(project)
    assert [str(warning).replace(f"{project}/", "") for warning in catalog.warnings] == [
        "agents/other.yaml:6:12: policies[0]: no rule of policy 'limits' is about a tool of this agent"
    ]


async def test_one_file_is_not_held_to_rules_about_tools_of_others(project: Path) -> None:
    write_policy(project, "limits", "  - {id: a, match: {tools: [place_order]}, verdict: deny}\n")
    write_agent(project, "policies: [limits]\n", "issue_refund")

    catalog = await Catalog.load(project / "agents" / "shop.yaml", NoServers(), secrets=Secrets({}, None))

    assert list(catalog.agents) == ["shop"]


def test_folder_stands_beside_that_of_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "a.yaml").touch()
    monkeypatch.chdir(tmp_path / "agents")

    assert policy_folder(Path("deploy/agents")) == Path("deploy/policies")
    assert policy_folder(tmp_path / "agents" / "a.yaml") == tmp_path / "policies"
    assert policy_folder(Path()) == policy_folder(Path("a.yaml")) == tmp_path / "policies"
    assert policy_folder(Path(), Path("elsewhere")) == Path("elsewhere")


def test_every_example_of_the_shipped_policy_comes_out_as_written() -> None:
    file = read_policy_file(ESCALATION)

    results = run_examples(file, {}, complete=True)

    assert [str(result.fault) for result in results if result.fault is not None] == []
    assert {rule.id for rule in file.spec.rules} == {
        example.rule for example in file.spec.examples if example.rule is not None
    }


async def test_shipped_policy_fits_tools_that_have_what_it_reads(project: Path) -> None:
    (project / "policies" / "escalation.yaml").write_text(ESCALATION.read_text())
    write_agent(project, "policies: [escalation]\n", "issue_refund", "list_refunds", "place_order", "sign", "deploy")

    assert (await load(project)).warnings == ()


async def test_shipped_policy_says_which_tool_lacks_what_it_reads(project: Path) -> None:
    (project / "policies" / "escalation.yaml").write_text(ESCALATION.read_text())
    write_agent(project, "policies: [escalation]\n", "issue_refund", "pay")
    where = "policies/escalation.yaml:12:5: rules[0].when: rule 'financial', agent 'shop', tool 'pay'"

    assert await faults_of(project) == [
        f"{where}, column 22: run.totals.pay has no 'amount'; it has cents",
        f"{where}, column 43: args has no 'amount'; it has cents",
    ]
