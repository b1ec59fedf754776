"""The demo's lines while the run goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mandate.activities.transcript import results
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.demo import faults
from mandate.workers.demo.report import Facts, Step
from mandate.workers.history.events import Call, CallProbed, CallReturned, Happening, ModelAnswered, ResultChecked
from mandate.workers.history.run_history import RunHistory
from mandate.workers.run_store import stored
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.rules import wording

_PROBED = {Outcome.DONE: "it was done, and is not made again", Outcome.NOT_DONE: "it was not done, and is made again"}


@dataclass(slots=True)
class Narration:
    """Tells one run as it goes on, with full texts from the store at `store`, and keeps its facts."""

    lines: Lines
    facts: Facts
    store: str
    _answer: ModelAnswered = field(default_factory=lambda: ModelAnswered(0, ""))

    def introduce(self, rows: Mapping[str, str], asked: str) -> None:
        """Say who takes part, where one can watch, and what the agent is asked."""
        self.lines.print("A small coffee shop has a complaint, and an agent settles it.\n")
        for name, value in rows.items():
            self.lines.paragraph(f"{name:<8}{value}", indent=2, hang=8)
        self.lines.print("")
        self.lines.paragraph(f"Asked: {asked}", indent=2)
        self.lines.print("")

    async def hear(self, happening: Happening, history: RunHistory) -> None:
        """Tell of the next happening of a run of which `history` is known."""
        match happening:
            case ModelAnswered(number, text) if history.calls and history.head and number == history.step:
                async with stored(self.store, None) as blobs:
                    answer = (await TranscriptLog(blobs).load(history.head)).conversation.last_assistant()
                self._begin_step(number, answer.text if answer is not None else text)
            case ModelAnswered(final=True):
                self._answer = happening
            case CallReturned(_, call) if (result := call.result) is not None:
                text = result.text or ""
                if result.digest is not None:
                    async with stored(self.store, None) as blobs:
                        text = (await results.load_content(blobs, result)).decode(errors="replace")
                self._tell_result(call, wording.shorten(text, 400), is_error=result.error)
            case CallProbed():
                self.facts.findings.append(happening)
                told = _PROBED.get(happening.outcome, "it is still unknown")
                style = "green" if happening.outcome in _PROBED else "yellow"
                self.lines.paragraph(f"{happening.probe} is asked, by the call's idempotency key: {told}.", style)
            case ResultChecked():
                self._tell_check(happening, history.pin.attempts if history.pin is not None else 0)

    def tell_kill(self, kill: faults.Kill) -> None:
        self.facts.kill = kill
        killed = f"Worker {kill.killed_pid} was killed (SIGKILL): issue_refund had paid, and nobody had been told."
        started = f"Worker {kill.new_pid} is started; it gets the call when no heartbeat has come for 10 s."
        self.lines.paragraph(killed, "red")
        self.lines.paragraph(started, "red")

    def _begin_step(self, number: int, says: str) -> None:
        self.facts.steps.append(Step(number, says.strip()))
        if says.strip():
            self.lines.paragraph(f"{number}. {says.strip()}", "bold", indent=0)

    def _tell_result(self, call: Call, text: str, *, is_error: bool) -> None:
        step, columns = self.facts.steps[-1], self.lines.columns
        lost = next((index for index, (known, _) in enumerate(step.calls) if known is call), None)
        if lost is None:
            # A step without words has its number here.
            number = "" if step.says or step.calls else f"{step.number}."
            step.calls.append((call, text))
            again = f" (attempt {call.attempts})" if call.attempts > 1 else ""
            self.lines.print(f"{number:<5}{wording.shorten(call.line, columns - 5 - len(again))}{again}", "cyan")
        else:
            step.calls[lost] = (call, text)
        mark, style = ("✗", "yellow") if is_error else ("→", "dim")
        self.lines.print(f"       {mark} {wording.shorten(text, columns - 9)}", style)
        if lost is None and call.state == "unknown":
            times = "one attempt" if call.attempts == 1 else f"{call.attempts} attempts"
            self.lines.paragraph(f"No reply in {times}: it may have happened, or not. It is not guessed.", "red")

    def _tell_check(self, found: ResultChecked, most: int) -> None:
        self.facts.findings.append(found)
        is_refused = found.call is None and found.finding != "pass"
        if is_refused:
            self._begin_step(self._answer.step, self._answer.text)
        word = {"pass": "passed", "fail": "failed"}.get(found.finding, "could not be made")
        mark, style = ("✓", "green") if found.finding == "pass" else ("✗", "yellow")
        self.lines.paragraph(f"{mark} check {found.check} {word}: {found.reason}", style, hang=2)
        if is_refused:
            failed = len(faults.list_failed(self.facts.findings))
            then = "the model is told why" if failed < most else "a person is asked"
            self.lines.paragraph(f"Attempt {failed} of {most} was not taken; {then}.", "dim")
