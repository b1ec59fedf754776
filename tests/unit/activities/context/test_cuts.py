"""Cuts: what is kept, what shrinks, and what is said of the rest."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.context import cuts
from mandate.activities.context.cuts import Division
from mandate.activities.transcript.conversation import NOTE
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    CallPart,
    LeftOut,
    Message,
    ResultPart,
    SummaryLine,
    TextPart,
    UserMessage,
)


def answer(number: int, calls: int = 1) -> AssistantMessage:
    parts = tuple(
        CallPart(kind="call", call_id=f"c{number}-{call}", tool="look_up", arguments=f'{{"number": {number}}}')
        for call in range(calls)
    )
    return AssistantMessage(role="assistant", parts=parts, protocol="openai.responses", model="m")


def results(number: int, calls: int = 1, text: str = "x" * 1000) -> UserMessage:
    return UserMessage(
        role="user",
        parts=tuple(
            ResultPart(
                kind="result",
                call_id=f"c{number}-{call}",
                tool="look_up",
                text=text,
                digest=digest_of(f"{number}-{call}".encode()),
                size=len(text),
            )
            for call in range(calls)
        ),
    )


def turns(count: int) -> list[Message]:
    return list(itertools.chain.from_iterable((answer(number), results(number)) for number in range(count)))


def size(message: Message) -> int:
    return sum(len(part.text) for part in message.parts if isinstance(part, ResultPart | TextPart)) + 10


def divide(messages: list[Message], room: int, keep: int = 4) -> Division:
    return cuts.divide(messages, room=room, keep=keep, size=size, recall=True)


def is_shrunk(message: Message) -> bool:
    return any(isinstance(part, ResultPart) and part.text.startswith("[left out") for part in message.parts)


def test_old_results_shrink_to_a_line_and_the_newest_stay() -> None:
    messages = turns(6)

    division = divide(messages, room=4_000)

    assert division.dropped == ()
    assert [is_shrunk(message) for message in division.kept] == [False, True] * 4 + [False, False] * 2
    assert (
        division.kept[1].parts[0].text
        == (  # type: ignore[union-attr] # a result
            f'[left out: a result of 1000 bytes; read it with read_result(result="{digest_of(b"0-0")[:10]}", start=0)]'
        )
    )


def test_the_oldest_turns_go_where_shrinking_does_not_make_room() -> None:
    division = divide(turns(6), room=2_200)

    assert division.kept[0] == answer(3)
    assert list(division.dropped) == turns(3)


def test_fewer_than_the_newest_stay_where_even_these_do_not_fit() -> None:
    division = divide(turns(6), room=1_300, keep=20)

    assert sum(map(size, division.kept)) <= 1_300
    assert division.kept[-1] == results(5)
    assert is_shrunk(division.kept[-3])


def test_results_of_the_last_turn_are_shortened_where_nothing_else_is_left() -> None:
    messages: list[Message] = [answer(0, 3), results(0, 3, "y" * 10_000)]

    division = divide(messages, room=4_000)

    assert sum(map(size, division.kept)) <= 4_000
    assert all("the rest of 10000 bytes is left out; read it with" in part.text for part in division.kept[1].parts)  # type: ignore[union-attr]


def test_a_note_of_a_person_stays_with_a_result_that_shrinks() -> None:
    told = results(0, 1, "[ann@example.com changed the call]\n" + "x" * 900)

    shrunk = cuts.shrink(told, recall=False)

    assert (
        shrunk.parts[0].text
        == (  # type: ignore[union-attr] # a result
            f"[ann@example.com changed the call]\n[left out: a result of 935 bytes, digest {digest_of(b'0-0')[:10]}]"
        )
    )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000)), min_size=1, max_size=12),
    st.integers(100, 20_000),
    st.integers(2, 30),
)
def test_no_call_is_parted_from_its_result(shape: list[tuple[int, int]], room: int, keep: int) -> None:
    messages = list[Message]()
    for number, (calls, length) in enumerate(shape):
        messages += [answer(number, calls), results(number, calls, "z" * length)]

    division = divide(messages, room, keep)

    called = [part.call_id for message in division.kept for part in message.parts if isinstance(part, CallPart)]
    answered = [part.call_id for message in division.kept for part in message.parts if isinstance(part, ResultPart)]
    assert called == answered
    assert list(division.dropped) + [None] * len(division.kept) == messages[: len(division.dropped)] + [None] * len(
        division.kept
    )
    assert len(division.dropped) + len(division.kept) == len(messages)
    assert isinstance(division.kept[0], AssistantMessage)


def test_words_of_people_stay_as_they_were_said_and_notes_of_the_runtime_go() -> None:
    dropped = UserMessage(
        role="user",
        parts=(
            TextPart(kind="text", text=f"{NOTE} Go on."),
            TextPart(kind="text", text="[ann@example.com says] Never over 120."),
        ),
    )
    earlier = (TextPart(kind="text", text="[bob@example.com says] Be brief."),)

    assert cuts.collect_words(earlier, [dropped]) == (
        TextPart(kind="text", text="[bob@example.com says] Be brief."),
        TextPart(kind="text", text="[ann@example.com says] Never over 120."),
    )


def test_the_oldest_words_go_beyond_the_limit() -> None:
    words = [TextPart(kind="text", text=f"[ann says] {number} " + "w" * 1_900) for number in range(6)]

    kept = cuts.collect_words(words, [])

    assert [part.text[:12] for part in kept] == [f"[ann says] {number}" for number in (2, 3, 4, 5)]


def test_what_is_left_out_is_counted_and_the_newest_results_are_named() -> None:
    before = LeftOut(answers=3, calls={"look_up": 2, "pay": 1}, results=("old",))

    left_out = cuts.count_left_out(before, turns(2), recall=True)

    assert (left_out.answers, left_out.calls) == (5, {"look_up": 4, "pay": 1})
    assert left_out.results[0] == "old"
    assert left_out.results[-1] == (
        f'look_up {{"number": 1}}: 1000 bytes; read it with read_result(result="{digest_of(b"1-0")[:10]}", start=0)'
    )


def test_the_account_of_what_is_left_out_stays_bounded() -> None:
    left_out = LeftOut()
    for number in range(200):
        left_out = cuts.count_left_out(left_out, [answer(number), results(number)], recall=True)

    assert (left_out.answers, left_out.calls, len(left_out.results)) == (200, {"look_up": 200}, cuts.RESULTS_LISTED)


def test_the_note_says_what_is_true_and_what_is_left_out() -> None:
    note = cuts.write_note(
        "Step 7 of at most 40.",
        LeftOut(answers=2, calls={"pay": 1}),
        (SummaryLine(text="Order 81 is paid.", sources=(digest_of(b"s"),)),),
    )

    assert note == (
        "[Note from the runtime] To make room, older messages of this conversation are left out; nothing of them is "
        "undone.\n\nStep 7 of at most 40.\n\nFrom what is left out:\n- Order 81 is paid.\n\n"
        "Left out: 2 of your answers; calls in them: pay once."
    )
