"""Messages of people to a run: each an update, which answers, and a signal of the same name and payload.

Signals are for batches, for the Web UI and for programs that do not wait. A signal cannot answer, so a refusal of one
is kept where people look. Handlers take the raw arguments: a typed signal that does not fit would be dropped silently.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.children import CHILD_DONE, CHILD_WAITS, TELL_CHILD
from mandate.workflows.contracts.failures import ENDED_BEFORE, NOT_BEGUN, REFUSALS, FailureType, Unreadable
from mandate.workflows.contracts.request import (
    DECISIONS_CHARACTERS,
    EVERY,
    MOST_DECISIONS,
    Answer,
    Decision,
    Halt,
    OpenRequests,
    Receipt,
    Receipts,
    Steering,
    Stop,
    Told,
)
from mandate.workflows.contracts.run import Progress
from mandate.workflows.contracts.session import Reply, Say
from mandate.workflows.contracts.state import RunState
from mandate.workflows.loop import approvals, parent, session
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.people import Via
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.session import Session
from mandate.workflows.loop.turn import Turn
from mandate.workflows.rules import validation, wording

M = TypeVar("M", bound=BaseModel)

DECIDE = (
    "Decide on an open request: {request, digest, choice, by, comment, value}; {request: '*', choice: reject}; "
    "up to fifty at once: {decisions: [...]}"
)
STEER = "Tell the agent something at its next step: {text, by}"
PAUSE = "Begin nothing new until it is resumed: {by, reason}"
RESUME = "Go on after a pause: {by, reason}"
SAY = "Say something to a session, and get its answer: {text, by, id, when: now or next, until: answer or people}"
STOP = "Finish the call in hand, take back what can be unless it is to be kept, end: {by, reason, keep: true}"

MOST_KEYS = 50
MOST_CHARACTERS = 128 * 1024
"""A message with more is not read: to refuse it field by field would take longer than a workflow task may."""

MOST_AT_ONCE = 12 * MOST_CHARACTERS
"""Of signals that come together, all that is read: a workflow task must not take long."""

CLOSED_SHOWN = 20
"""Decided requests that the query `open_requests` tells of."""

FORMS = {
    "request": "a request's id such as 'r3', or '*'",
    "digest": "the request's digest, 43 letters, digits, '-' and '_'",
    "by": "a name of 1 to 200 characters that can all be seen, without spaces around it",
    "token": "a text of at most 8192 characters",
}
"""Contents of fields, in words."""


class MessageHandlers:
    """The handlers of a run's messages."""

    _run: Run
    _control: Control
    _turn: Turn
    _session: Session
    _is_over: bool
    _weighed_at: datetime | None = None
    _weighed: int = 0

    @workflow.update(name="decide", description=DECIDE)
    async def decide(self, *args: Any) -> Receipt | Receipts:
        at = workflow.now()
        if _is_many(args):
            return await self._decide_each(_many(args), at, "update")
        decision = _parsed(Decision, args)
        await self._begun()
        return await self._turn.gate.decide(decision, at, "update")

    @decide.validator
    def _validate_decide(self, *args: Any) -> None:
        if _is_many(args):
            entries = _many(args)
            self._refuse_crowd()
            self._refuse_in_clear(entries)
            return
        decision = _parsed(Decision, args)
        if decision.request != EVERY:
            self._refuse_crowd()
        if self._run.is_begun and (reason := self._turn.gate.refusal(decision, workflow.now())) is not None:
            _refuse(reason)

    @workflow.signal(name="decide", description=DECIDE)
    async def _signal_decide(self, *args: Any) -> None:
        at = workflow.now()
        with self._kept("decide", args):
            self._weigh("decide", args)
            if _is_many(args):
                await self._decide_each(_many(args), at, "signal")
                return
            await self._begun()
            decision = _parsed(Decision, args)
            with _already_kept():
                await self._turn.gate.hear(decision, at)

    def _refuse_in_clear(self, entries: list[Any]) -> None:
        """Refuse many decisions for one that must not enter the history, whatever else is right or wrong with it."""
        for entry in entries if self._run.is_begun else ():
            gate, request = self._turn.gate, entry.get("request") if isinstance(entry, dict) else None
            reason = gate.in_clear(request, entry.get("value")) if isinstance(request, str) else None
            if reason is None and not (_fits(Decision, entry) and gate.is_open(request)):
                reason = gate.in_clear_anywhere(entry)
            if reason is not None:
                _refuse(f"{_word(request)}: {reason}")

    async def _decide_each(self, entries: list[Any], at: datetime, via: Via) -> Receipts:
        """Take each of many decisions in by itself, those on one request in their order."""
        await self._begun()
        self._run.messages += 1
        return Receipts(receipts=tuple(await asyncio.gather(*(self._decide_one(entry, at, via) for entry in entries))))

    async def _decide_one(self, entry: Any, at: datetime, via: Via) -> Answer:
        try:
            if isinstance(entry, dict) and entry.get("request") == EVERY:
                _refuse(f"request: {EVERY!r} is sent by itself, not among other decisions")
            decision = _parsed(Decision, (entry,))
        except ApplicationError as error:
            if via == "signal":
                self._note("decide", entry, error.message)
            return Answer(refusal=error.message)
        try:
            if via == "signal":
                await self._turn.gate.hear(decision, at, is_one_of_many=True)
                return Answer()
            return Answer(receipt=await self._turn.gate.decide(decision, at, via, is_one_of_many=True))
        except ApplicationError as error:
            if error.type not in REFUSALS:
                raise
            return Answer(refusal=error.message, again=error.type == FailureType.TRY_AGAIN)

    @workflow.update(name="steer", description=STEER)
    async def steer(self, *args: Any) -> Told:
        await self._heard()
        async with self._control.admitted("steer", _parsed(Steering, args).by):
            return self._steered(args)

    @steer.validator
    def _validate_steer(self, *args: Any) -> None:
        steering = _parsed(Steering, args)
        self._refuse_crowd()
        if self._run.is_begun and (reason := self._control.refusal(steering)) is not None:
            _refuse(reason)

    @workflow.signal(name="steer", description=STEER)
    async def _signal_steer(self, *args: Any) -> None:
        with self._kept("steer", args):
            self._weigh("steer", args)
            await self._heard()
            async with self._control.admitted("steer", _parsed(Steering, args).by):
                self._steered(args)

    @workflow.update(name="pause", description=PAUSE)
    async def pause(self, *args: Any) -> Told:
        await self._heard()
        pause = _parsed(Halt, args)
        async with self._control.admitted("pause", pause.by):
            return self._control.pause(pause)

    @pause.validator
    def _validate_pause(self, *args: Any) -> None:
        _parsed(Halt, args)
        self._refuse_crowd()

    @workflow.signal(name="pause", description=PAUSE)
    async def _signal_pause(self, *args: Any) -> None:
        with self._kept("pause", args):
            self._weigh("pause", args)
            await self._heard()
            pause = _parsed(Halt, args)
            async with self._control.admitted("pause", pause.by):
                self._control.pause(pause)

    @workflow.update(name="resume", description=RESUME)
    async def resume(self, *args: Any) -> Told:
        await self._heard()
        resume = _parsed(Halt, args)
        async with self._control.admitted("resume", resume.by):
            return self._control.resume(resume)

    @resume.validator
    def _validate_resume(self, *args: Any) -> None:
        _parsed(Halt, args)
        self._refuse_crowd()

    @workflow.signal(name="resume", description=RESUME)
    async def _signal_resume(self, *args: Any) -> None:
        with self._kept("resume", args):
            self._weigh("resume", args)
            await self._heard()
            resume = _parsed(Halt, args)
            async with self._control.admitted("resume", resume.by):
                self._control.resume(resume)

    @workflow.update(name="stop", description=STOP)
    async def stop(self, *args: Any) -> Told:
        await self._heard()
        stop = _parsed(Stop, args)
        async with self._control.admitted("stop", stop.by):
            return self._control.stop(stop)

    @stop.validator
    def _validate_stop(self, *args: Any) -> None:
        _parsed(Stop, args)

    @workflow.signal(name="stop", description=STOP)
    async def _signal_stop(self, *args: Any) -> None:
        with self._kept("stop", args):
            self._weigh("stop", args)
            await self._heard()
            stop = _parsed(Stop, args)
            async with self._control.admitted("stop", stop.by):
                self._control.stop(stop)

    @workflow.update(name="say", description=SAY)
    async def say(self, *args: Any) -> Reply:
        await self._heard()
        say = _parsed(Say, args)
        info = workflow.current_update_info()
        message_id = say.id or (info.id if info is not None else str(workflow.uuid4()))
        await self._said(say, message_id)
        return await self._session.wait_for_reply(message_id, until_answered=say.until == "answer")

    @say.validator
    def _validate_say(self, *args: Any) -> None:
        say = _parsed(Say, args)
        self._refuse_crowd()
        if not self._run.is_begun:
            return
        if (reason := self._session.find_refusal(say)) is not None:
            _refuse(reason)
        if self._session.is_leaving:
            raise ApplicationError(session.LEAVING, type=FailureType.TRY_AGAIN, non_retryable=True)

    @workflow.signal(name="say", description=SAY)
    async def _signal_say(self, *args: Any) -> None:
        with self._kept("say", args):
            self._weigh("say", args)
            await self._heard()
            say = _parsed(Say, args)
            await self._said(say, say.id or str(workflow.uuid4()))

    @workflow.signal(name=TELL_CHILD, description="From the run that started this one as a child, and from nobody else")
    async def _signal_tell_child(self, *args: Any) -> None:
        if not self._run.is_begun:
            await workflow.wait_condition(lambda: self._run.is_begun or self._is_over)
        if self._run.is_begun and (message := parent.take_message(self._run, args)) is not None:
            parent.obey(self._control, message)

    @workflow.signal(name=CHILD_DONE, description="From a child that has ended, and from nobody else")
    def _signal_child_done(self, *args: Any) -> None:
        if self._run.is_begun:
            self._turn.children.hear(args)

    @workflow.signal(name=CHILD_WAITS, description="From a child that waits for people, and from nobody else")
    def _signal_child_waits(self, *args: Any) -> None:
        if self._run.is_begun:
            self._turn.children.hear_waits(args)

    async def _said(self, say: Say, message_id: str) -> None:
        """Take a message of a session in, once it is known that its author may speak."""
        if self._control.is_ending:
            raise ApplicationError(session.LEAVING, type=FailureType.TRY_AGAIN, non_retryable=True)
        if (reason := self._session.find_refusal(say)) is not None:
            _refuse(reason)
        if self._session.is_open_to(say.by):
            self._session.hear(say, message_id)
            return
        async with self._control.admitted("say", say.by):
            if (reason := self._session.find_refusal(say)) is not None:
                _refuse(reason)
            self._session.hear(say, message_id)

    @workflow.query(description="What the run does now, its last steps, usage and effects")
    def progress(self) -> Progress:
        self._require_begun()
        its = self._run.state
        return Progress(
            agent=its.agent.name,
            version=its.agent.version,
            doing=self._run.doing,
            step=its.step,
            head=its.head,
            answers=tuple(map(self._run.view_answer, its.calls, its.answers)),
            usage=its.usage,
            effects=its.effects,
            uncertain=(*its.uncertain_below, *its.uncertain),
            recent=its.recent,
            model=its.model or (its.route[0].model if its.route else next(iter(its.agent.models), "")),
            why_model=its.why_model,
            kept_in_mind=its.kept_in_mind,
            budget=self._turn.budget.use,
        )

    @workflow.query(description="All that the run is, for runs that go on from it")
    def state(self) -> RunState:
        self._require_begun()
        return self._run.state

    @workflow.query(description="What the run wants from people, and what became of it lately")
    def open_requests(self) -> OpenRequests:
        self._require_begun()
        its = self._run.state
        return OpenRequests(
            workflow_id=workflow.info().workflow_id,
            run_id=workflow.info().first_execution_run_id,
            agent=its.agent.name,
            version=its.agent.version,
            status="done" if self._is_over else self._run.status,
            requester=its.requester,
            store=its.agent.store,
            requests=tuple(approvals.view(self._run, request) for request in its.people.open),
            closed=its.people.closed[-CLOSED_SHOWN:],
            refused=its.people.refused,
            refusals=its.people.refusals,
        )

    def _require_begun(self) -> None:
        if not self._run.is_begun:
            raise ApplicationError(NOT_BEGUN, non_retryable=True)

    def _refuse_crowd(self) -> None:
        """Refuse a message that comes when the server takes few more; a stop is always taken in."""
        if self._run.is_begun and (reason := self._turn.gate.crowd) is not None:
            raise ApplicationError(reason, type=FailureType.TRY_AGAIN, non_retryable=True)

    def _steered(self, args: tuple[Any, ...]) -> Told:
        steering = _parsed(Steering, args)
        if (reason := self._control.refusal(steering)) is not None:
            _refuse(reason)
        return self._control.steer(steering)

    async def _heard(self) -> None:
        """Wait as `_begun`, for what is no decision; it counts for the server as one does."""
        await self._begun()
        if self._run.has(Change.COUNTS_MESSAGES):
            self._run.messages += 1

    async def _begun(self) -> None:
        """Wait until there is a run to talk to, which takes until its agent is pinned."""
        if not self._run.is_begun:
            await workflow.wait_condition(lambda: self._run.is_begun or self._is_over)
        if not self._run.is_begun:
            _refuse(ENDED_BEFORE)

    def _weigh(self, verb: str, args: tuple[Any, ...]) -> None:
        """Refuse a signal that cannot be read beside those that came with it; a stop is read always."""
        if not self._run.is_begun or not self._run.has(Change.WEIGHS_SIGNALS):
            return
        if workflow.now() != self._weighed_at:
            self._weighed_at, self._weighed = workflow.now(), 0
        self._weighed += validation.weight(args[0] if args else None, max(MOST_AT_ONCE - self._weighed, 0))
        if self._weighed > MOST_AT_ONCE and verb != "stop":
            _refuse("too much came to the run at once; send it again in a moment")

    @contextmanager
    def _kept(self, verb: str, args: tuple[Any, ...]) -> Iterator[None]:
        """Keep the refusal of a signal; to raise it would fail the run."""
        try:
            yield
        except ApplicationError as error:
            if self._run.is_begun:
                self._note(verb, args[0] if len(args) == 1 else None, error.message)

    def _note(self, verb: str, said: Any, reason: str) -> None:
        given = said if isinstance(said, dict) else {}
        self._turn.gate.note_refusal(
            request=_word(given.get("request")),
            choice=_word(given.get("choice")) if verb == "decide" else verb,
            by=_word(given.get("by")),
            reason=reason,
            via="signal",
        )


@contextmanager
def _already_kept() -> Iterator[None]:
    """Ignore a refusal that the gate has kept."""
    try:
        yield
    except ApplicationError as error:
        if error.type not in REFUSALS:
            raise


def _is_many(args: tuple[Any, ...]) -> bool:
    return len(args) == 1 and isinstance(args[0], dict) and "decisions" in args[0]


def _many(args: tuple[Any, ...]) -> list[Any]:
    """Return the decisions of a message that holds many, none of which is read yet."""
    given = args[0]
    if len(given) > 1:
        others = ", ".join(map(repr, sorted(_word(key) for key in given if key != "decisions")[:5]))
        _refuse(f"decisions: holds whole decisions and stands alone; there is {others} beside it")
    entries = given["decisions"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_DECISIONS:
        got = f"{len(entries)} of them" if isinstance(entries, list) else wording.shorten(repr(entries), 40)
        _refuse(f"decisions: must be a list of 1 to {MOST_DECISIONS} decisions, not {got}")
    if validation.is_vast(entries, DECISIONS_CHARACTERS):
        _refuse(f"decisions: takes at most {DECISIONS_CHARACTERS} characters in all; send fewer at once")
    return entries


def _parsed(model: type[M], args: tuple[Any, ...]) -> M:
    """Return the one argument of a message, or why it does not fit."""
    if len(args) != 1:
        _refuse(f"takes one JSON object, got {len(args)} arguments")
    if isinstance(args[0], Unreadable):
        _refuse(f"the argument is no JSON that can be read: {args[0].reason}")
    if not isinstance(args[0], dict):
        _refuse("takes one JSON object")
    most = MOST_CHARACTERS if model is Decision else MOST_CHARACTERS // 4
    if len(args[0]) > MOST_KEYS or validation.is_vast(args[0], most):
        _refuse(f"takes one JSON object of at most {MOST_KEYS} keys and {most} characters in all")
    try:
        return model.model_validate(args[0])
    except ValidationError as error:
        said = validation.sentences(error, model, unshown=("token", "value"), forms=FORMS)
    # Not from within: Temporal would send what pydantic says along as the cause.
    reason = f"{wording.shorten(said, 400)} (allowed keys: {', '.join(model.model_fields)})"
    raise ApplicationError(reason, type=FailureType.DECISION_REFUSED, non_retryable=True)


def _fits(model: type[BaseModel], given: Any) -> bool:
    try:
        model.model_validate(given)
    except ValidationError:
        return False
    return True


def _refuse(reason: str) -> NoReturn:
    raise ApplicationError(reason, type=FailureType.DECISION_REFUSED, non_retryable=True)


def _word(value: object) -> str:
    return wording.shorten(value, 60) if isinstance(value, str) else "?"
