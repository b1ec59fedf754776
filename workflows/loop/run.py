"""The state of a run, and what people see of it while it changes."""

import asyncio
from typing import Any, Literal

from mandate.workflows.contracts.policy import RunFacts
from mandate.workflows.contracts.run import RunState
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.loop import visibility
from mandate.workflows.loop.open_requests import Board
from mandate.workflows.rules import wording
from temporalio import workflow

RECENT = 8
"""Steps that the current details show."""

RUNNING = visibility.Standing("running", ())

Status = Literal["running", "waiting", "paused", "done"]


class Run:
    """All that a run must not lose is in `now`; whatever changes it goes through here."""

    def __init__(self, state: RunState | None = None) -> None:
        self.doing = "starting"
        self._state = state
        self._shown = RUNNING
        self._is_stale = False
        self._rendered = visibility.Rendered()
        self.board = Board()
        """What is known of `now.people.open`."""

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

    def update(self, **changes: Any) -> None:
        self._state = self.state.model_copy(update=changes)

    @property
    def is_current_loop(self) -> bool:
        """True if the run began on the order of commands of `LOOP` 1; older ones keep theirs."""
        return self.has_loop(1)

    def has_loop(self, loop: int) -> bool:
        """Return whether the run began on the order of commands of this `LOOP` or of a later one."""
        return self.state.agent.loop >= loop

    @property
    def status(self) -> Status:
        if self.state.control.paused is not None:
            return "paused"
        return "waiting" if self.state.people.open else "running"

    @property
    def facts(self) -> RunFacts:
        """Facts of the run for conditions."""
        return RunFacts(
            id=workflow.info().first_execution_run_id,
            agent=self.state.agent.name,
            version=self.state.agent.version,
            requester=self.state.requester,
            labels=self.state.labels,
            step=self.state.step,
            cost_usd=self.state.usage.cost_usd,
            now=workflow.now(),
            tainted=self.state.tainted,
            totals=self.state.totals,
        )

    def taint(self, tool: Tool) -> None:
        """Note that what `tool` returned enters the conversation."""
        if self.is_current_loop and tool.untrusted and not self.state.tainted:
            self.update(tainted=True)

    def record_step(self, line: str) -> None:
        """Keep `line` among the last few steps and show them."""
        shown = f"step {self.state.step}: {wording.shorten(line, 300)}"
        self.update(recent=(*self.state.recent, shown)[-RECENT:])
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

    def publish_status(self) -> None:
        """Let lists of runs know whether it waits, and for whom; an upsert only when that has changed."""
        standing = visibility.Standing(self.status, self.board.waits_for(self.state.people.open))
        if standing != self._shown:
            self._shown = standing
            visibility.stand(self.state, standing)

    def clear_status(self) -> None:
        """Clear the status before it continues as new: the closed part of a run waits for nobody."""
        visibility.note_cost(self.state)
        if self._shown != RUNNING:
            visibility.stand(self.state, RUNNING)
