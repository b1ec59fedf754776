"""Calls of the models of a route, one after another: within the budget, and after a cut where they are too long."""

from datetime import timedelta

from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import outcomes, steps
from mandate.workflows.contracts.budget import Grant
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ANSWER_SPARE, ModelReply, ModelRequest, Words
from mandate.workflows.loop import observations
from mandate.workflows.loop.budget import RunBudget, find_needed, is_beyond, is_used_up
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.model_route import ModelRoute
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import backtrack, budget, state_text, wording


class ModelCalls:
    """Model calls of one run."""

    def __init__(self, run: Run, control: Control, route: ModelRoute, run_budget: RunBudget) -> None:
        self._run = run
        self._control = control
        self._route = route
        self._budget = run_budget
        self._lost = 0
        """Attempts of the present call that were lost before its conversation was cut."""
        self._within: timedelta | None = None
        """Time of the present call, where that is limited."""

    async def ask(self, words: tuple[Words, ...]) -> ModelReply | tuple[str, ...] | budget.Shortfall:
        """Ask the models of the route, from the run's current one on, and return the first answer.

        Else why each gave none, or the limit that leaves no room for the call; nothing when the run has to halt before
        another one may be asked.
        """
        model: str | None = self._route.choose()
        silent = list[str]()
        while model is not None:
            answered = await self._ask_one(model, words)
            if not isinstance(answered, ActivityError):
                return answered
            reason = explain_failure(answered, self._run.state.agent.store)
            silent.append(f"{model} gave no answer: {reason}")
            model = self._route.replace(reason) if _another_model_may_help(answered) else None
            if model is None:
                break
            if self._run.has(Change.HOLDS_BEFORE_ATTEMPTS) and not await self._control.go_ahead():
                return ()
        return tuple(silent)

    async def _ask_one(self, model: str, words: tuple[Words, ...]) -> ModelReply | budget.Shortfall | ActivityError:
        """Ask one model within the budget; a request that is larger than the run thought is reserved for anew."""
        needed: int | None = None
        while True:
            grant = None
            if self._budget.is_granted:
                planned = self._budget.plan(model, words, needed)
                if isinstance(planned, budget.Shortfall):
                    return planned
                grant = self._budget.hold(planned)
            self._run.set_doing(f"asking {model}")
            self._lost = 0
            call = observations.ModelCall(self._run, model)
            try:
                with self._run.telemetry.within(call.key):
                    reply = await self._call_model(words, model, grant)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                call.fail(error)
                if not self._budget.is_kept:
                    return error
                self._budget.settle_failed(error, grant, before=self._lost)
                sent = find_needed(error)
                if sent is not None and sent.input_tokens != needed:
                    needed = sent.input_tokens
                    continue
                if is_used_up(error, grant):
                    # What is left pays for a shorter answer, or the limit is used up.
                    continue
                return self._find_shortfall(error) or error
            call.end(reply)
            self._route.keep_latency(reply)
            if self._budget.is_kept:
                self._budget.settle_reply(reply, grant, before=self._lost)
            return reply

    def _find_shortfall(self, error: ActivityError) -> budget.Shortfall | None:
        """Return the limit for which a call was refused or cut off, so that no other model is asked."""
        if is_beyond(error):
            return budget.Shortfall("cost_usd", explain_failure(error, self._run.state.agent.store), is_beyond=True)
        if self._run.state.ledger.is_answering:
            return None
        # A call that has less time than it wants ends a little before that is over, so that its answer can be kept.
        spare = min(self._within / 4, ANSWER_SPARE) if self._within is not None else timedelta(0)
        return self._budget.find_exceeded() or self._budget.find_time_exceeded(spare)

    async def _call_model(self, words: tuple[Words, ...], model: str, grant: Grant | None) -> ModelReply:
        """Ask one model; say how the run stands where its conversation is to be cut first."""
        request, self._within = self._model_request(words, grant), self._budget.find_time_left()
        try:
            return await steps.call_model(request, model, each=self._route.timeout, within=self._within)
        except ActivityError as error:
            needed = outcomes.read_not_sent(error, FailureType.NEEDS_STATE)
            if needed is None:
                raise
            self._run.record_step(f"the conversation is cut: it has about {needed.input_tokens:,} tokens")
            state = state_text.write_state(self._run.state)
            self._lost = needed.lost
            if grant is not None and grant.attempts <= needed.lost:
                raise
            rest = grant.model_copy(update={"attempts": grant.attempts - needed.lost}) if grant is not None else None
            stated = request.model_copy(update={"state": state, "too_long": needed.too_long, "grant": rest})
            return await steps.call_model(stated, model, each=self._route.timeout, within=self._budget.find_time_left())

    def _model_request(self, words: tuple[Words, ...], grant: Grant | None) -> ModelRequest:
        back = self._run.state.back
        if back is not None and back.because is not None:
            note = backtrack.write_note(self._run.state, back.to, back.because)
            back = back.model_copy(update={"note": note, "because": None})
        # What is gone back from is not told.
        answers = (answer for answer in self._run.state.answers if answer is not None and back is None)
        return ModelRequest(
            agent=self._run.state.agent.digest,
            head=self._run.state.head,
            model=self._route.requested,
            why=self._route.take_why(),
            has_others=self._route.has_others,
            results=tuple(answer.model_copy(update={"preview": "", "cause": None}) for answer in answers),
            note=self._told,
            words=words,
            step=self._run.state.step + 1,
            back=back,
            is_last=self._run.state.ledger.is_answering,
            used_up=self._run.state.ledger.used_up if self._run.state.note else "",
            grant=grant,
            payer=self._run.payer,
            cuts=self._run.has(Change.CUTS_CONTEXT),
            is_child=self._run.state.child is not None,
        )

    @property
    def _told(self) -> str | None:
        """Note of the runtime to the model, beside the results."""
        its = self._run.state
        if not its.ledger.is_answering:
            return its.note
        return " ".join(filter(None, (its.note, wording.LAST_ANSWER.format(its.ledger.used_up))))


def _another_model_may_help(error: ActivityError) -> bool:
    blobs = (FailureType.BLOB_MISSING, FailureType.BLOB_CORRUPTED, FailureType.STORE_UNAVAILABLE)
    return not (isinstance(error.cause, ApplicationError) and error.cause.type in blobs)


def explain_failure(error: ActivityError, store: str) -> str:
    """Return why an activity gave no answer, in one sentence."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return wording.shorten(getattr(cause, "message", None) or "no worker finished the call in time", 300)
    if cause.type == FailureType.BLOB_MISSING:
        return f"{cause.message}; this run's conversation is in store {store}"
    return cause.message
