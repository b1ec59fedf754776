"""Every YAML example of the documentation is one that the product takes."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mandate.activities.documents import parse_document
from mandate.activities.providers.scripted.script import load_script
from mandate.workers import project
from mandate.workers.catalog.agents import AgentFileError, read_agent
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.conditions import check
from mandate.workers.catalog.people import read_people
from mandate.workers.catalog.policies import read_policy_file
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.tool_entry import TOOL_KINDS

from tests.unit.test_catalog import StubServers

PROJECT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "deploy/README.md", "tests/benchmarks/README.md")

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
        if "rules" in keys:
            return "policy file"
        if isinstance(value.get("people"), list):
            return "people file"
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
    if example.kind == "agent" and all({"http", "activity"} & set(entry) for entry in example.value["tools"])
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
        case "policy file":
            file, faults = read_policy_file(path)
            assert file is not None, faults
        case "settings":
            path.rename(tmp_path / project.FILE)
            monkeypatch.chdir(tmp_path)
            assert Settings.from_environment({}).project == Path()
        case _:
            pytest.fail(f"{example.place}: it is not clear what this is an example of")


def test_examples_are_found() -> None:
    assert [one.place.partition(":")[0] for one in WHOLE] == ["deploy/README.md"]
    assert {"agent", "script", "people file"} <= {one.kind for one in EXAMPLES}


@pytest.mark.parametrize("word", ["attempts", "unable", "patience", "effect"])
def test_a_misspelt_key_of_an_example_is_found(word: str, tmp_path: Path) -> None:
    example = next(one for one in AGENTS if f"{word}:" in one.text and one.place.startswith("deploy/"))
    wrong = Example(example.place, example.text.replace(f"{word}:", f"{word}x:", 1))

    with pytest.raises(AgentFileError, match=f"{word}x"):
        read_agent(write(tmp_path, wrong.agent()))
