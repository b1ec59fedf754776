"""Scripts of the `scripted` provider: the file's model.

`scripted:shop.script.yaml` plays that file, looked for in the working directory and among the agent files.
A script is a YAML file of turns; turn 1 answers the input, turn 2 the results of the calls of turn 1, and so on:

```yaml
turns:
  - expect: {user: "*order 81*"}                   # what must have come in; without it, anything may
    say: Let me look the order up.
    call:
      - lookup_order: {order: 81}
  - expect: {results: {lookup_order: {status: paid}}}
    take: {amount: lookup_order.total}              # keep a value for later turns
    fail: [{status: 429, retry_after: 1}, {cut: true}]   # the first two attempts fail, the third answers
    call:
      - issue_refund: {order: 81, amount: "${amount}"}   # a value alone keeps its JSON type
  - say: Refunded ${amount}.
```

**Each turn** may have
- `expect`: `user` is the text that came in (the input, or what the runtime said), `results` the answers to the calls,
  by tool name, or a list of `tool: answer` for all of them in order. In texts `*` stands for anything. An answer given
  as a text is compared as text; anything else with the answer's JSON, where objects may have further keys.
  `{error: true}` and `{error: true, text: "*denied*"}` expect an error; one that is not expected is refused.
  `lookup_order#2` is the second answer of that tool; without a number every answer must fit.
- `take`: names for values of answers: `tool`, or `tool.key.0.key`; of the newest answer of the tool, whenever it came.
- `say`, and `call`: a list of `tool: arguments`. Arguments given as a text are sent as they are, valid or not.
- `fail`: one entry for each attempt (a worker that was lost counts as one): `{status: 500}` with `retry_after` in
  seconds, `{fault: quota}`, `{cut: true}`, or `{slow: 2s}`, which answers late.
- `finish`: `truncated`, `refused`, `empty` or `paused`, on purpose; `usage`; `delay`.
- `repeat: 1000`: the same turn so many times; a group `{repeat: 1000, turns: [...]}` repeats its turns in order.

**Values**: `${amount}` as taken, `${tool.key}` from the newest answer of a tool, `${input}` (or `${input.key}` when the
input is an object), `${n}` (which repetition, from 1). `$${` is a plain `${`. An answer that was too long to be shown
whole is no JSON: it has no keys.

**Around them**: `otherwise` is every turn after the last; without it one more request is refused. `conversations` is a
list of `{match: "*order 81*", turns: [...], otherwise: {...}}` instead of `turns`: the first whose `match` fits the
input. `strict: false` accepts errors and lost answers that no `expect` names. `delay` and `usage` are defaults.
`last` is the answer when a limit of the run leaves only one more, without calls; values are replaced in it too.
"""

import sys
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from mandate.activities.documents import Document
from mandate.activities.failures import ModelFault
from mandate.activities.files import read_spec
from mandate.workflows.contracts.base import Duration, JsonObject, Name, Spec
from mandate.workflows.contracts.faults import Place
from mandate.workflows.contracts.model import Finish


class Expectation(Spec):
    """Conditions on what came in before a turn."""

    user: str | None = Field(default=None, description="Text that came in; `*` stands for any text.")
    results: dict[str, JsonValue] | tuple[dict[str, JsonValue], ...] | None = Field(
        default=None, description="Answers by tool, or a list of `tool: answer` for all of them in order."
    )

    @field_validator("results")
    @classmethod
    def _one_tool_an_item(
        cls, results: dict[str, JsonValue] | tuple[dict[str, JsonValue], ...] | None
    ) -> dict[str, JsonValue] | tuple[dict[str, JsonValue], ...] | None:
        if isinstance(results, tuple) and any(len(item) != 1 for item in results):
            raise ValueError("each item of the list is one 'tool: answer'")
        return results


class Failure(Spec):
    """Failure of one attempt on purpose."""

    status: int | None = Field(default=None, ge=400, le=599, description="An HTTP status.")
    fault: ModelFault | None = Field(default=None, description="A fault by its name.")
    cut: Literal[True] | None = Field(default=None, description="The connection is cut in the answer.")
    slow: Duration | None = Field(default=None, description="The answer comes this late.")
    retry_after: float | None = Field(default=None, ge=0, description="Seconds that the provider asks to wait.")

    @model_validator(mode="after")
    def _one_kind(self) -> "Failure":
        if sum(value is not None for value in (self.status, self.fault, self.cut, self.slow)) != 1:
            raise ValueError("a failure has exactly one of the keys 'status', 'fault', 'cut' and 'slow'")
        return self


class TurnUsage(Spec):
    """Usage that a turn reports; what is left out is estimated from the newest messages.

    A cost that is left out is computed by the price in the agent file; without one it is none.
    """

    input_tokens: int | None = Field(default=None, ge=0)
    cached_input_tokens: int = Field(default=0, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    cost_usd: Decimal | Literal["unknown"] = Field(default=Decimal(0), description="`unknown` is a call without price.")


Call = dict[Name, JsonObject | str | None]


class Turn(Spec):
    """One answer of the model."""

    expect: Expectation = Field(default=Expectation(), description="What must have come in.")
    take: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], str] = Field(
        default={}, description="Values of answers to keep, for example `amount: lookup_order.total`."
    )
    fail: tuple[Failure, ...] = Field(default=(), description="One for each attempt before the one that answers.")
    say: str = Field(default="", description="Text of the answer.")
    call: tuple[Call, ...] = Field(default=(), description="Tool calls: a list of `tool: arguments`.")
    finish: Finish = Field(default=Finish.COMPLETE, description="How the answer ends.")
    usage: TurnUsage | None = Field(default=None, description="What the call is said to have used.")
    delay: Duration | None = Field(default=None, description="Time that the answer takes.")
    repeat: int = Field(default=1, ge=1, description="How many times the turn is played.")

    @field_validator("call")
    @classmethod
    def _one_tool_an_item(cls, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        for call in calls:
            if len(call) != 1:
                raise ValueError("each item of the list is one 'tool: arguments'")
        return calls

    @field_validator("take")
    @classmethod
    def _no_reserved_name(cls, take: dict[str, str]) -> dict[str, str]:
        for name in ("n", "input"):
            if name in take:
                raise ValueError(f"{name!r} has a meaning of its own; take another name")
        return take

    @model_validator(mode="after")
    def _answers(self) -> "Turn":
        if self.finish is Finish.MISFIT:
            raise ValueError("'misfit' is found by the runtime; say something that does not fit the output schema")
        if self.finish is Finish.EMPTY and (self.say or self.call):
            raise ValueError("an 'empty' answer has neither 'say' nor 'call'")
        if self.finish is Finish.COMPLETE and not (self.say or self.call):
            raise ValueError("a turn needs 'say', 'call' or 'finish'")
        return self


class Group(Spec):
    """Turns that are played in order, again and again."""

    repeat: int = Field(ge=1, description="How many times.")
    turns: tuple[Turn, ...] = Field(min_length=1, description="The turns; none of them has its own `repeat`.")

    @field_validator("turns")
    @classmethod
    def _flat(cls, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        if any(turn.repeat != 1 for turn in turns):
            raise ValueError("a turn of a repeated group has no 'repeat' of its own")
        return turns


def _entry_kind(entry: object) -> str:
    return "group" if isinstance(entry, Group) or (isinstance(entry, dict) and "turns" in entry) else "turn"


Entry = Annotated[Annotated[Turn, Tag("turn")] | Annotated[Group, Tag("group")], Discriminator(_entry_kind)]


class ScriptedConversation(Spec):
    """The turns for inputs of one kind."""

    match: str = Field(default="*", description="The input; `*` stands for any text.")
    turns: tuple[Entry, ...] = Field(default=(), description="The model's answers in order.")
    otherwise: Turn | None = Field(default=None, description="Every answer after the last turn.")


class Script(Spec):
    """A script file."""

    strict: bool = Field(default=True, description="Whether errors and lost answers must be expected.")
    delay: Duration | None = Field(default=None, description="Time that an answer takes.")
    usage: TurnUsage = Field(default=TurnUsage(), description="What a call is said to have used.")
    last: str = Field(
        default="This is all that I have.",
        min_length=1,
        description="Answer when a limit of the run leaves only one more; `${...}` is replaced as in `say`.",
    )
    turns: tuple[Entry, ...] = Field(default=(), description="The model's answers in order, whatever the input.")
    otherwise: Turn | None = Field(default=None, description="Every answer after the last turn.")
    conversations: tuple[ScriptedConversation, ...] = Field(
        default=(), description="Instead of `turns`: the first whose `match` fits the input."
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Script":
        if bool(self.turns or self.otherwise) == bool(self.conversations):
            raise ValueError("a script has either 'turns' (with or without 'otherwise') or 'conversations'")
        return self


@dataclass(frozen=True, slots=True)
class Cue:
    """A turn and where it stands."""

    turn: Turn
    place: Place
    repetition: int
    """From 1."""


class Plan:
    """The turns of one conversation by number; finding one does not depend on how often turns repeat."""

    def __init__(self, conversation: ScriptedConversation, place: Place) -> None:
        self.match = conversation.match
        self._bodies = [_body(entry, (*place, "turns", i)) for i, entry in enumerate(conversation.turns)]
        lengths = [entry.repeat * len(body) for entry, body in zip(conversation.turns, self._bodies, strict=True)]
        self.turns = sum(lengths)
        """How many there are with their repetitions, `otherwise` not counted."""
        if conversation.otherwise is not None:
            self._bodies.append([(conversation.otherwise, (*place, "otherwise"))])
            lengths.append(sys.maxsize)
        self._starts = [0, *accumulate(lengths)]

    def find_cue(self, number: int) -> Cue | None:
        """Return the turn with this number, from 1, or `None` after the last."""
        entry = bisect_right(self._starts, number - 1) - 1
        if entry >= len(self._bodies):
            return None
        repetition, offset = divmod(number - 1 - self._starts[entry], len(self._bodies[entry]))
        turn, place = self._bodies[entry][offset]
        return Cue(turn, place, repetition + 1)

    def find_taken(self, name: str, number: int) -> tuple[int, str] | None:
        """Return the newest turn up to `number` that takes `name`, and the path that it takes."""
        for entry in range(min(bisect_right(self._starts, number - 1), len(self._bodies)) - 1, -1, -1):
            start, body = self._starts[entry], self._bodies[entry]
            newest = min(number, self._starts[entry + 1]) - 1 - start
            for index in range(newest, max(newest - len(body), -1), -1):
                path = body[index % len(body)][0].take.get(name)
                if path is not None:
                    return start + index + 1, path
        return None


def _body(entry: Turn | Group, place: Place) -> list[tuple[Turn, Place]]:
    if isinstance(entry, Turn):
        return [(entry, place)]
    return [(turn, (*place, "turns", index)) for index, turn in enumerate(entry.turns)]


@dataclass(frozen=True, slots=True)
class LoadedScript:
    """A script, ready to be played."""

    script: Script
    plans: tuple[Plan, ...]
    document: Document

    def line(self, cue: Cue) -> int:
        """Return the line of the file where the turn begins."""
        return self.document.mark(cue.place)[0]


def load_script(path: Path) -> LoadedScript:
    """Read the script in the file at `path`.

    Raises:
        FileError: all faults of the file, each with line, column, key and what is allowed.
    """
    script, document = read_spec(path, Script)
    plans = [Plan(each, ("conversations", index)) for index, each in enumerate(script.conversations)]
    if not plans:
        plans = [Plan(ScriptedConversation(turns=script.turns, otherwise=script.otherwise), ())]
    return LoadedScript(script, tuple(plans), document)


def build_schema() -> JsonObject:
    """Return the JSON Schema of a script file, for editors."""
    return Script.model_json_schema()
