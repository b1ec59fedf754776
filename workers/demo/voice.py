"""The demo's lines while the run goes on, and the steps that they tell of."""

import textwrap
from dataclasses import dataclass, field

from activities.transcript import TranscriptLog
from workers.cli.chronicle import Chronicle
from workers.cli.happenings import Call, Happening, Returned, Said
from workers.cli.output import Output
from workers.demo.kill import TOOL, Killing
from workflows.contracts.tool import ToolResult
from workflows.rules import wording

WIDTH = 100
NAME_COLUMNS = 8
RESULT_CHARACTERS = 400
SHOWN_CHARACTERS = 96
"""Of a result, on the terminal."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of the model that has its answer."""

    call: Call
    text: str
    """Of the answer, on one line, up to `RESULT_CHARACTERS`."""
    is_error: bool


@dataclass(slots=True)
class Step:
    """One answer of the model with calls."""

    number: int
    says: str
    calls: list[Answered] = field(default_factory=list)
    """In the order in which they were answered."""


class Voice:
    """Follows one run and says in text what happens; nothing with `-o json`."""

    def __init__(self, out: Output, transcript: TranscriptLog) -> None:
        self.steps: list[Step] = []
        self._out = out
        self._transcript = transcript

    def introduce(self, *, server: str, url: str | None, worker: str, model: str, rules: str, asked: str) -> None:
        """Who takes part, and where one can watch."""
        scripted = model.startswith("scripted:")
        rows = {
            "server": f"Temporal at {server}",
            "watch": url or "in the server's Web UI",
            "worker": worker,
            "model": f"{model}, a script that needs no key; --model openai:... asks a real one" if scripted else model,
            "rules": f"read from an MCP server: {rules}",
        }
        self._say("A small coffee shop has a complaint, and an agent settles it.\n")
        for name, value in rows.items():
            self._say(f"  {name:<{NAME_COLUMNS}}{value}")
        self._say("")
        self._say(indented(f"Asked: {asked}", 2))
        self._say("")

    async def hear(self, happening: Happening, chronicle: Chronicle) -> None:
        """Tell of the next happening of a run of which `chronicle` is known."""
        match happening:
            case Said(number, beginning) if chronicle.calls and chronicle.head is not None:
                said = (await self._transcript.load(chronicle.head)).conversation.last_assistant()
                self.steps.append(Step(number, said.text.strip() if said is not None else beginning))
                self._say(indented(f"{number}. {self.steps[-1].says}", 0), "bold")
            case Returned(_, call) if call.result is not None:
                text = wording.shorten(await self._whole(call.result), RESULT_CHARACTERS)
                answered = Answered(call, text, call.result.error)
                self.steps[-1].calls.append(answered)
                self._answer(answered)

    async def _whole(self, result: ToolResult) -> str:
        if result.digest is None:
            return result.text or ""
        return (await self._transcript.blobs.get(result.digest)).decode(errors="replace")

    def _answer(self, answered: Answered) -> None:
        call = answered.call
        again = f" (attempt {call.attempts})" if call.attempts > 1 else ""
        self._say(f"     {call.line}{again}", "cyan")
        mark, style = ("✗", "yellow") if answered.is_error else ("→", "dim")
        self._say(f"       {mark} {answered.text[:SHOWN_CHARACTERS]}", style)

    def killed(self, killing: Killing) -> None:
        self._say(
            f"     Worker {killing.killed_pid} was killed (SIGKILL): {TOOL} had paid, and nobody had been told.\n"
            f"     Worker {killing.new_pid} is started; it gets the call when no heartbeat has come for 10 s.",
            "red",
        )

    def _say(self, text: str, style: str | None = None) -> None:
        if not self._out.as_json:
            self._out.result.print(text, style=style, markup=False, highlight=False)


def indented(text: str, columns: int) -> str:
    """`text`, wrapped at `WIDTH`, every line after `columns` blanks; a list item's later lines stand under its text."""
    hang = 2 if text.lstrip().startswith("- ") else 0
    blanks = " " * columns
    return textwrap.fill(text, WIDTH, initial_indent=blanks, subsequent_indent=blanks + " " * hang) or ""
