"""Commands of ours in the README and the other pages: verbs and options exist, and what is printed can be typed."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile

import pytest
from typer._click.exceptions import UsageError
from typer.main import get_command

from mandate.workers.main import VERBS, app, load_verb
from tests.support.pages import PAGES, blocks, without_blocks

HERE_DOCUMENT = re.compile(r"<<'(\w+)'\n.*?^\1$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`mandate ([^`]+)`")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)


def written(page: str) -> Iterator[list[str]]:
    """The words after `mandate` of each command that stands in a shell block."""
    for block in blocks(page, "sh"):
        lines = HERE_DOCUMENT.sub("", block).replace("\\\n", " ").splitlines()
        for line in lines:
            words = shlex.split(line, comments=True)
            command = words[len(list(takewhile(ASSIGNMENT.fullmatch, words))) :]
            if command[:1] == ["mandate"]:
                yield command[1:]


def mentioned(page: str) -> Iterator[list[str]]:
    """The words after `mandate` of each command that a sentence names; values may be left out."""
    return (shlex.split(found) for found in INLINE.findall(without_blocks(page)))


def parse(words: list[str]) -> None:
    """Everything that happens before the verb is called.

    Raises:
        UsageError: there is no such verb or option, or something is missing.
    """
    group = get_command(app)
    context = group.make_context("mandate", list(words))
    name, verb, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    verb.make_context(name, rest, parent=context)


def unknown(words: list[str]) -> list[str]:
    """Options among `words` that the verb does not have; the verb itself if there is none of this name."""
    if words[0] not in VERBS:
        return words[:1]
    known = {name for parameter in load_verb(words[0]).params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words[1:] if word.startswith("-") and word not in known]


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_typed_as_printed(page: str) -> None:
    for words in written(page):
        try:
            parse(words)
        except UsageError as error:
            pytest.fail(f"{page}: mandate {shlex.join(words)}: {error.format_message()}")


def test_pages_with_commands_are_found() -> None:
    assert {page: len(list(written(page))) for page in PAGES if any(written(page))} == {
        "README.md": 7,
        "deploy/docs/budgets.md": 11,
        "deploy/docs/children.md": 1,
        "deploy/docs/context.md": 5,
        "deploy/docs/events.md": 11,
        "deploy/docs/install.md": 7,
        "deploy/docs/models.md": 1,
        "deploy/docs/monitoring.md": 1,
        "deploy/docs/operating.md": 10,
        "deploy/docs/plans.md": 1,
        "deploy/docs/policy-and-people.md": 21,
        "deploy/docs/production.md": 3,
        "deploy/docs/recovery.md": 7,
        "deploy/docs/sessions.md": 4,
        "deploy/package/README.md": 4,
    }


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist(page: str) -> None:
    wrong = {shlex.join(words): unknown(words) for words in mentioned(page) if unknown(words)}

    assert wrong == {}


@pytest.mark.parametrize(
    "words", [["aprove", "1"], ["approve", "1", "--edits"], ["inbox", "--group"], ["steer", "--by"], ["answer", "1"]]
)
def test_what_does_not_exist_is_found(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)
