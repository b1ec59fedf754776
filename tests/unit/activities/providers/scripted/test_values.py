"""Values that a script takes out of answers, near and far."""

from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart
from tests.support.script_play import PlayScript, answered, arguments, asked, player, refusal


@pytest.fixture
def play(tmp_path: Path) -> PlayScript:
    return player(tmp_path)


async def test_arguments_given_as_text_are_sent_as_they_are(play: PlayScript) -> None:
    story = play(
        """turns: [{call: [{pay: '{"amount": NaN}'}, {pay: '{"order": ${input}, "x": "$${y}"'}, {pay: }]}]""", "8"
    )

    calls = (await story.turn()).message.calls

    assert [call.arguments for call in calls] == ['{"amount": NaN}', '{"order": 8, "x": "${y}"', "{}"]


async def test_answer_nested_too_deep_is_a_text(play: PlayScript) -> None:
    story = play("turns:\n  - call: [{look: }]\n  - {expect: {results: {look: {a: 1}}}, say: x}\n")
    await story.turn()
    story.answer("[" * 100_000)

    assert 'look: expected {"a": 1}, got \'[[[' in await refusal(story)


@pytest.mark.parametrize(
    ("call", "difference"),
    [
        ('{pay: {x: "${look.lost}"}}', "'look' has no 'lost': {\"a\": [1]}"),
        ('{pay: {x: "${look.a.1}"}}', "'look.a' has no '1': [1]"),
        ('{pay: {x: "${see.a}"}}', "the answer of 'see' is not JSON: 'plain'"),
        ('{pay: {x: "${seek.a}"}}', "'seek' is neither taken by a turn nor a tool that has answered"),
        ('{pay: {x: "${look#3}"}}', "'look#3' is neither taken by a turn nor a tool that has answered"),
        ('{pay: "${}"}', "'' is not a value; write 'name', 'tool.key', 'tool#2.key', 'input' or 'n'"),
        ('{pay: "${input.x}"}', "the input is not JSON: 'hello'"),
    ],
)
async def test_missing_value_is_named(play: PlayScript, call: str, difference: str) -> None:
    story = play(f"turns:\n  - call: [{{look: }}, {{see: }}]\n  - call: [{call}]\n")
    await story.turn()
    story.answer({"a": [1]}, "plain")

    assert await refusal(story) == f"play.yaml:3, turn 2: {difference}"


async def test_missing_value_is_named_by_the_turn_that_takes_it(play: PlayScript) -> None:
    story = play("turns:\n  - call: [{look: }]\n  - {take: {x: look.b}, call: [{look: }]}\n  - say: '${x}'\n")
    await story.turn()
    story.answer({"a": 1})

    assert await refusal(story) == "play.yaml:3, turn 2: take 'x': 'look' has no 'b': {\"a\": 1}"


async def test_value_is_that_of_the_turn_that_took_it_last(play: PlayScript) -> None:
    script = """
    turns:
      - call: [{look: }]
      - repeat: 3
        turns:
          - {take: {x: look.a}, call: [{see: "${n}"}]}
          - {expect: {results: {see: "${n}"}}, call: [{look: {was: "${x}"}}]}
      - {say: "${x} ${look.a} ${look#1.a}"}
    """
    story = play(script)
    await story.turn()
    was = []
    for n in (1, 2, 3):
        story.answer({"a": n * 10})
        await story.turn()
        story.answer(str(n))
        was += arguments(await story.turn())
    story.answer({"a": 40})

    assert was == [{"was": 10}, {"was": 20}, {"was": 30}]
    assert (await story.turn()).message.text == "30 40 40"


async def test_second_answer_of_a_tool_is_named_by_number(play: PlayScript) -> None:
    script = """
    turns:
      - call: [{look: {n: 1}}, {look: {n: 2}}]
      - {expect: {results: {look#1: {n: 1}, look#2: {n: 2}}}, say: "${look#1.n} ${look#2.n} ${look.n}"}
    """
    story = play(script)
    await story.turn()
    story.answer({"n": 1}, {"n": 2})

    assert (await story.turn()).message.text == "1 2 2"


class _Counted(list[object]):
    """Counts the messages that are looked at."""

    looks = 0

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        self.looks += 1
        return super().__getitem__(index)  # type: ignore[index]


async def test_work_of_a_turn_does_not_grow_with_the_conversation(play: PlayScript) -> None:
    """5,000 turns: the same few messages are looked at as at the third, a value of the second turn included."""
    script = """
    turns:
      - call: [{look: }]
      - {take: {first: look.n}, call: [{look: }]}
      - repeat: 100000
        expect: {results: {look: {n: 0}}}
        take: {newest: look.n}
        call: [{look: {first: "${first}", n: "${newest}", step: "${n}"}}]
    """
    story = play(script)
    looks: dict[int, int] = {}
    for turns in (3, 5_000):
        messages: list[object] = [asked("hello")]
        for number in range(1, turns + 1):
            call = CallPart(kind="call", call_id=f"call_{number}_1", tool="look", arguments="{}")
            message = AssistantMessage(role="assistant", parts=(call,), protocol="scripted", model="play.yaml")
            messages += [message, answered(message, {"n": 5 if number == 1 else 0})]
        story.conversation = Conversation(messages)  # type: ignore[arg-type]
        story.conversation._log.messages = counted = _Counted(messages)  # type: ignore[assignment]

        completion = await story.provider.complete(story.prompt())

        assert completion.message.calls[0].call_id == f"call_{turns + 1}_1"
        assert arguments(completion) == [{"first": 5, "n": 0, "step": turns - 1}]
        looks[turns] = counted.looks
    assert looks[5_000] == looks[3] <= 30


async def test_value_is_found_when_messages_did_not_take_turns(play: PlayScript) -> None:
    story = play("turns:\n  - call: [{look: }]\n  - {take: {x: look.a}, finish: paused}\n  - say: a\n  - say: '${x}'\n")
    await story.turn()
    story.answer({"a": 1})
    await story.turn()
    await story.turn()
    story.answer(note="go on")

    assert (await story.turn()).message.text == "1"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${amount} of ${look.sum} for ${input}, answer ${n}", "7 of 9 for hello, answer 1"),
        ("$${amount}", "${amount}"),
        ("nothing to replace", "nothing to replace"),
    ],
)
async def test_values_are_replaced_in_the_last_answer(play: PlayScript, written: str, said: str) -> None:
    story = play(
        f"""
        last: '{written}'
        turns:
          - call: [{{look: }}]
          - {{take: {{amount: look.sum}}, call: [{{look: }}]}}
        """
    )
    await story.turn()
    story.answer({"sum": 7})
    await story.turn()
    story.answer({"sum": 9})

    assert await story.last() == said


async def test_missing_value_of_the_last_answer_is_named(play: PlayScript) -> None:
    story = play("turns:\n  - say: Hello.\nlast: 'It was ${amount}.'\n")

    with pytest.raises(ApplicationError) as failed:
        await story.last()

    assert failed.value.message == "play.yaml:3, last: 'amount' is neither taken by a turn nor a tool that has answered"
