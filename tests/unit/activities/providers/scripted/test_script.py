"""Script files: where they are found, when they are read again, their faults and their schema."""

import os
import time
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.files import FileError
from mandate.activities.providers.scripted.script import build_schema, load_script
from tests.support.script_play import Play, PlayScript, player, refusal

SCRIPT_KEYS = {"strict", "delay", "usage", "last", "turns", "otherwise", "conversations"}


@pytest.fixture
def play(tmp_path: Path) -> PlayScript:
    return player(tmp_path)


async def test_changed_script_is_read_again(play: PlayScript) -> None:
    story = play("turns: [{say: old}]")
    before = await story.provider.complete(story.prompt())
    path = story.folder / "play.yaml"
    path.write_text("turns: [{say: new}]")
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))

    assert (before.message.text, (await story.turn()).message.text) == ("old", "new")


async def test_working_directory_comes_before_the_folders(
    play: PlayScript, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = play("turns: [{say: folder}]")
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    assert (await story.provider.complete(story.prompt())).message.text == "folder"

    (here / "play.yaml").write_text("turns: [{say: here}]")

    assert (await story.turn()).message.text == "here"


async def test_missing_script_says_where_it_was_looked_for(tmp_path: Path) -> None:
    assert await refusal(Play(tmp_path)) == f"there is no script 'play.yaml' in '.', '{tmp_path}'"


def test_all_faults_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "play.yaml"
    path.write_text(
        dedent("""\
        strct: true
        strict: no
        turns:
          - sey: hello
            say: x
          - say: 5
          - call: [{a: {}, b: {}}]
          - fail: [{status: 200}, {status: 500, cut: true}]
            say: x
          - {}
          - {take: {n: a.b}, say: x}
          - finish: misfit
          - {repeat: 2, turns: [{say: x, repeat: 2}]}
          - {delay: 5, say: x}
        """)
    )

    with pytest.raises(FileError) as caught:
        load_script(path)

    assert str(caught.value).replace(f"{path}:", "").splitlines() == [
        (
            "1:1: strct: is not a key that is known here; did you mean 'strict'? allowed are conversations, delay,"
            " last, otherwise, strict, turns, usage"
        ),
        "2:1: strict: 'no' is not true or false",
        (
            "4:5: turns[0].sey: is not a key that is known here; did you mean 'say'? allowed are call, delay, expect,"
            " fail, finish, repeat, say, take, usage"
        ),
        "6:5: turns[1].say: 5 is not a text; put it in quotes",
        "7:5: turns[2].call: each item of the list is one 'tool: arguments'",
        "8:13: turns[3].fail[0].status: 200: must be at least 400",
        "8:27: turns[3].fail[1]: a failure has exactly one of the keys 'status', 'fault', 'cut' and 'slow'",
        "10:5: turns[4]: a turn needs 'say', 'call' or 'finish'",
        "11:6: turns[5].take: 'n' has a meaning of its own; take another name",
        "12:5: turns[6]: 'misfit' is found by the runtime; say something that does not fit the output schema",
        "13:17: turns[7].turns: a turn of a repeated group has no 'repeat' of its own",
        "14:6: turns[8].delay: 5: a duration needs a unit, for example '30s', '5m', '2h' or '1d'",
    ]


async def test_faulty_script_fails_the_call_and_names_the_fault(play: PlayScript) -> None:
    story = play("turns:\n  - say: a\n    say: b\n")

    assert await refusal(story) == (
        f"the script cannot be used: {story.folder / 'play.yaml'}:3:5: turns[0].say: the key 'say' is given twice,"
        " in lines 2 and 3"
    )


def test_schema_describes_every_key() -> None:
    schema = build_schema()

    assert set(schema["properties"]) == SCRIPT_KEYS  # type: ignore[arg-type]
    turn = schema["$defs"]["Turn"]  # type: ignore[index,call-overload]
    assert all("description" in described for described in turn["properties"].values())  # type: ignore[index,call-overload,union-attr]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "..", "play.yaml/more"])
async def test_name_that_can_be_no_file_is_refused(play: PlayScript, name: str) -> None:
    story = play("turns: [{say: hello}]")

    with pytest.raises(ApplicationError, match="there is no script") as caught:
        await story.provider.complete(replace(story.prompt(), model=name))

    assert caught.value.non_retryable


def test_emoji_that_json_writers_escape_as_a_pair_is_said(tmp_path: Path) -> None:
    file = tmp_path / "emoji.script.yaml"
    file.write_text(r'{"turns": [{"say": "Hello \ud83d\ude00"}]}')

    assert load_script(file).script.turns[0].say == "Hello \U0001f600"


def test_half_of_an_emoji_is_a_fault_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "emoji.script.yaml"
    file.write_text('turns:\n  - say: "Hello \\ud83d"')

    with pytest.raises(FileError) as refused:
        load_script(file)
    assert str(refused.value) == (
        f"{file}:2:10: turns[0].say: holds half of a surrogate pair ('\\ud83d'), which is no text"
    )
