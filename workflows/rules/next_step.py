"""Next step after an answer of the model."""

from dataclasses import dataclass

from mandate.workflows.contracts.model import Finish, ModelReply
from mandate.workflows.rules import quantities


@dataclass(frozen=True, slots=True)
class Act:
    """The answer asks for calls."""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is final."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The model is told `note` and asked again; `counts` says whether that uses up an attempt."""

    note: str | None
    counts: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Next = Act | Done | AskAgain | GiveUp

_NOTES = {
    Finish.TRUNCATED: "Your answer was cut off at the output limit. Answer again, in fewer words.",
    Finish.EMPTY: "Your answer was empty. Go on with a tool call, or give your final answer.",
}


def choose_next(reply: ModelReply, misfits: int, attempts: int) -> Next:
    """Return the step after `reply` when `misfits` answers in a row could not be taken before it."""
    if reply.calls:
        return Act()
    match reply.finish:
        case Finish.COMPLETE:
            return Done()
        case Finish.PAUSED:
            return AskAgain(note=None, counts=True) if misfits < MAX_PAUSES else GiveUp("the model paused too often")
        case Finish.REFUSED:
            return GiveUp(f"the model refused: {reply.problem or 'it gave no reason'}")
        case Finish.TRUNCATED | Finish.EMPTY | Finish.MISFIT:
            if misfits + 1 >= attempts:
                tries = quantities.count_noun(attempts, "answer") + (" in a row" if attempts > 1 else "")
                return GiveUp(f"{tries} could not be taken; the last: {reply.problem or reply.finish}")
            return AskAgain(note=_note(reply), counts=True)


MAX_PAUSES = 10


def _note(reply: ModelReply) -> str:
    if reply.finish is Finish.MISFIT:
        return f"Your final answer cannot be taken: {reply.problem}. Answer again with JSON that fits the schema."
    return _NOTES[reply.finish]
