"""What a script expects, and what it says when something else comes in."""

from pathlib import Path

import pytest

from tests.support.script_play import PlayScript, arguments, player, refusal


@pytest.fixture
def play(tmp_path: Path) -> PlayScript:
    return player(tmp_path)


@pytest.mark.parametrize(
    ("expect", "results", "errors", "difference"),
    [
        ("{user: hello}", ("x", "y"), 0, "user: expected 'hello', got ''"),
        ("{results: {look: {a: 1}}}", ({"a": 2},), 0, "look.a: expected 1, got 2"),
        ("{results: {look: {a: true}}}", ({"a": 1},), 0, "look.a: expected true, got 1"),
        ("{results: {look: {a: {b: x}}}}", ({"a": {}},), 0, "look.a.b: expected 'x', got nothing"),
        ("{results: {look: [1, 2]}}", ([1],), 0, "look: expected [1, 2], got [1]"),
        ("{results: {look: {a: [{b: 'p*'}]}}}", ({"a": [{"b": "open"}]},), 0, "look.a.0.b: expected 'p*', got 'open'"),
        ("{results: {look: '*found*'}}", ("lost", ""), 0, "look: expected '*found*', got 'lost'"),
        ("{results: {look: {a: 1}}}", ("no JSON", ""), 0, "look: expected {\"a\": 1}, got 'no JSON'"),
        ("{results: {look: {error: true}}}", ("fine", ""), 0, "look: expected an error, got 'fine'"),
        ("{results: {look: {error: true, text: no}}}", ("why", ""), 1, "look: expected the error 'no', got 'why'"),
        ("{results: {look: found}}", ("denied", ""), 1, "look: expected no error, got 'denied'"),
        ("{}", ("denied", "x"), 1, "look: expected no error, got 'denied'"),
        ("{}", (), 0, "look: no answer came in; see: no answer came in"),
        ("{results: {seek: {a: 1}}}", ("x", "y"), 0, 'seek: expected {"a": 1}, got no answer of it'),
        ("{results: {look#2: x}}", ("x", "y"), 0, "look#2: expected 'x', got no answer of it"),
        ("{results: [{look: x}]}", ("x", "y"), 0, "results: expected of look, got of look, see"),
        ("{results: [{look: x}, {see: x}]}", ("x", "y"), 0, "see: expected 'x', got 'y'"),
        ("{results: {look: x, see: x}}", ("y", "y"), 0, "look: expected 'x', got 'y'; see: expected 'x', got 'y'"),
    ],
)
async def test_unexpected_request_shows_the_difference(
    play: PlayScript, expect: str, results: tuple[object, ...], errors: int, difference: str
) -> None:
    script = f"turns:\n  - call: [{{look: {{}}}}, {{see: }}]\n\n  - expect: {expect}\n    say: done\n"
    if results and len(results) == 1:
        results = (*results, "")
    story = play(script)
    await story.turn()
    story.answer(*results, errors=errors)

    assert await refusal(story) == f"play.yaml:4, turn 2: {difference}"


@pytest.mark.parametrize(
    ("expect", "results", "errors"),
    [
        ("{}", ("x", "y"), 0),
        ("{user: ''}", ("x", "y"), 0),
        ("{results: {look: {a: 1.0, b: {c: null}}}}", ({"a": 1, "b": {"c": None, "d": 1}, "e": 2}, "y"), 0),
        ("{results: {look: 'a*c', see: '*'}}", ("abbc", ""), 0),
        ("{results: {look: 5}}", ("5", ""), 0),
        ("{results: {look: {error: true}}}", ("denied", "x"), 1),
        ("{results: {look: {error: true, text: '*den*'}}}", ("denied", "x"), 1),
        ("{results: [{look: {error: true}}, {see: {error: true}}]}", ("denied", "x"), 2),
    ],
)
async def test_expected_request_is_answered(
    play: PlayScript, expect: str, results: tuple[object, ...], errors: int
) -> None:
    story = play(f"turns:\n  - call: [{{look: {{}}}}, {{see: }}]\n  - expect: {expect}\n    say: done\n")
    await story.turn()
    story.answer(*results, errors=errors)

    assert (await story.turn()).message.text == "done"


async def test_script_that_is_not_strict_takes_errors_and_lost_answers(play: PlayScript) -> None:
    story = play("strict: false\nturns:\n  - call: [{look: {}}, {see: {}}]\n  - say: done\n")
    await story.turn()
    story.answer("denied", errors=1)

    assert (await story.turn()).message.text == "done"


async def test_calls_of_an_answer_cut_on_purpose_need_no_results(play: PlayScript) -> None:
    story = play("turns:\n  - {finish: truncated, call: [{look: '{'}]}\n  - say: done\n")
    await story.turn()
    story.answer(note="The answer was cut at the output limit; nothing of it was done.")

    assert (await story.turn()).message.text == "done"


async def test_request_after_the_last_turn_is_refused(play: PlayScript) -> None:
    story = play("turns:\n  - call: [{look: {}}]\n")
    await story.turn()
    story.answer("found", note="go on")

    assert await refusal(story) == (
        "play.yaml: the script has 1 turn and no 'otherwise', and answer 2 was asked for;"
        " came in: look: 'found', 'go on'"
    )


async def test_otherwise_answers_whatever_comes_after_the_last_turn(play: PlayScript) -> None:
    story = play("turns:\n  - say: one\notherwise: {say: 'more ${n}'}\n")

    said = []
    for _ in range(3):
        said.append((await story.turn()).message.text)
        story.answer(note="go on")

    assert said == ["one", "more 1", "more 2"]


async def test_next_turn_simply_follows_a_note(play: PlayScript) -> None:
    story = play("turns:\n  - say: seven\n  - say: '7'\n")
    await story.turn()
    story.answer(note="The answer does not fit the output schema: 'seven' is not a number.")

    assert (await story.turn()).message.text == "7"


async def test_input_picks_the_conversation(play: PlayScript) -> None:
    script = """
    conversations:
      - match: "*81*"
        turns: [{say: eighty-one}]
      - match: '{*}'
        turns: [{say: "order ${input.order}", call: [{look: {whole: "${input}", n: "${input.order}"}}]}]
      - match: "* order *"
        otherwise: {say: "you said ${input}"}
    """

    assert (await play(script, "order 81").turn()).message.text == "eighty-one"
    objects = await play(script, '{"order": 7}').turn()
    assert (objects.message.text, arguments(objects)) == ("order 7", [{"whole": '{"order": 7}', "n": 7}])
    assert (await play(script, "my order is").turn()).message.text == "you said my order is"
    assert await refusal(play(script, "hello")) == (
        "play.yaml: no conversation of the script fits the input: expected '*81*' or '{*}' or '* order *', got 'hello'"
    )
