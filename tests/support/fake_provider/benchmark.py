"""Answers of models for benchmarks, which are named `bench...`.

The name says the whole run, and no body is parsed or kept:
`bench.steps=200.args=40.tool=note.key=text` answers with one call of `note` a turn, with the arguments `{"text":
"..."}` of 40 bytes in all, and with a text after 200 of them. The number of a turn is in the ids of its calls
(`bench-17`), and the next request is asked for the last id in it: so the server holds no state, and repeating a
request repeats its answer. Defaults: 10 steps, 40 bytes, tool `note`, key `text`; `steps=0` answers with the text at
once. `words=400` makes that text longer, and `pieces=100` is for answers that are streamed. The body is looked
through from its end, so `bench-` with a number must not be in a tool's result.
"""

import json
import re
from dataclasses import dataclass

from tests.support.fake_provider.behaviours import Answer, Call

_MODEL = re.compile(rb'"model"\s*:\s*"bench([^"]*)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_TURN = re.compile(rb"bench-(\d+)")


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer and its number, from 1."""

    number: int
    answer: Answer


def asks_for_events(body: bytes) -> bool:
    return _STREAM.search(body, 0, 2000) is not None


def next_turn(body: bytes) -> Turn | None:
    """Return the answer to a request, or `None` when its model is not one for benchmarks."""
    model = _MODEL.search(body, 0, 2000) or _MODEL.search(body, max(len(body) - 2000, 0))
    if model is None:
        return None
    values = dict(item.split("=", 1) for item in model.group(1).decode().split(".") if "=" in item)
    at = body.rfind(b"bench-")
    turn = _TURN.match(body, at) if at >= 0 else None
    number = 1 + (int(turn.group(1)) if turn else 0)
    if number > int(values.get("steps", "10")):
        text = "word " * int(values["words"]) if "words" in values else "All done."
        return Turn(number, Answer(text=text, reasoning=False, pieces=int(values.get("pieces", "3"))))
    frame = len(json.dumps({values.get("key", "text"): ""}))
    padding = f"{number} ".ljust(max(int(values.get("args", "40")) - frame, 0), "x")
    arguments = json.dumps({values.get("key", "text"): padding})
    call = Call(values.get("tool", "note"), arguments, id=f"bench-{number}")
    return Turn(number, Answer(calls=(call,), reasoning=False))
