"""Every YAML example of the documentation is one that the product takes."""

import importlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mandate import NotDone, ToolContext
from mandate.activities.documents import parse_document
from mandate.activities.files import FileError
from mandate.activities.providers.scripted.script import load_script
from mandate.workers import project
from mandate.workers.catalog.agents import read_agent
from mandate.workers.catalog.budgets import read_budgets
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.conditions import check
from mandate.workers.catalog.endpoints import read_endpoints
from mandate.workers.catalog.people import read_people
from mandate.workers.catalog.plans import scan_plans
from mandate.workers.catalog.policies import read_policy_file
from mandate.workers.events.trigger_file import read_triggers
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.tool_entry import TOOL_KINDS
from tests.support.pages import PAGES, PROJECT, README, blocks
from tests.unit.workers.catalog.test_catalog import StubServers

DOCUMENTS = (*PAGES, "tests/benchmarks/README.md")

AGENT = {"name": "example", "instructions": "Help.", "models": ["scripted:example.script.yaml"]}
"""What an example leaves out that shows only a part of an agent."""

_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LIST_OF = {"verdict": "policy", "after": "checks"}


@dataclass(frozen=True, slots=True)
class Example:
    place: str
    """`README.md:39`."""
    text: str

    @property
    def value(self) -> Any:
        return parse_document(self.place, self.text).value

    @property
    def kind(self) -> str:
        """What the example is of: an agent, a part of one by its key, or another file."""
        value = self.value
        if isinstance(value, list):
            keys = set(value[0])
            return "tools" if keys & set(TOOL_KINDS) else next((_LIST_OF[key] for key in _LIST_OF if key in keys), "")
        keys = set(value)
        if keys & {"turns", "conversations"}:
            return "script"
        if "steps" in keys:
            return "plan file"
        if "rules" in keys:
            return "policy file"
        if "endpoints" in keys:
            return "providers file"
        if isinstance(value.get("people"), list):
            return "people file"
        if isinstance(value.get("budgets"), list):
            return "budgets file"
        if isinstance(value.get("triggers"), list):
            return "triggers file"
        if keys <= set(project.KEYS):
            return "settings"
        return "agent" if "instructions" in keys else "part" if keys & set(AgentSpec.model_fields) else ""

    def agent(self) -> str:
        """The text of a whole agent file."""
        if self.kind == "agent":
            return self.text
        return json.dumps(AGENT | (self.value if self.kind == "part" else {self.kind: self.value}))


def examples() -> Iterator[Example]:
    for name in DOCUMENTS:
        text = (PROJECT / name).read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            yield Example(f"{name}:{text.count(chr(10), 0, found.start()) + 2}", found[1])


EXAMPLES = list(examples())
AGENTS = [example for example in EXAMPLES if example.kind in {"agent", "part", "tools", "policy", "checks"}]
WHOLE = [
    example
    for example in AGENTS
    if example.kind == "agent" and all({"http", "activity"} & set(entry) for entry in example.value.get("tools", []))
]
"""Agents that need no modules and no servers, so that their tools and conditions can be looked at too."""


def place(example: Example) -> str:
    return example.place


def write(folder: Path, text: str) -> Path:
    path = folder / "example.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("example", AGENTS, ids=place)
def test_agent_files_and_parts_of_them_are_valid(example: Example, tmp_path: Path) -> None:
    spec = read_agent(write(tmp_path, example.agent()))

    conditions = [*(rule.when for rule in spec.policy), *(one.when for one in spec.checks)]
    assert [(when, problem.message) for when in conditions if when for problem in check(when)] == []


@pytest.mark.parametrize("example", WHOLE, ids=place)
async def test_agents_fit_their_tools(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))

    catalog = await Catalog.load(write(tmp_path, example.text), StubServers(), secrets=Secrets({}))

    assert [str(warning) for warning in catalog.warnings] == []


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one not in AGENTS], ids=place)
def test_other_files_are_valid(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, example.text)
    match example.kind:
        case "script":
            assert load_script(path)
        case "people file":
            assert read_people(Settings.from_environment({"MANDATE_PEOPLE": str(path)})) is not None
        case "budgets file":
            assert read_budgets(Settings.from_environment({"MANDATE_BUDGETS": str(path)})) is not None
        case "triggers file":
            assert read_triggers(Settings.from_environment({"MANDATE_TRIGGERS": str(path)})) is not None
        case "plan file":
            assert not scan_plans(path).faults
        case "policy file":
            assert read_policy_file(path).rules
        case "providers file":
            assert read_endpoints(Settings.from_environment({"MANDATE_PROVIDERS": str(path)})).by_name
        case _:
            pytest.fail(f"{example.place}: it is not clear what this is an example of")


@pytest.mark.parametrize("example", [one for one in AGENTS if "params:" in one.text], ids=place)
async def test_request_fields_are_those_of_the_vendors(example: Example, tmp_path: Path) -> None:
    models = json.dumps({**AGENT, "models": example.value["models"]})

    assert await Catalog.load(write(tmp_path, models), StubServers(), secrets=Secrets({}))


async def test_the_agent_of_the_readme_fits_the_tool_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pasted: the tool into the module that the agent file names."""
    (agent,), (tool, _) = blocks(README, "yaml"), blocks(README, "python")
    (tmp_path / "support_tools.py").write_text(tool, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "support_tools", raising=False)

    catalog = await Catalog.load(write(tmp_path, agent), StubServers(), secrets=Secrets({}))
    issue_refund = importlib.import_module("support_tools").issue_refund
    context = ToolContext.for_tests(idempotency_key="k1")

    assert [str(warning) for warning in catalog.warnings] == []
    assert issue_refund(81, 80.0, context) == {"amount": 80.0, "receipt": "k1"}
    with pytest.raises(NotDone, match=r"^less than 300\.0 was paid$"):
        issue_refund(81, 300.0, context)


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_can_be_read(page: str) -> None:
    for text in blocks(page, "python"):
        compile(text, page, "exec")


def test_the_line_that_makes_the_shop_makes_it(tmp_path: Path) -> None:
    lines = [line for block in blocks("deploy/docs/install.md", "sh") for line in block.splitlines()]
    (typed,) = [shlex.split(line, comments=True) for line in lines if "shop_data" in line]

    path = tmp_path / "shop.db"
    subprocess.run([sys.executable, *typed[1:]], check=True, env={**os.environ, "MANDATE_DEMO_SHOP": str(path)})

    with closing(sqlite3.connect(path)) as shop:
        assert shop.execute("SELECT count(*) FROM orders").fetchone() == (16,)
    assert typed[0] == "python"


def test_examples_are_found() -> None:
    assert [one.place.partition(":")[0] for one in WHOLE] == [
        "deploy/docs/models.md",
        "deploy/docs/tools-and-effects.md",
    ]
    assert {"agent", "script", "people file", "budgets file"} <= {one.kind for one in EXAMPLES}


@pytest.mark.parametrize("word", ["attempts", "unable", "patience", "effect"])
def test_a_misspelt_key_of_an_example_is_found(word: str, tmp_path: Path) -> None:
    example = next(one for one in AGENTS if f"{word}:" in one.text and one.place.startswith("deploy/"))
    wrong = Example(example.place, example.text.replace(f"{word}:", f"{word}x:", 1))

    with pytest.raises(FileError, match=f"{word}x"):
        read_agent(write(tmp_path, wrong.agent()))
