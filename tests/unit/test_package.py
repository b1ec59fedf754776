"""The package `mandate`: what an import of it costs, and what a package index shows of it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mandate
from tests.unit.test_readme import parse, written

PROJECT = Path(__file__).parents[2]
PACKAGE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]

HEAVY = ("anthropic", "cel_expr_python", "mcp", "openai", "pydantic", "ruamel", "temporalio", "typer")
OF_CLIENTS = ("anthropic", "mcp", "openai", "ruamel", "temporalio", "typer")


def loaded_by(statement: str, names: tuple[str, ...]) -> list[str]:
    """Return those of `names` that a new process has imported after `statement`."""
    code = (
        f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}} & set({names!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import mandate", HEAVY) == []


def test_a_tool_module_loads_no_client_and_no_provider() -> None:
    assert loaded_by("from mandate import NotDone, ToolContext, tool", OF_CLIENTS) == []


def test_public_names_are_those_of_their_modules() -> None:
    found = {
        name: f"{getattr(mandate, name).__module__}.{getattr(mandate, name).__qualname__}" for name in dir(mandate)
    }

    assert found == {
        "AgentClient": "mandate.workers.client.client.AgentClient",
        "Decision": "mandate.workflows.contracts.request.Decision",
        "NotDone": "mandate.activities.toolbox.context.NotDone",
        "ToolContext": "mandate.activities.toolbox.context.ToolContext",
        "check": "mandate.activities.checks.functions.check",
        "connect": "mandate.workers.client.client.connect",
        "tool": "mandate.activities.toolbox.decorator.tool",
    }


def test_a_name_that_is_not_public_is_refused_with_those_that_are() -> None:
    with pytest.raises(AttributeError) as refused:
        mandate.Agent  # noqa: B018 - reading it is the test

    assert str(refused.value) == (
        "module 'mandate' has no attribute 'Agent'; "
        "it has AgentClient, Decision, NotDone, ToolContext, check, connect, tool"
    )


def test_the_page_of_a_package_index_links_to_nothing_that_it_does_not_have() -> None:
    page = (PROJECT / PACKAGE["readme"]).read_text()
    targets = re.findall(r"\]\(([^)]+)\)", page)

    assert targets == ["https://temporal.io"]


def test_the_commands_of_that_page_can_be_typed() -> None:
    commands = list(written(PACKAGE["readme"]))

    for words in commands:
        parse(words)
    assert [words[0] for words in commands] == ["init", "run", "inbox", "approve"]


def test_the_license_is_named_and_shipped() -> None:
    assert (PACKAGE["license"], PACKAGE["license-files"]) == ("MIT", ["deploy/LICENSE"])
    assert (PROJECT / "deploy/LICENSE").read_text().startswith("MIT License\n")
    assert {"authors", "maintainers", "urls"} & set(PACKAGE) == set()


OLD_PATHS = re.compile(r"(?:from|import|-m|`)\s*(?:activities|workers|workflows)\.\w")
DEEP_PATHS = re.compile(r"(?:from|import) mandate\.(?:activities|workflows|workers\.(?!examples\.))")


def test_texts_for_users_import_from_the_package_itself() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "deploy").rglob("*.md"), *(PROJECT / "deploy/agents").glob("*.yaml")]
    wrong = {
        f"{page.relative_to(PROJECT)}: {line.strip()}"
        for page in pages
        for line in page.read_text().splitlines()
        if OLD_PATHS.search(line) or DEEP_PATHS.search(line)
    }

    assert wrong == set()
