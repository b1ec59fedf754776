"""The state of a run, and what people see of it while it changes."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from temporalio import workflow

from mandate.workflows import steps
from mandate.workflows.contracts.backtrack import WayBack
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.board import BoardPlace
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.model import Payer
from mandate.workflows.contracts.policy import Rule, RunFacts, Verdict
from mandate.workflows.contracts.request import Need
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import CallRequest, Tool, ToolResult
from mandate.workflows.loop import visibility
from mandate.workflows.loop.open_requests import RequestFacts
from mandate.workflows.loop.telemetry import Telemetry
from mandate.workflows.rules import (
    backtrack,
    budget,
    local_activities,
    needs,
    origins,
    policy,
    recovery,
    redaction,
    state_text,
    totals,
    wording,
)

RECENT = 8
"""Steps that the current details show."""

EVENTS = 1500
"""Events after which a run continues as new, so that another worker replays it within a second or two."""

MESSAGES = 1000
"""Accepted messages after which a parked run continues as new: the server takes 2,000 updates of one run."""

RUNNING = visibility.Standing("running", ())

Status = Literal["running", "waiting", "idle", "paused", "done"]


class TaskTime:
    """Time that a workflow task has been kept open by local activities."""

    def __init__(self) -> None:
        self._task = 0
        self._began: datetime | None = None

    @property
    def left(self) -> timedelta:
        """The rest of `TASK_LIMIT`: the clock of a workflow task goes on when a local activity ends, and then only."""
        task = workflow.info().get_current_history_length()
        if self._began is None or task != self._task:
            self._task, self._began = task, workflow.now()
        return local_activities.TASK_LIMIT - (workflow.now() - self._began)


class Run:
    """Holder of a run's state: all that the run must not lose is in `state`."""

    def __init__(self, state: RunState | None = None) -> None:
        self.doing = "starting"
        self._state = state
        self._shown = RUNNING
        self._is_stale = False
        self._rendered = visibility.Rendered()
        self.request_facts = RequestFacts()
        """Facts about `state.people.open`."""
        self.messages = 0
        """Messages of people since the run last continued as new."""
        self._task_time = TaskTime()
        self.running = 0
        """Activities in flight."""
        self.telemetry = Telemetry()

    @property
    def is_begun(self) -> bool:
        """True once there is a state: not before the agent is pinned."""
        return self._state is not None

    @property
    def state(self) -> RunState:
        assert self._state is not None
        return self._state

    def begin(self, state: RunState) -> None:
        self._state = state
        visibility.announce(state)

    def has(self, change: Change) -> bool:
        """Tell whether the run began after `change`; older ones keep to what they began with."""
        return change.is_in(self.state.agent)

    @property
    def is_leaving(self) -> bool:
        """Tell whether the run continues as new as soon as nothing is in flight."""
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or info.get_current_history_length() >= EVENTS
            or self.messages >= MESSAGES
        )

    @property
    def status(self) -> Status:
        if self.state.control.paused is not None:
            return "paused"
        if self.state.session is not None and self.state.session.waits_since is not None:
            return "idle"
        return "waiting" if self.state.people.open else "running"

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The groups and users that the run waits for, and the runs below it, as far as these tell."""
        below = (name for child in self.state.children.values() for name in child.waits_for)
        return tuple(dict.fromkeys((*self.request_facts.waits_for(self.state.people.open), *below)))

    @property
    def board_place(self) -> BoardPlace:
        """The run that holds the board of the tree."""
        info, its = workflow.info(), self.state.child
        if its is not None and its.board is not None:
            return its.board
        if its is None or info.root is None:
            return BoardPlace(workflow_id=info.workflow_id, run_id=info.first_execution_run_id)
        return BoardPlace(workflow_id=info.root.workflow_id, run_id=info.root.run_id)

    @property
    def speaker(self) -> str | None:
        """The author of the newest message of its session, or of the session at the root of its tree."""
        if self.state.session is not None:
            return self.state.session.speaker
        return self.state.child.speaker if self.state.child is not None else None

    @property
    def facts(self) -> RunFacts:
        """Facts of the run for conditions."""
        return RunFacts(
            id=workflow.info().first_execution_run_id,
            agent=self.state.agent.name,
            version=self.state.agent.version,
            requester=self.state.requester,
            speaker=self.speaker,
            labels=self.state.labels,
            depth=self.state.child.depth if self.state.child is not None else 0,
            step=self.state.step,
            cost_usd=self.state.usage.cost_usd,
            budget_left_usd=self._find_money_left(),
            tokens=self.state.usage.input_tokens + self.state.usage.output_tokens,
            period_cost_usd=self.state.period_cost_usd,
            now=workflow.now(),
            tainted=self.state.tainted,
            totals=self.state.totals,
        )

    def _find_money_left(self) -> Decimal | None:
        left = budget.find_left(self.state.ledger, self.state.budget or self.state.agent.budget).cost_usd
        return policy.UNLIMITED if left is None and not self.has(Change.KNOWS_NO_LIMIT) else left

    @property
    def payer(self) -> Payer | None:
        """The run, as budgets beyond it tell runs apart; `None` where it counts in none."""
        if not self.state.is_counted:
            return None
        return Payer(requester=self.state.requester, labels=self.state.labels)

    def perform_locally(self, name: str | None) -> steps.Locally | None:
        """Permit what has this name among `local_activities` to run within the workflow task, if it is quick."""
        if name is None or not self.has(Change.ACTS_LOCALLY):
            return None
        if not local_activities.is_quick(self.state.quick, name):
            return None
        left = self._task_time.left
        if left < local_activities.SHORTEST:
            return None
        return steps.Locally(left, lambda: self.keep_speed(name, was_quick=False))

    def keep_speed(self, name: str | None, *, was_quick: bool) -> None:
        """Keep whether something was quick the last time; `name` as for `perform_locally`."""
        if name is not None and self.has(Change.ACTS_LOCALLY):
            self.state.quick = local_activities.keep_speed(self.state.quick, name, was_quick=was_quick)

    def requester_for(self, tool: Tool | None) -> str | None:
        """Return who asked for the run, for a tool whose requests may name it."""
        return self.state.requester if tool is not None and tool.source == "http" else None

    def taint(self, tool: Tool) -> None:
        """Note that what `tool` returned enters the conversation."""
        if self.has(Change.TAINTS_LOOKUPS) and tool.untrusted and not self.state.tainted:
            self.state.tainted = True

    def record_step(self, line: str) -> None:
        """Keep `line` among the last few steps and show them."""
        shown = f"step {self.state.step}: {wording.shorten(line, 300)}"
        self.state.recent = (*self.state.recent, shown)[-RECENT:]
        self.refresh()

    def set_doing(self, doing: str) -> None:
        self.doing = doing
        self.refresh()

    def refresh(self) -> None:
        """Bring the current details up to date once all that is ready has happened: rendering costs most of a signal.

        A thousand refused decisions that come together would otherwise take longer than a workflow task may.
        """
        if not self._is_stale:
            self._is_stale = True
            asyncio.get_running_loop().call_soon(self._render)

    def _render(self) -> None:
        self._is_stale = False
        visibility.details(self.state, self.doing, self._rendered)

    def note_time(self) -> None:
        """Keep since when the run is paused, or only waits for people, where the time that it works is limited."""
        if self._state is None or (self._state.budget or self._state.agent.budget).work_time is None:
            return
        ledger, now = self._state.ledger, workflow.now()
        waits = bool(self._state.people.open) or self.status == "idle" or bool(self._state.children)
        is_waiting = self._state.control.paused is not None or (waits and not self.running)
        if is_waiting and ledger.waits_since is None:
            self._state.ledger = ledger.model_copy(update={"waits_since": now})
        elif not is_waiting and ledger.waits_since is not None:
            waited = ledger.waited + (now - ledger.waits_since)
            self._state.ledger = ledger.model_copy(update={"waited": waited, "waits_since": None})

    def publish_status(self) -> None:
        """Let lists of runs know whether it waits, and for whom; an upsert only when that has changed."""
        self.note_time()
        standing = visibility.Standing(self.status, self.request_facts.waits_for(self.state.people.open))
        if standing != self._shown:
            self._shown = standing
            visibility.stand(self.state, standing)

    def clear_status(self) -> None:
        """Clear the status before it continues as new: the closed part of a run waits for nobody."""
        visibility.note_cost(self.state)
        if self._shown != RUNNING:
            visibility.stand(self.state, RUNNING)

    @property
    def rules(self) -> Sequence[Rule]:
        return self.state.agent.policy

    def list_needs(self, verdict: Verdict) -> tuple[Need, ...]:
        """Return whom a verdict asks from now on."""
        its = self.state.agent
        return needs.list_needs(verdict, its.policy, its.people, workflow.now(), handed_down=its.handed_down)

    def tool(self, name: str) -> Tool:
        tool = self.state.agent.tool(name)
        assert tool is not None, name
        return tool

    def answer(self, index: int, answer: ToolResult) -> None:
        """Keep the answer to a call, beside what people said of it."""
        note = self.state.notes.get(index)
        told = answer if note is None else answer.model_copy(update={"note": wording.join_notes(note, answer.note)})
        answers = list(self.state.answers)
        answers[index] = told
        self.state.answers = tuple(answers)

    def keep_in_mind(self, index: int, arguments: JsonObject) -> None:
        """Answer a call of `keep_in_mind`: the fact is part of the state, which no cut leaves out."""
        text = arguments.get("text")
        if not isinstance(text, str):
            self.answer(index, ToolResult(text="not kept: it is too long; say it in fewer words", error=True))
            return
        self.state.kept_in_mind = state_text.keep_fact(self.state.kept_in_mind, text)
        self.answer(index, ToolResult(text="kept"))
        self.record_step(f"keeps in mind: {wording.shorten(text, 80)}")

    def view_answer(self, call: CallRequest, answer: ToolResult | None) -> ToolResult | None:
        """Return an answer as people may see it: what a tool returns may repeat what it was given."""
        tool = self.state.agent.tool(call.tool)
        if answer is None or answer.text is None or call.misfit or tool is None or not tool.sensitive:
            return answer
        return answer.model_copy(update={"text": redaction.HIDDEN})

    def deny(self, index: int, reason: str) -> None:
        call = self.state.calls[index]
        line = wording.describe_call(call.tool, call.arguments, self.tool(call.tool).sensitive)
        self.answer(index, ToolResult(text=f"refused: {reason}", error=True))
        self.record_step(f"refused: {line} ({reason})")

    def go_back(self, to: int, because: str) -> None:
        """Begin the next request at an earlier step; all that was done stays part of the state."""
        branches = (*self.state.left_behind, (to + 1, self.state.step))
        self.state.left_behind = branches[-backtrack.BRANCHES_KEPT :]
        self.state.back = WayBack(to=to, because=because)
        self.record_step(f"goes back to step {to}: {wording.shorten(because, 120)}")

    def take_earlier(self, call: CallRequest) -> ToolResult | None:
        """Return the answer to a call that the run's origin has made already; each of them answers one call."""
        origin = self.state.origin
        if origin is None or call.undoes is not None:
            return None
        digest = call.digest
        if digest is None and self.tool(call.tool).child is not None:
            digest = recovery.digest_call(call.tool, call.arguments)
        place = next((place for place, known in enumerate(origin.calls) if known.digest == digest), None)
        if place is None:
            return None
        earlier = origin.calls[place]
        left = (*origin.calls[:place], *origin.calls[place + 1 :])
        self.state.origin = origin.model_copy(update={"calls": left})
        answer = origins.answer_earlier(origin, earlier)
        self.record_step(f"{earlier.line}: {wording.shorten(answer.text or '', 120)}")
        return answer

    def digest_call(self, call: CallRequest) -> Digest:
        """Return a digest that is equal for two equal calls, also where they are steps of a plan with other limits."""
        tool = self.state.agent.tool(call.tool)
        return recovery.digest_call(call.tool if tool is None else tool.known_as, call.arguments)

    def set_verdict(self, index: int, verdict: Verdict) -> None:
        verdicts = list(self.state.verdicts)
        verdicts[index] = verdict
        self.state.verdicts = tuple(verdicts)

    def reserve(self, tool: Tool, arguments: JsonObject) -> None:
        self.state.totals = totals.reserve(self.state.totals, tool, arguments)

    def release(self, tool: Tool, arguments: JsonObject) -> None:
        """Take out of the totals what `reserve` put in for this call."""
        self.state.totals = totals.give_back(self.state.totals, tool, arguments)

    def release_open_calls(self) -> None:
        """Give back the shares of calls that have no answer yet, which are not made."""
        its = self.state
        for index, call in enumerate(its.calls):
            verdict = its.verdicts[index]
            if its.answers[index] is None and verdict is not None and verdict.kind != "deny":
                edit = its.edits.get(index)
                self.release(self.tool(call.tool), call.arguments if edit is None else edit.call.arguments)

    def facts_before(self, index: int) -> RunFacts:
        """Return the facts that rules saw of the run: without this call, and without later ones not made yet."""
        its = self.state
        before = its.totals
        for other in range(index, len(its.calls)):
            verdict, answer = its.verdicts[other], its.answers[other]
            if answer is None and verdict is not None and verdict.kind != "deny":
                edit = its.edits.get(other)
                arguments = its.calls[other].arguments if edit is None else edit.call.arguments
                before = totals.give_back(before, self.tool(its.calls[other].tool), arguments)
        return self.facts.model_copy(update={"totals": before})
