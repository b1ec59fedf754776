"""The cut that `deploy/docs/context.md` lets its readers try: its files and commands, as they stand there."""

import os
import re
from pathlib import Path

import pytest

from mandate.workflows.contracts.context import ContextSpec, SummarySpec
from tests.support.pages import blocks, read, section
from tests.support.place import BIN, new_place

PAGE = "deploy/docs/context.md"
HEADING = "### Try a cut without a key"
_FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def find_block(language: str) -> str:
    """Return the only block of the section in a language."""
    (found,) = [block for block in blocks(PAGE, language) if block in section(PAGE, HEADING)]
    return found


async def test_files_and_commands_of_the_page_cut_as_it_says(tmp_path: Path) -> None:
    files = {found[1]: found[2] for found in _FILE.finditer(section(PAGE, HEADING))}
    commands, bars = find_block("sh"), find_block("text")
    path = f"{BIN}:{os.environ['PATH']}"

    async with new_place(tmp_path, files, PATH=path, MANDATE_USER="ann@example.com") as place, place.serving("reader"):
        done = await place.run("-ec", commands, program="sh")

    assert sorted(files) == ["agents/reader.script.yaml", "agents/reader.yaml", "log_tools.py"]
    assert (done.code, done.out.count("I have read twelve pages.")) == (0, 1)
    assert bars in done.out
    assert re.findall(r"^ ?(\d+) .* cut$", done.out, re.MULTILINE) == ["7", "11"]
    assert "; cut 2 times" in done.out


@pytest.mark.parametrize(
    ("key", "words", "default"),
    [("limit", "from 0.1 to 0.95", None), ("keep", "from 2 to 1000", "20"), ("pin", "up to 50 texts", None)],
)
def test_ranges_of_the_page_are_those_of_agent_files(key: str, words: str, default: str | None) -> None:
    (row,) = [line for line in read(PAGE).splitlines() if line.startswith(f"| `{key}` |")]
    schema = ContextSpec.model_json_schema()["properties"][key]
    its = next((kind for kind in schema.get("anyOf", ()) if "minimum" in kind), schema)
    bounds = [its[name] for name in ("minimum", "maximum", "maxItems") if name in its]

    assert words in row
    assert [f"{float(number):g}" for number in re.findall(r"[0-9.]+", words)] == [f"{bound:g}" for bound in bounds]
    assert default is None or row.endswith(f"| {schema['default']} |")


def test_longest_instructions_for_summaries_are_those_of_agent_files() -> None:
    longest = SummarySpec.model_json_schema()["properties"]["instructions"]["maxLength"]

    assert f"a text of up to {longest} characters" in read(PAGE)
