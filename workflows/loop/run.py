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


class Current:
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
        """Whether there is a state yet: not before the agent is pinned."""
        return self._state is not None

    @property
    def now(self) -> RunState:
        assert self._state is not None
        return self._state

    def begin(self, state: RunState) -> None:
        self._state = state
        visibility.announce(state)

    def update(self, **changes: Any) -> None:
        self._state = self.now.model_copy(update=changes)

    @property
    def is_current_loop(self) -> bool:
        """Tell whether the run began on the order of commands of `LOOP` 1; older ones keep theirs."""
        return self.has_loop(1)

    def has_loop(self, loop: int) -> bool:
        """Tell whether the run began on the order of commands of this `LOOP` or of a later one."""
        return self.now.agent.loop >= loop

    @property
    def status(self) -> Status:
        if self.now.control.paused is not None:
            return "paused"
        return "waiting" if self.now.people.open else "running"

    @property
    def facts(self) -> RunFacts:
        """What conditions see of the run."""
        return RunFacts(
            id=workflow.info().first_execution_run_id,
            agent=self.now.agent.name,
            version=self.now.agent.version,
            requester=self.now.requester,
            labels=self.now.labels,
            step=self.now.step,
            cost_usd=self.now.usage.cost_usd,
            now=workflow.now(),
            tainted=self.now.tainted,
            totals=self.now.totals,
        )

    def taint(self, tool: Tool) -> None:
        """What `tool` returned enters the conversation."""
        if self.is_current_loop and tool.untrusted and not self.now.tainted:
            self.update(tainted=True)

    def recall(self, line: str) -> None:
        """Keep `line` among the last few steps and show them."""
        shown = f"step {self.now.step}: {wording.shorten(line, 300)}"
        self.update(recent=(*self.now.recent, shown)[-RECENT:])
        self.refresh()

    def show(self, doing: str) -> None:
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
        visibility.details(self.now, self.doing, self._rendered)

    def stand(self) -> None:
        """Let lists of runs know whether it waits, and for whom; an upsert only when that has changed."""
        standing = visibility.Standing(self.status, self.board.waits_for(self.now.people.open))
        if standing != self._shown:
            self._shown = standing
            visibility.stand(self.now, standing)

    def leave(self) -> None:
        """Before it continues as new: the closed part of a run waits for nobody."""
        visibility.note_cost(self.now)
        if self._shown != RUNNING:
            visibility.stand(self.now, RUNNING)
