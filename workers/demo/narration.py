"""The demo's lines while the run goes on, and the steps that they tell of."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from mandate.activities.transcript import results
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.cli.output import Output
from mandate.workers.demo import faults
from mandate.workers.demo.kill import TOOL, Killing
from mandate.workers.demo.mending import Checked, Looked, Mended
from mandate.workers.history.events import Call, CallReturned, Happening, ModelAnswered
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import wording

WIDTH = 100
NAME_COLUMNS = 8
RESULT_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of the model that has its answer."""

    call: Call
    text: str
    """Of the answer, on one line, up to `RESULT_CHARACTERS`."""
    is_error: bool


@dataclass(slots=True)
class Step:
    """One answer of the model with calls, or one that was not taken."""

    number: int
    says: str
    calls: list[Answered] = field(default_factory=list)
    """In the order in which they were answered."""


class Voice:
    """Follows one run and says in text what happens; nothing with `-o json`."""

    def __init__(self, out: Output, transcript: TranscriptLog) -> None:
        self.steps: list[Step] = []
        self.mended: list[Mended] = []
        """What was looked up and what was checked."""
        self._out = out
        self._transcript = transcript
        self.columns = width(out)
        self._numbered = True
        self._final = ModelAnswered(0, "")

    def introduce(
        self, *, server: str, url: str | None, worker: str, model: str, rules: str, asked: str, broken: str | None
    ) -> None:
        """Print who takes part, and where one can watch."""
        scripted = model.startswith("scripted:")
        rows = {
            "server": f"Temporal at {server}",
            "watch": url or "in the server's Web UI",
            "worker": worker,
            "model": f"{model}, a script that needs no key; --model openai:... asks a real one" if scripted else model,
            "rules": f"read from an MCP server: {rules}",
        }
        if broken is not None:
            rows["broken"] = broken
        self._say("A small coffee shop has a complaint, and an agent settles it.\n")
        for name, value in rows.items():
            lines = indented(value, 2 + NAME_COLUMNS, self.columns).lstrip()
            self._say(f"  {name:<{NAME_COLUMNS}}{lines}")
        self._say("")
        self._say(indented(f"Asked: {asked}", 2, self.columns))
        self._say("")

    async def hear(self, happening: Happening | Mended, chronicle: RunHistory) -> None:
        """Tell of the next happening of a run of which `chronicle` is known."""
        match happening:
            case ModelAnswered(number, beginning) if (
                chronicle.calls and chronicle.head is not None and number == chronicle.step
            ):
                said = (await self._transcript.load(chronicle.head)).conversation.last_assistant()
                self.steps.append(Step(number, said.text.strip() if said is not None else beginning))
                self._numbered = bool(self.steps[-1].says)
                if self._numbered:
                    self._say(indented(f"{number}. {self.steps[-1].says}", 0, self.columns), "bold")
            case ModelAnswered(final=True):
                self._final = happening
            case CallReturned(_, call) if call.result is not None:
                text = wording.shorten(await self._whole(call.result), RESULT_CHARACTERS)
                self._returned(Answered(call, text, call.result.error))
            case Looked():
                self._looked(happening)
            case Checked():
                self._checked(happening, chronicle.pin.attempts if chronicle.pin is not None else 0)

    async def _whole(self, result: ToolResult) -> str:
        if result.digest is None:
            return result.text or ""
        return (await results.load_content(self._transcript.blobs, result)).decode(errors="replace")

    def _returned(self, answered: Answered) -> None:
        """Print that a call has its answer; once more if it had been lost."""
        calls = self.steps[-1].calls
        earlier = [index for index, before in enumerate(calls) if before.call is answered.call]
        if earlier:
            calls[earlier[0]] = answered
            self._result(answered)
            return
        calls.append(answered)
        self._answer(answered)
        if answered.call.state == "unknown":
            times = "in one attempt" if answered.call.attempts == 1 else f"in {answered.call.attempts} attempts"
            self._say(
                indented(f"No reply {times}: it may have happened, or not. It is not guessed.", 5, self.columns), "red"
            )

    def _looked(self, looked: Looked) -> None:
        self.mended.append(looked)
        found = {
            Outcome.DONE: ("it was done, and is not made again", "green"),
            Outcome.NOT_DONE: ("it was not done, and is made again", "green"),
        }
        words, style = found.get(looked.outcome, ("it is still unknown", "yellow"))
        self._say(indented(f"{looked.probe} is asked, by the call's idempotency key: {words}.", 5, self.columns), style)

    def _checked(self, checked: Checked, attempts: int) -> None:
        self.mended.append(checked)
        passed = checked.finding == "pass"
        if checked.call is None and not passed:
            self.steps.append(Step(self._final.step, self._final.text.strip()))
            self._say(indented(f"{self._final.step}. {self._final.text.strip()}", 0, self.columns), "bold")
        words = "passed" if passed else "failed" if checked.finding == "fail" else "could not be made"
        line = f"{'✓' if passed else '✗'} check {checked.check} {words}: {checked.reason}"
        self._say(indented(line, 5, self.columns, hang=2), "green" if passed else "yellow")
        failures = len(faults.failed(self.mended))
        if checked.call is None and not passed:
            then = "the model is told why" if failures < attempts else "a person is asked"
            self._say(indented(f"Attempt {failures} of {attempts} was not taken; {then}.", 5, self.columns), "dim")

    def _answer(self, answered: Answered) -> None:
        call = answered.call
        again = f" (attempt {call.attempts})" if call.attempts > 1 else ""
        # A step without words has its number here.
        number, self._numbered = ("" if self._numbered else f"{self.steps[-1].number}."), True
        self._say(f"{number:<5}{wording.shorten(call.line, self.columns - 5 - len(again))}{again}", "cyan")
        self._result(answered)

    def _result(self, answered: Answered) -> None:
        mark, style = ("✗", "yellow") if answered.is_error else ("→", "dim")
        self._say(f"       {mark} {wording.shorten(answered.text, self.columns - 9)}", style)

    def killed(self, killing: Killing) -> None:
        for line in (
            f"Worker {killing.killed_pid} was killed (SIGKILL): {TOOL} had paid, and nobody had been told.",
            f"Worker {killing.new_pid} is started; it gets the call when no heartbeat has come for 10 s.",
        ):
            self._say(indented(line, 5, self.columns), "red")

    def ask(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print the question to people, in rows of heading and text; a row without heading is printed as it is.

        With `-o json` on stderr, so that somebody learns why nothing goes on.
        """
        for name, value in rows:
            if name:
                lines = indented(value, 5 + NAME_COLUMNS, self.columns).lstrip()
                self._tell(f"     {name:<{NAME_COLUMNS}}{lines}", "bold yellow" if name == "asked" else "yellow")
            else:
                self._tell(value if value.startswith(" ") else indented(value, 5, self.columns), None)

    def answer(self, line: str, *, counts: bool) -> None:
        """Print somebody's words to the run."""
        self._tell(indented(line, 5, self.columns), "green" if counts else "red")

    def _tell(self, text: str, style: str | None) -> None:
        if self._out.as_json:
            self._out.note(text)
        else:
            self._say(text, style)

    def _say(self, text: str, style: str | None = None) -> None:
        if not self._out.as_json:
            self._out.result.print(text, style=style, markup=False, highlight=False)


def width(out: Output) -> int:
    """Return the longest line: up to `WIDTH`, and no longer than the terminal."""
    return min(WIDTH, out.result.width) if out.result.is_terminal else WIDTH


def indented(text: str, columns: int, limit: int, *, hang: int | None = None) -> str:
    """Wrap `text` at `limit`, every line after `columns` blanks, later ones after `hang` more.

    Without `hang` a list item's later lines stand under its text. Words are never broken: links and paths stay whole.
    """
    if hang is None:
        hang = 2 if text.lstrip().startswith("- ") else 0
    blanks = " " * columns
    return textwrap.fill(
        text,
        limit,
        initial_indent=blanks,
        subsequent_indent=blanks + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
