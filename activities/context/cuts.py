"""Cuts: which messages of a conversation are kept, which results shrink to a line, and what is said of the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mandate.activities.transcript.conversation import NOTE
from mandate.activities.transcript.results import REFERENCE_CHARACTERS
from mandate.workflows.contracts.tool import READ_RESULT
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    LeftOut,
    Message,
    ResultPart,
    SummaryLine,
    TextPart,
    UserMessage,
)
from mandate.workflows.rules import plain_text, quantities

SMALL_RESULT = 200
"""Characters of a result that is not made shorter by a line in its place."""
RESULTS_LISTED = 20
WORDS_CHARACTERS = 8_000
"""Of what people said, the newest kept."""
ONE_WORD_CHARACTERS = 2_000
SHOWN_ARGUMENTS = 80
SHORTEST_EXCERPT = 400

Size = Callable[[Message], int]


@dataclass(frozen=True, slots=True)
class Division:
    """Messages that a cut keeps, and those that it leaves out."""

    kept: tuple[Message, ...]
    """Begins with an answer of the model, so that no call is without its result."""
    dropped: tuple[Message, ...]


def divide(messages: Sequence[Message], *, room: int, keep: int, size: Size, recall: bool) -> Division:
    """Divide `messages` so that what is kept has at most `room` tokens, as far as the last turn allows.

    Old results shrink first; then the oldest turns go; then the newest `keep` messages are treated as the old ones
    were; at last the results of the last turn are shortened.
    """
    turns = _split_turns(messages)
    recent = _count_recent(turns, keep)
    kept = [
        turn if index >= len(turns) - recent else tuple(shrink(message, recall=recall) for message in turn)
        for index, turn in enumerate(turns)
    ]
    total = sum(_measure(turn, size) for turn in kept)
    while total > room and len(kept) > recent:
        total -= _measure(kept.pop(0), size)
    for index, turn in enumerate(kept[:-1]):
        if total <= room:
            break
        kept[index] = tuple(shrink(message, recall=recall) for message in turn)
        total += _measure(kept[index], size) - _measure(turn, size)
    while total > room and len(kept) > 1:
        total -= _measure(kept.pop(0), size)
    if total > room and kept:
        kept[-1] = _shorten_last(kept[-1], room, size, recall=recall)
    dropped = turns[: len(turns) - len(kept)]
    return Division(
        kept=tuple(message for turn in kept for message in turn),
        dropped=tuple(message for turn in dropped for message in turn),
    )


def _split_turns(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """Return the messages in groups that begin with an answer; what stands before the first answer is a group too."""
    turns: list[list[Message]] = []
    for message in messages:
        if isinstance(message, AssistantMessage) or not turns:
            turns.append([])
        turns[-1].append(message)
    return [tuple(turn) for turn in turns]


def _count_recent(turns: Sequence[Sequence[Message]], keep: int) -> int:
    """Return how many turns hold the newest `keep` messages, at least one."""
    number, messages = 0, 0
    for turn in reversed(turns):
        messages += len(turn)
        if messages > keep and number:
            break
        number += 1
    return number


def _measure(turn: Sequence[Message], size: Size) -> int:
    return sum(map(size, turn))


def shrink(message: Message, *, recall: bool) -> Message:
    """Return `message` with a line in place of each long result."""
    if not isinstance(message, UserMessage):
        return message
    parts = tuple(_shrink_part(part, recall) if isinstance(part, ResultPart) else part for part in message.parts)
    return message if parts == message.parts else message.model_copy(update={"parts": parts})


def _shrink_part(part: ResultPart, recall: bool) -> ResultPart:  # noqa: FBT001 - one of two
    if part.digest is None or len(part.text) <= SMALL_RESULT:
        return part
    first, _, rest = part.text.partition("\n")
    note = f"{first}\n" if rest and first.startswith("[") and first.endswith("]") and len(first) < 500 else ""
    return part.model_copy(
        update={"text": f"{note}[left out: a result of {quantities.count_bytes(part.size or 0)}{_name(part, recall)}]"}
    )


def _name(part: ResultPart, recall: bool) -> str:  # noqa: FBT001 - one of two
    reference = (part.digest or "")[:REFERENCE_CHARACTERS]
    if not recall:
        return f", digest {reference}"
    return f'; read it with {READ_RESULT}(result="{reference}", start=0)'


def _shorten_last(turn: tuple[Message, ...], room: int, size: Size, *, recall: bool) -> tuple[Message, ...]:
    """Return the last turn with as much of each result as there is room for, the same share of each."""
    for share in (2, 4, 8, 16, 32, 64, 128):
        shorter = tuple(_shorten(message, share, recall) for message in turn)
        if _measure(shorter, size) <= room:
            return shorter
    return tuple(shrink(message, recall=recall) for message in turn)


def _shorten(message: Message, share: int, recall: bool) -> Message:  # noqa: FBT001 - one of two
    if not isinstance(message, UserMessage):
        return message
    parts = []
    for part in message.parts:
        if isinstance(part, ResultPart) and part.digest is not None and len(part.text) > SHORTEST_EXCERPT:
            text = part.text[: max(len(part.text) // share, SHORTEST_EXCERPT)]
            shown = f"{text}\n[the rest of {quantities.count_bytes(part.size or 0)} is left out{_name(part, recall)}]"
            parts.append(part.model_copy(update={"text": shown}))
        else:
            parts.append(part)  # type: ignore[arg-type] # the two kinds of parts that a user message has
    return message.model_copy(update={"parts": tuple(parts)})


def collect_words(earlier: Sequence[TextPart], dropped: Sequence[Message]) -> tuple[TextPart, ...]:
    """Return what people said, as they said it: `earlier` and what is in `dropped`, the newest kept."""
    said = list(earlier)
    for message in dropped:
        if isinstance(message, UserMessage):
            said.extend(part for part in message.parts if isinstance(part, TextPart) and not part.text.startswith(NOTE))
    kept: list[TextPart] = []
    left = WORDS_CHARACTERS
    for part in reversed(said):
        text = plain_text.cut(part.text, ONE_WORD_CHARACTERS)
        left -= len(text)
        if left < 0:
            break
        kept.append(TextPart(kind="text", text=text))
    return tuple(reversed(kept))


def count_left_out(before: LeftOut, dropped: Sequence[Message], *, recall: bool) -> LeftOut:
    """Return the account of what was left out, with `dropped`."""
    calls, lines = dict(before.calls), list(before.results)
    answers, asked = before.answers, dict[str, str]()
    for message in dropped:
        if isinstance(message, AssistantMessage):
            answers += 1
            for call in message.calls:
                calls[call.tool[:64]] = calls.get(call.tool[:64], 0) + 1
                asked[call.call_id] = plain_text.shorten(call.arguments, SHOWN_ARGUMENTS)
            continue
        for part in message.parts:
            if isinstance(part, ResultPart) and part.digest is not None:
                shown = f"{part.tool} {asked.get(part.call_id, '')}".rstrip()
                lines.append(f"{shown}: {quantities.count_bytes(part.size or 0)}{_name(part, recall)}")
    return LeftOut(answers=answers, calls=_keep_most(calls), results=tuple(lines[-RESULTS_LISTED:]))


def _keep_most(calls: dict[str, int]) -> dict[str, int]:
    if len(calls) <= 64:
        return calls
    most = sorted(calls.items(), key=lambda item: (-item[1], item[0]))[:64]
    return dict(most)


def write_note(state: str, left_out: LeftOut, summary: Sequence[SummaryLine]) -> str:
    """Return what the runtime tells the model in place of what was left out."""
    calls = ", ".join(f"{tool} {quantities.count_times(number)}" for tool, number in left_out.calls.items()) or "none"
    paragraphs = [
        f"{NOTE} To make room, older messages of this conversation are left out; nothing of them is undone.",
        state,
    ]
    if summary:
        paragraphs.append("\n".join(("From what is left out:", *(f"- {line.text}" for line in summary))))
    paragraphs.append(f"Left out: {left_out.answers} of your answers; calls in them: {calls}.")
    if left_out.results:
        paragraphs.append("\n".join(("The newest results among them:", *(f"- {line}" for line in left_out.results))))
    return "\n\n".join(filter(None, paragraphs))
