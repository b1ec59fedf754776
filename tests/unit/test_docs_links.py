"""Links between the pages lead somewhere, and every page can be found from the README."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pages import DOCS, PAGES, PROJECT, README, read, without_blocks

LINKED = (*PAGES, "deploy/CHANGELOG.md", "tests/benchmarks/README.md")

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Link:
    """A relative link, as it is written."""

    page: str
    target: str

    @property
    def path(self) -> str:
        """The linked file, from the project's folder."""
        name = self.target.partition("#")[0]
        path = (PROJECT / self.page).parent / name if name else PROJECT / self.page
        return path.resolve().relative_to(PROJECT.resolve()).as_posix()

    @property
    def is_broken(self) -> bool:
        anchor = self.target.partition("#")[2]
        if not (PROJECT / self.path).exists():
            return True
        return bool(anchor) and anchor not in anchors((PROJECT / self.path).read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    without_code = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in HEADING.findall(without_code):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = next(number for number in range(len(found) + 1) if _numbered(name, number) not in found)
        found.add(_numbered(name, number))
    return found


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number}" if number else name


def links(page: str) -> Iterator[Link]:
    """Return the links of a page to files of the project."""
    for target in LINK.findall(without_blocks(page)):
        if "://" not in target:
            yield Link(page, target)


@pytest.mark.parametrize("page", LINKED)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    assert [link.target for link in links(page) if link.is_broken] == []


def test_the_readme_links_every_page() -> None:
    linked = {link.path for link in links(README)}

    assert sorted(linked & set(DOCS)) == sorted(DOCS)


@pytest.mark.parametrize(
    "target", ["nowhere.md", "recovery.md#nothing-of-that-name", "#nor-this", "../CHANGELOG.md#0.1.0"]
)
def test_a_broken_link_is_found(target: str) -> None:
    assert Link("deploy/docs/operating.md", target).is_broken


def test_anchors_are_those_of_github() -> None:
    text = (
        "# `mandate` and `temporal agent`\n\n```sh\n# no heading\n```\n\n## What is known, of it?\n\n## A b\n\n## A b\n"
    )

    assert anchors(text) == {"mandate-and-temporal-agent", "what-is-known-of-it", "a-b", "a-b-1"}


@pytest.mark.parametrize("page", [*PAGES, "deploy/CHANGELOG.md"])
def test_files_that_sentences_name_exist(page: str) -> None:
    """Files of the repository stand in backquotes, from the project's folder."""
    named = re.findall(r"`((?:workflows|activities|workers|tests|deploy)/[\w./-]*)`", without_blocks(page))
    missing = [name for name in named if not (PROJECT / name).exists()]

    assert [name for name in missing if name not in WRITTEN_BY_USERS] == []


WRITTEN_BY_USERS = ("deploy/channels.yaml", "deploy/providers.yaml", "deploy/triggers.yaml")


def test_pages_are_where_they_are_listed() -> None:
    assert [Path(page).name for page in DOCS] == [
        "agents.md",
        "budgets.md",
        "children.md",
        "context.md",
        "events.md",
        "glossary.md",
        "install.md",
        "models.md",
        "monitoring.md",
        "operating.md",
        "patterns.md",
        "plans.md",
        "policy-and-people.md",
        "production.md",
        "recovery.md",
        "security.md",
        "sessions.md",
        "sizing.md",
        "tools-and-effects.md",
    ]


def test_the_readme_is_short() -> None:
    assert len(read(README).splitlines()) <= 120


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    rows = [line.split("|") for line in read("deploy/docs/glossary.md").splitlines() if line.startswith("| ")]
    words = [row[1].strip() for row in rows[1:]]

    assert len(words) > 60
    assert words == sorted(set(words))
    assert all(row[2].strip() for row in rows)


@pytest.mark.parametrize("page", [*PAGES, "deploy/CHANGELOG.md"])
def test_no_page_has_the_marks_of_a_merge(page: str) -> None:
    lines = read(page).splitlines()

    assert [line for line in lines if line.startswith(("<<<<<<< ", ">>>>>>> ")) or line == "======="] == []
