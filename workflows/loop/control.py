"""Control of a run as a whole by people: steer, pause, resume, stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.control import SAFE, ControlCheck, ControlVerb
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Words
from mandate.workflows.contracts.request import Halt, Steering, Stop, Told
from mandate.workflows.loop import observations
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import wording

LINES = 5
"""Calls that the answer to a stop names."""

STOPPING = "the run is being stopped"
ENDING = "the run is ending"

WORDS_WAITING = 100
WORDS_BYTES = 32 * 1024
"""Most that people's words take which the model has not been told yet."""


class Control:
    """The wishes of people for one run; they survive in its state."""

    def __init__(self, run: Run) -> None:
        self.is_ending = False
        """Nothing is told to the model any more."""
        self._run = run
        self._in_turn = asyncio.Lock()

    @asynccontextmanager
    async def admitted(self, verb: ControlVerb, by: str) -> AsyncIterator[None]:
        """Let through what a person wants of the run once it is known that they may, in the order of the messages.

        A stop waits for no other message.

        Raises:
            ApplicationError: `DecisionRefused`, with a sentence for them; `TryAgain`.
        """
        if not self._run.has(Change.CHECKS_CONTROL):
            yield
            return
        async with nullcontext() if verb == "stop" else self._in_turn:
            await self._check(verb, by)
            if self.is_ending:
                raise ApplicationError(ENDING, type=FailureType.DECISION_REFUSED, non_retryable=True)
            yield

    async def _check(self, verb: ControlVerb, by: str) -> None:
        agent, workflow_id = self._run.state.agent.name, workflow.info().workflow_id
        try:
            checked = await steps.check_control(ControlCheck(verb=verb, by=by, agent=agent, workflow_id=workflow_id))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._let_unchecked(verb, by, error)
            return
        if checked.refusal is not None:
            raise ApplicationError(checked.refusal, type=FailureType.DECISION_REFUSED, non_retryable=True)

    def _let_unchecked(self, verb: ControlVerb, by: str, error: ActivityError) -> None:
        """Let a pause or a stop through of which it cannot be told who may: a run in trouble is held all the same."""
        cause = error.cause
        is_said = isinstance(cause, ApplicationError)
        why = cause.message if isinstance(cause, ApplicationError) else "no worker answered in time"
        if verb in SAFE:
            self._run.record_step(f"{verb} by {by}: who may control runs could not be checked ({why}); it counts")
            return
        raise ApplicationError(
            f"who may {verb} runs could not be checked ({why}); nothing was done; try again",
            type=FailureType.DECISION_REFUSED if is_said else FailureType.TRY_AGAIN,
            non_retryable=True,
        )

    @property
    def is_stopping(self) -> bool:
        """True if nothing may begin; a run that takes back what it did goes on with that."""
        return self._run.state.control.stopped is not None and not self.is_compensating

    @property
    def is_halting(self) -> bool:
        """True if the turn has to end before all its calls have answers."""
        return self.is_stopping or bool(self._run.state.uncertain) or self._run.is_leaving

    @property
    def is_compensating(self) -> bool:
        return self._run.state.control.undo == "begun"

    def begin_compensation(self) -> None:
        """Begin to take back; a pause before the stop holds nothing back any more."""
        self._run.state.control.undo = "begun"
        self._run.state.control.paused = None
        self._run.publish_status()

    def end_compensation(self) -> None:
        self._run.state.control.undo = "ended"

    @property
    def is_paused(self) -> bool:
        return self._run.state.control.paused is not None

    @property
    def has_words(self) -> bool:
        return bool(self._run.state.control.words)

    def refusal(self, steering: Steering) -> str | None:
        """Return why the model cannot be told these words, in one sentence."""
        if self._run.state.control.stopped is not None:
            return STOPPING
        if self.is_ending:
            return f"{ENDING}; {wording.GO_ON}"
        if self._run.state.ledger.is_answering and self._run.has(Change.REFUSES_LATE_WORDS):
            return f"the run gives its last answer, since {self._run.state.ledger.used_up}; {wording.GO_ON}"
        words = self._run.state.control.words
        if len(words) >= WORDS_WAITING:
            return f"{WORDS_WAITING} texts wait for the model's next step already; it takes no more before"
        waiting = sum(len(one.text.encode()) for one in words)
        size = len(steering.text.encode())
        if waiting + size > WORDS_BYTES:
            return f"text: with its {size} bytes, more than {WORDS_BYTES} would wait for the model's next step"
        return None

    def steer(self, steering: Steering) -> Told:
        self.add_words(Words(by=steering.by, text=steering.text))
        observations.note_message(self._run, "steer")
        # A person may have changed their mind, and has no other way to say so.
        its = self._run.state
        its.recovery = its.recovery.model_copy(update={"refused": {}}) if its.recovery.refused else its.recovery
        self._run.record_step(f"{steering.by} says: {wording.shorten(steering.text, 80)}")
        return Told(status=self._run.status, message="the model is told at its next step")

    def add_words(self, words: Words) -> None:
        self._run.state.control.words = (*self._run.state.control.words, words)

    def give_back_words(self, words: tuple[Words, ...]) -> None:
        """Keep words that no model could be told: they come first next time."""
        if words:
            self._run.state.control.words = (*words, *self._run.state.control.words)

    def take_words(self) -> tuple[Words, ...]:
        """Take out the words that the model is to be told next; it is not told again."""
        words = self._run.state.control.words
        if words:
            self._run.state.control.words = ()
        return words

    def pause(self, halt: Halt) -> Told:
        if self._run.state.control.paused is not None and (self._run.state.control.paused.tree or not halt.tree):
            return Told(status=self._run.status, message="the run is paused already")
        self._run.state.control.paused = halt
        self._run.record_step(_said("paused", halt))
        observations.note_message(self._run, "pause")
        self._run.publish_status()
        then = STOPPING if self.is_stopping else "the call in hand is finished; no new one begins"
        if self._run.state.children:
            then += "; its children are paused too" if halt.tree else "; its children work on, unless `tree` is true"
        return Told(status=self._run.status, message=then)

    def resume(self, halt: Halt) -> Told:
        if halt.tree:
            self._run.state.control.tree_resumes += 1
        if not self.is_paused:
            below = "; its children go on" if halt.tree and self._run.state.children else ""
            return Told(status=self._run.status, message=f"the run is not paused{below}")
        self._run.state.control.paused = None
        self._run.record_step(_said("resumed", halt))
        observations.note_message(self._run, "resume")
        self._run.publish_status()
        return Told(status=self._run.status, message=STOPPING if self.is_stopping else "the run goes on")

    def stop(self, stop: Stop) -> Told:
        its = self._run.state
        if self.is_compensating:
            self._run.state.control.undo = "ended"
            self._run.record_step(_said("stopped for good", stop))
            return Told(status=self._run.status, message="nothing more is taken back; the run ends")
        if self.is_stopping and (its.control.undo is not None or not stop.keep):
            kept = "; what it did is kept" if its.control.undo == "kept" and not stop.keep else ""
            return Told(status=self._run.status, message=f"{STOPPING} already{kept}")
        observations.note_message(self._run, "stop")
        if not self.is_stopping:
            self._run.state.control.stopped = Halt(by=stop.by, reason=stop.reason)
        if stop.keep:
            self._run.state.control.undo = "kept"
        self._run.record_step(_said("stopped, and what was done is kept" if stop.keep else "stopped", stop))
        number = len(its.children)
        below = f"its {'child is' if number == 1 else f'{number} children are'} stopped, " if number else ""
        message = f"the call in hand is finished, {below}then {self._then(stop)}"
        return Told(status=self._run.status, message=message)

    def _then(self, stop: Stop) -> str:
        """Describe the fate of the run and of what it did."""
        its = self._run.state
        done = its.compensable
        if stop.keep:
            return "the run ends; what it did is kept"
        if not done and not self._may_yet_do:
            return "the run ends"
        lines = "; ".join(one.line for one in reversed(done[-LINES:]))
        more = f"; and {len(done) - LINES} more" if len(done) > LINES else ""
        which = f", the last call first ({lines}{more})" if done else ""
        lost = "; ".join(entry.call for entry in (*its.uncertain, *(one.entry for one in its.unclear.values())))
        unless = f"; nothing is taken back while it is unknown whether this happened: {lost}" if lost else ""
        return f"what it did is taken back as far as that may be{which}, and the run ends{unless}"

    @property
    def _may_yet_do(self) -> bool:
        """True if the open turn has a call that is not answered and can be taken back once it is done."""
        its = self._run.state
        return any(
            answer is None and call.tool in its.agent.compensable
            for call, answer in zip(its.calls, its.answers, strict=True)
        )

    async def go_ahead(self) -> bool:
        """Wait until the run is not paused, or has to leave; return whether it may begin something."""
        if self.is_paused and not self.is_stopping:
            self._run.set_doing(f"paused by {self._paused_by}")
            await workflow.wait_condition(lambda: not self.is_paused or self.is_stopping or self._run.is_leaving)
        return not self.is_stopping and not self.is_paused and not self._run.is_leaving

    @property
    def _paused_by(self) -> str:
        paused = self._run.state.control.paused
        return paused.by if paused is not None else ""

    @property
    def stop_reason(self) -> str:
        """The one who stopped the run, and why."""
        stopped = self._run.state.control.stopped
        assert stopped is not None
        return _said("stopped", stopped)


def _said(what: str, halt: Halt) -> str:
    return f"{what} by {halt.by}{f': {halt.reason}' if halt.reason else ''}"
