"""Pages that people read: the README, those under `deploy/docs`, and what their Markdown holds."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]

README = "README.md"
DOCS = tuple(sorted(f"deploy/docs/{path.name}" for path in (PROJECT / "deploy/docs").glob("*.md")))
PAGES = (README, *DOCS, "deploy/package/README.md")

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """Return the text of a page by its path in the project."""
    return (PROJECT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language, in their order."""
    return [found[3] for found in _BLOCK.finditer(read(page)) if found[2] == language]


def without_blocks(page: str) -> str:
    """Return a page without its code blocks."""
    return _BLOCK.sub("", read(page))


def section(page: str, heading: str) -> str:
    """Return what follows a heading, up to the next one of its level or above; `heading` has its `#` signs."""
    level = heading.split(" ", 1)[0]
    text = read(page).partition(f"\n{heading}\n")[2]
    return re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
