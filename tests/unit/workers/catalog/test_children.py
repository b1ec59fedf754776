"""Agents as tools of agents: found, linked under the rules of those above, refused where they cannot be."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mandate.activities.files import FileError
from mandate.workers.catalog import children
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.tool import AgentBinding, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

PAY = {"python": "tests.support.toolkit:pay"}


class NoServers:
    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        raise AssertionError(entry)


def load(source: Path) -> Catalog:
    return asyncio.run(Catalog.load(source, NoServers(), secrets=Secrets({})))


def write(folder: Path, agents: Mapping[str, Mapping[str, Any]]) -> Path:
    for name, keys in agents.items():
        agent = {"name": name, "instructions": f"Be {name}.", "models": ["openai:gpt-6-sol"], **keys}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(agent))
    return folder


def faults(source: Path) -> list[str]:
    with pytest.raises(FileError) as refused:
        load(source)
    return [f"{Path(fault.file).name}: {fault.key}: {fault.message}" for fault in refused.value.faults]


def below(catalog: Catalog, name: str, *tools: str) -> PinnedAgent:
    """The agent at the end of a way down from `name`."""
    loaded = catalog.agents[name]
    pinned = loaded.pinned
    for tool in tools:
        definition = pinned.definition(tool)
        assert definition is not None
        assert definition.tool.child is not None
        content = loaded.below[definition.tool.child.digest]
        assert digest_of(content) == definition.tool.child.digest
        pinned = PinnedAgent.model_validate_json(content)
    return pinned


def test_an_agent_is_a_tool_that_takes_one_text_and_says_what_the_agent_is_for(tmp_path: Path) -> None:
    catalog = load(write(tmp_path, {"boss": {"tools": [{"agent": "worker"}]}, "worker": {}}))

    made = catalog.agents["boss"].pinned.definition("worker")
    assert made is not None
    assert made.binding == AgentBinding(kind="agent", agent="worker", task="task")
    assert made.input_schema["required"] == ["task"]
    assert made.description.endswith("It was told: Be worker.")
    assert catalog.agents["worker"].digest in catalog.agents["boss"].below


def test_an_entry_names_its_tool_describes_it_and_has_its_own_schemas(tmp_path: Path) -> None:
    asked = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    answer = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    entry = {"agent": "worker", "name": "count", "description": "Counts.", "input_schema": asked,
             "output_schema": answer, "tags": ["slow"], "risk": 2.0, "untrusted": True}  # fmt: skip
    catalog = load(write(tmp_path, {"boss": {"tools": [entry]}, "worker": {}}))

    made = catalog.agents["boss"].pinned.definition("count")
    assert made is not None
    assert made.binding == AgentBinding(kind="agent", agent="worker")
    assert made.description.startswith("Counts.\nIt answers with JSON of this schema: ")
    assert (made.tool.tags, made.tool.risk, made.tool.untrusted) == (("slow",), 2.0, True)
    assert made.input_schema["additionalProperties"] is False
    child = below(catalog, "boss", "count")
    assert child.output_schema == answer
    assert child.base == catalog.agents["worker"].digest


def test_limits_of_a_child_are_the_lower_ones_and_its_share(tmp_path: Path) -> None:
    entry = {"agent": "worker", "budget": {"model_calls": 5, "steps": 90}, "timeout": "10m"}
    own = {"budget": {"model_calls": 9, "tokens": 100, "steps": 7, "wall_time": "1h"}}
    catalog = load(write(tmp_path, {"boss": {"tools": [entry]}, "worker": own}))

    child, tool = below(catalog, "boss", "worker"), catalog.agents["boss"].pinned.definition("worker")
    assert (child.budget.model_calls, child.budget.steps, child.budget.tokens) == (5, 7, 100)
    assert str(child.budget.wall_time) == "0:10:00"
    assert tool is not None
    assert tool.tool.child is not None
    share = tool.tool.child.share
    assert (share.model_calls, share.tokens, share.cost_usd, share.steps) == (5, 100, None, None)


def test_rules_that_ask_or_deny_are_handed_down_with_those_whom_they_ask(tmp_path: Path) -> None:
    boss = {
        "tools": [{"agent": "worker"}],
        "people": {"approvers": {"groups": ["finance"]}},
        "policy": [
            {"id": "no", "match": {"tools": ["pay"]}, "when": "args.order == 13", "verdict": "deny"},
            {"id": "big", "match": {"tools": ["pay"]}, "when": "args.amount > 9.0", "verdict": "ask"},
            {"id": "all", "match": {}, "verdict": "allow"},
        ],
    }
    worker = {"tools": [{"agent": "helper"}], "policy": [{"id": "no", "match": {"tools": ["pay"]}, "verdict": "deny"}]}
    helper = {"tools": [PAY], "policy": [{"id": "own", "match": {}, "verdict": "allow"}]}
    catalog = load(write(tmp_path, {"boss": boss, "worker": worker, "helper": helper}))

    leaf = below(catalog, "boss", "worker", "helper")
    assert [rule.id for rule in leaf.policy] == ["boss--no", "boss--big", "worker--no", "own"]
    asking = leaf.policy[1].approvers
    assert asking is not None
    assert asking.groups == ("finance",)
    assert leaf.base == catalog.agents["helper"].digest
    assert [rule.id for rule in below(catalog, "worker", "helper").policy] == ["worker--no", "own"]
    assert [rule.id for rule in catalog.agents["helper"].pinned.policy] == ["own"]


def test_a_child_under_no_rules_is_the_agent_of_its_file(tmp_path: Path) -> None:
    catalog = load(write(tmp_path, {"boss": {"tools": [{"agent": "worker"}]}, "worker": {"tools": [PAY]}}))

    assert below(catalog, "boss", "worker") == catalog.agents["worker"].pinned


@pytest.mark.parametrize(
    ("agents", "told"),
    [
        (
            {"boss": {"tools": [{"agent": "wroker"}]}, "worker": {}},
            ["boss.yaml: tools[0].agent: there is no agent 'wroker'; did you mean 'worker'? there are boss, worker"],
        ),
        (
            {"boss": {"tools": [{"agent": "boss"}]}},
            ["boss.yaml: tools[0].agent: an agent cannot work below itself: boss -> boss"],
        ),
        (
            {
                "boss": {"tools": [{"agent": "worker"}]},
                "worker": {"tools": [{"agent": "helper"}]},
                "helper": {"tools": [{"agent": "boss"}]},
            },
            [
                "boss.yaml: tools[0].agent: an agent cannot work below itself: boss -> worker -> helper -> boss",
                "helper.yaml: tools[0].agent: an agent cannot work below itself: helper -> boss -> worker -> helper",
                "worker.yaml: tools[0].agent: an agent cannot work below itself: worker -> helper -> boss -> worker",
            ],
        ),
        (
            {"boss": {"tools": [{"agent": "worker"}, {"agent": "worker"}]}, "worker": {}},
            ["boss.yaml: tools[1]: the name 'worker' is taken by tools[0]; set another 'name'"],
        ),
        (
            {"boss": {"tools": [{"agent": "worker", "effect": "once", "cache": "5m"}]}, "worker": {}},
            [
                (
                    "boss.yaml: tools[0].effect: belongs to other tools; a call of an agent starts a run, whose "
                    "own calls have that"
                ),
                (
                    "boss.yaml: tools[0].cache: belongs to other tools; a call of an agent starts a run, whose "
                    "own calls have that"
                ),
            ],
        ),
        (
            {"boss": {"tools": [{"agent": "worker", "timeout": "5m", "budget": {"wall_time": "5m"}}]}, "worker": {}},
            ["boss.yaml: tools[0].timeout: is the same as 'wall_time' of 'budget'; give one of them"],
        ),
        (
            {"boss": {"tools": [{"agent": "worker"}]}, "worker": {"people": {"signature": "required"}}},
            [
                (
                    "boss.yaml: tools[0].agent: who asks for a run of 'worker' signs for it, and nobody signs for one "
                    "of 'boss'; its decisions must be signed too (`people: {signature: required}`)"
                )
            ],
        ),
        (
            {
                "boss": {
                    "tools": [{"agent": "worker"}],
                    "policy": [{"id": "no", "match": {"tools": ["paay"]}, "verdict": "deny"}],
                },
                "worker": {"tools": [PAY]},
            },
            [
                (
                    "boss.yaml: policy[0].match.tools[0]: 'paay' is no tool of this agent; did you mean 'pay'? it has "
                    "ask_person, keep_in_mind, pay, read_result, worker; it denies nothing"
                )
            ],
        ),
    ],
)
def test_what_cannot_be_is_refused_as_files_load(
    tmp_path: Path, agents: dict[str, dict[str, Any]], told: list[str]
) -> None:
    assert sorted(faults(write(tmp_path, agents))) == sorted(told)


def test_agents_of_one_file_are_looked_for_beside_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "boss": {"tools": [{"agent": "worker"}]},
            "worker": {"tools": [{"agent": "helper"}]},
            "helper": {},
            "other": {"tools": [{"agent": "nobody"}]},
        },
    )
    catalog = load(folder / "boss.yaml")

    assert list(catalog.agents) == ["boss"]
    assert below(catalog, "boss", "worker", "helper").name == "helper"


def test_a_child_that_may_take_all_that_is_left_is_warned_of(tmp_path: Path) -> None:
    boss = {"tools": [{"agent": "worker"}], "budget": {"model_calls": 9, "tokens": 100}}
    catalog = load(write(tmp_path, {"boss": boss, "worker": {"budget": {"tokens": 20}}}))

    (warning,) = [one for one in catalog.warnings if "lent" in one.message]
    assert warning.message == (
        "a run of 'worker' is lent all that is left of model_calls, so that no other can begin beside it; give its "
        "share by 'budget'"
    )


def test_many_ways_down_to_an_agent_take_no_time_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty agents of two entries each would have a million ways."""
    links, link = list[str](), children.Family._link

    def count(*args: object) -> object:
        links.append("")
        return link(*args)

    monkeypatch.setattr(children.Family, "_link", count)
    entries = {
        f"a{number}": {
            "tools": [{"agent": f"a{number + 1}", "name": name} for name in ("one", "two")] if number < 9 else []
        }
        for number in range(10)
    }

    load(write(tmp_path, entries))

    assert len(links) <= 200
