from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.transcript import AssistantMessage, Message, TextPart, UserMessage


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def answered(text: str) -> AssistantMessage:
    return AssistantMessage(
        role="assistant", parts=(TextPart(kind="text", text=text),), protocol="scripted", model="play"
    )


A, B, C, D = told("a"), answered("b"), told("c"), answered("d")


def test_extended_leaves_the_shorter_one_as_it_is() -> None:
    short = Conversation([A])

    long = short.extend(B, C)

    assert list(short) == [A]
    assert list(long) == [A, B, C]
    assert (len(short), len(long)) == (1, 3)
    assert (long[-1], long[0], short[-1]) == (C, A, A)
    assert long.shares_with(short)


def test_forks_do_not_see_each_other() -> None:
    base = Conversation([A])

    first, second = base.extend(B), base.extend(D)
    first = first.extend(C)

    assert list(base) == [A]
    assert list(first) == [A, B, C]
    assert list(second) == [A, D]
    assert not second.shares_with(first)


def test_same_messages_again_are_no_fork() -> None:
    base = Conversation([A])
    tried = base.extend(B)

    retried = base.extend(answered("b"), C)

    assert list(retried) == [A, B, C]
    assert list(tried) == [A, B]
    assert retried.shares_with(base)


def test_last_assistant_is_the_newest_answer_within_the_length() -> None:
    base = Conversation([A])
    longer = base.extend(B, C)
    longest = longer.extend(D)

    assert base.last_assistant() is None
    assert longer.last_assistant() == B
    assert longest.last_assistant() == D


def test_each_message_is_mapped_once_with_the_answer_before_it() -> None:
    seen: list[tuple[Message, AssistantMessage | None]] = []

    def record(message: Message, assistant: AssistantMessage | None) -> int:
        seen.append((message, assistant))
        return len(seen)

    base = Conversation([A, B])
    assert base.map_messages("chat", record) == [1, 2]
    longer = base.extend(C, D)
    assert longer.map_messages("chat", record) == [1, 2, 3, 4]
    assert base.map_messages("chat", record) == [1, 2]

    assert seen == [(A, None), (B, None), (C, B), (D, B)]


def test_fork_keeps_what_was_mapped_before_it() -> None:
    calls: list[Message] = []

    def text(message: Message, _: AssistantMessage | None) -> str:
        calls.append(message)
        return message.parts[0].text if isinstance(message.parts[0], TextPart) else ""

    base = Conversation([A])
    assert base.extend(B).map_messages("chat", text) == ["a", "b"]
    assert base.extend(D).map_messages("chat", text) == ["a", "d"]
    assert base.extend(D).map_messages("other", text) == ["a", "d"]

    assert calls == [A, B, D, A, D]
