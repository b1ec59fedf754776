"""The session of a run: messages of people, each with its answer, and the wait for the next one."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from mandate.workflows import steps
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Words
from mandate.workflows.contracts.people import normalize_name
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.contracts.session import QUEUED, QUEUED_BYTES, Reply, ReplyStatus, SaidMessage, Say, SessionKeep
from mandate.workflows.contracts.state import Answered, SessionState
from mandate.workflows.loop import observations
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import decisions, local_activities, sessions, wording

LEAVING = "the session goes on in a new part of its run; send the message again with the same id"


class Session:
    """Messages and answers of one run, if it is a session; what must not be lost is in its state."""

    def __init__(self, run: Run, control: Control) -> None:
        self._run = run
        self._control = control

    @property
    def state(self) -> SessionState | None:
        return self._run.state.session if self._run.is_begun else None

    @property
    def is_idle(self) -> bool:
        """True while it waits for a message."""
        return self.state is not None and self.state.waits_since is not None

    @property
    def has_untold(self) -> bool:
        """True if the model can be told something of this turn that it does not know."""
        return self.state is not None and bool(self.state.now)

    def find_refusal(self, say: Say) -> str | None:
        """Return why a message is not taken in, in one sentence; one that is known is."""
        state = self.state
        if state is None:
            return "this run is no session; tell it something with steer"
        if say.id is not None and sessions.is_known(state, say.id):
            return None
        if self._run.state.control.stopped is not None:
            return "the session is being stopped"
        waiting = (*state.now, *state.queue)
        if len(waiting) >= QUEUED:
            return f"{QUEUED} messages wait for the agent already; it takes no more before"
        size = len(say.text.encode())
        if sum(len(message.text.encode()) for message in waiting) + size > QUEUED_BYTES:
            return f"text: with its {size} bytes, more than {QUEUED_BYTES} would wait for the agent"
        return None

    @property
    def is_leaving(self) -> bool:
        """True if a message is for another run: the next part of this one, or the next of the session."""
        return self._control.is_ending or self._run.is_leaving

    def is_open_to(self, by: str) -> bool:
        """Return whether somebody may speak without being looked up: who asked, or anybody where anybody may ask."""
        its = self._run.state
        if its.agent.requester == "anyone":
            return True
        return its.requester is not None and normalize_name(by) == normalize_name(its.requester)

    def hear(self, say: Say, message_id: str) -> None:
        """Take a message in, unless it was before."""
        state = self.state
        assert state is not None
        if sessions.is_known(state, message_id):
            return
        message = SaidMessage(id=message_id, by=say.by, text=say.text, tainted=say.tainted)
        observations.note_message(self._run, "say")
        if say.when == "now" and not self.is_idle:
            state.now = (*state.now, message)
        else:
            state.queue = (*state.queue, message)
        self._run.record_step(f"{say.by} says: {wording.shorten(say.text, 80)}")

    async def wait_for_reply(self, message_id: str, *, until_answered: bool) -> Reply:
        """Wait for the answer to a message; or, unless `until_answered`, until the run waits for people.

        Raises:
            ApplicationError: `TryAgain`: the run continues as new before there is an answer.
        """
        await workflow.wait_condition(
            lambda: (
                self._find_reply(message_id) is not None
                or self._run.is_leaving
                or (not until_answered and self._waits_for_people)
            )
        )
        reply = self._find_reply(message_id)
        if reply is not None:
            return reply
        if self._waits_for_people and not until_answered:
            return Reply(
                id=message_id,
                status="waiting",
                step=self._run.state.step,
                reason=f"the agent waits for {', '.join(self._waiting_for)}",
                waiting_for=self._waiting_for,
            )
        raise ApplicationError(LEAVING, type=FailureType.TRY_AGAIN, non_retryable=True)

    def take_messages(self) -> tuple[SaidMessage, ...]:
        """Take out the messages that the model is to be told next."""
        state = self.state
        if state is None or not state.now:
            return ()
        state.telling, state.now = state.now, ()
        self._run.state.tainted = self._run.state.tainted or any(message.tainted for message in state.telling)
        return state.telling

    def note_told(self) -> None:
        """Note that the messages taken out are part of the conversation."""
        if self.state is not None and self.state.telling:
            self.state.told = (*self.state.told, *(message.id for message in self.state.telling))
            self.state.telling = ()

    def give_back(self) -> None:
        """Keep messages that no model could be told: they come first next time."""
        if self.state is not None and self.state.telling:
            self.state.now, self.state.telling = (*self.state.telling, *self.state.now), ()

    async def answer(self, answered: Answered, result: RunResult) -> None:
        """End a turn with its answer, which is kept in the store before anybody gets it."""
        state = self.state
        assert state is not None
        status: ReplyStatus = result.status.value
        if result.status is RunStatus.COMPLETED:
            # They came too late for this answer, and no step was left to tell them.
            state.queue, state.now = (*state.now, *state.queue), ()
        ids = (*state.told, *(message.id for message in state.now))
        state.replies = sessions.keep_replies(state.replies, ids, result, status, self._run.state.step)
        state.told, state.now = (), ()
        state.last = answered
        state.number += 1
        state.waits_since = workflow.now()
        await self._keep()

    async def _keep(self) -> None:
        info = workflow.info()
        record = sessions.write_record(self._run.state, info.run_id)
        await steps.keep_session(
            SessionKeep(workflow_id=info.workflow_id, record=record),
            locally=self._run.perform_locally(local_activities.SESSIONS),
        )

    async def close(self, status: RunStatus, result: RunResult) -> None:
        """Answer whatever waits for an answer, since the run ends, and keep what happened since the last one."""
        state = self.state
        if state is None:
            return
        is_kept = state.waits_since is not None and not (state.now or state.queue)
        ids = (*state.told, *(message.id for message in (*state.now, *state.queue)))
        state.replies = sessions.keep_replies(state.replies, ids, result, status.value, self._run.state.step)
        state.told, state.now, state.queue = (), (), ()
        if not is_kept:
            # The session waits from now on, whenever it goes on.
            state.waits_since = workflow.now()
            await self._keep()
        state.waits_since = None

    @property
    def has_messages(self) -> bool:
        """True if somebody has said something that has no answer yet."""
        state = self.state
        return state is not None and (bool(state.queue) or bool(state.now) or self._control.has_words)

    async def wait(self) -> bool:
        """Wait for the next message; return false when none came in time.

        Returns early when the run is stopped or has to continue as new.
        """
        state = self.state
        assert state is not None
        assert state.waits_since is not None
        ends_at = state.waits_since + state.idle
        if not self._is_woken and ends_at > workflow.now():
            self._run.set_doing(f"waiting for a message until {decisions.format_time(ends_at)}")
            self._run.publish_status()
            await self._wait_until(ends_at)
        if not self.has_messages and not self._is_called:
            # Whoever spoke while the time ran out is heard.
            await workflow.wait_condition(workflow.all_handlers_finished)
        return self._is_woken

    async def _wait_until(self, ends_at: datetime) -> None:
        try:
            await workflow.wait_condition(
                lambda: self._is_woken, timeout=max(ends_at - workflow.now(), timedelta(0)), timeout_summary="idle"
            )
        except TimeoutError:
            return

    def begin_turn(self) -> None:
        """Begin a turn with the next message, if there is one."""
        state = self.state
        assert state is not None
        if not self.has_messages:
            return
        state.waits_since = None
        if not state.now and state.queue:
            state.now, state.queue = state.queue[:1], state.queue[1:]
        if state.now:
            state.speaker = state.now[-1].by
        self._run.publish_status()

    @property
    def _is_called(self) -> bool:
        return self._control.is_stopping or self._run.is_leaving

    @property
    def _is_woken(self) -> bool:
        return self.has_messages or self._is_called

    def _find_reply(self, message_id: str) -> Reply | None:
        return self.state.replies.get(message_id) if self.state is not None else None

    @property
    def _waiting_for(self) -> tuple[str, ...]:
        return self._run.waits_for

    @property
    def _waits_for_people(self) -> bool:
        return bool(self._run.waits_for) and not self._run.running


def write_words(messages: tuple[SaidMessage, ...]) -> tuple[Words, ...]:
    """Return messages as the model is told them."""
    return tuple(Words(by=message.by, text=message.text) for message in messages)
