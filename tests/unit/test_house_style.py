"""Words of the house: names of modules, first lines of docstrings, and the map in each package."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FOLDERS = ("workflows", "activities", "workers", "deploy/package/mandate")

NOUNS = {
    "keyring": "a noun, the ring of an installation's keys",
    "routing": "the field's noun for the choice of a model",
    "wording": "a noun, the form in which something is said",
}
"""Module names that may end in -ing, and why."""

QUESTION = re.compile(r"(What|Whether|How|Why|Which|Where|Who|When)\b")
NOUN = re.compile(r"`|(The|A|An|All|Each|One|As)\b")
ENTRY = re.compile(r"^(\w+): \S", re.MULTILINE)


def packages() -> list[str]:
    folders = {file.parent for folder in FOLDERS for file in (PROJECT / folder).rglob("*.py")}
    return sorted(folder.relative_to(PROJECT).as_posix() for folder in folders if (folder / "__init__.py").exists())


PACKAGES = packages()


def modules(package: str) -> list[Path]:
    return sorted((PROJECT / package).glob("*.py"))


def members(package: str) -> set[str]:
    """Return the names of the modules and packages of a package."""
    folders = {file.parent for file in (PROJECT / package).glob("*/__init__.py") if not file.parent.is_symlink()}
    files = set((PROJECT / package).glob("*.py"))
    return {path.stem for path in folders | files} - {"__init__"}


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def docstrings(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, str]]:
    """Yield the public docstrings of a module or class, each with the name of its owner."""
    if (text := ast.get_docstring(node)) is not None:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{name}.{child.name}", ast.get_docstring(child) or ""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions, the private ones too, but no properties."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            if not decorators & {"property", "cached_property"}:
                yield node


def test_every_folder_is_looked_at() -> None:
    assert {"activities/toolbox/mcp", "workers/cli", "workflows/rules/cel", "deploy/package/mandate"} <= set(packages())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_named_by_a_gerund(package: str) -> None:
    gerunds = [file.stem for file in modules(package) if file.stem.endswith("ing") and file.stem not in NOUNS]

    assert gerunds == []


def test_no_reason_is_left_over() -> None:
    assert set(NOUNS) <= {file.stem for package in PACKAGES for file in modules(package)}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_docstring_begins_with_a_question(package: str) -> None:
    questions = [
        (name, text.splitlines()[0])
        for file in modules(package)
        for name, text in docstrings(parse(file), file.stem)
        if QUESTION.match(text)
    ]

    assert questions == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_function_is_described_by_a_verb(package: str) -> None:
    nouns = [
        (function.name, text.splitlines()[0])
        for file in modules(package)
        for function in functions(parse(file))
        if (text := ast.get_docstring(function)) is not None and (NOUN.match(text) or QUESTION.match(text))
    ]

    assert nouns == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_modules(package: str) -> None:
    text = ast.get_docstring(ast.parse((PROJECT / package / "__init__.py").read_text())) or ""
    _, _, table = text.partition("\n\n")

    assert sorted(ENTRY.findall(table)) == sorted(members(package))
