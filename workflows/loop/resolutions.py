"""Closed requests, and the resolutions of those that are about the run as a whole."""

from dataclasses import dataclass
from typing import Literal

from mandate.workflows.contracts.request import Decision, Request
from mandate.workflows.contracts.state import Resolution
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.loop.run import Run


@dataclass(frozen=True, slots=True)
class ClosedRequest:
    """A request that is not open any more, and its outcome."""

    request: Request
    outcome: Literal["approved", "rejected", "answered", "settled", "expired", "withdrawn"]
    reason: str
    decision: Decision | None = None
    by: str = ""
    answer: ToolResult | None = None

    @property
    def comment(self) -> str:
        return self.decision.comment if self.decision is not None else ""


def keep(run: Run, closed: ClosedRequest) -> None:
    """Keep the outcome of an escalation, or of a question about an unknown outcome, for what waits for it."""
    if closed.outcome != "withdrawn":
        decision = closed.decision
        resolution = Resolution.model_validate(
            {
                "choice": decision.choice if decision is not None else "expired",
                "by": closed.by,
                "comment": closed.comment,
                "reason": f"{closed.reason}{f' ({closed.comment})' if closed.comment else ''}",
                "value": decision.value if decision is not None else None,
                "answer": closed.answer,
            }
        )
        run.state.resolutions = {**run.state.resolutions, closed.request.id: resolution}
    run.record_step(f"{closed.request.id}: {closed.reason}")
    run.publish_status()


def take(run: Run, request: str) -> Resolution | None:
    """Return the resolution of a request once, or `None` while there is none."""
    resolution = run.state.resolutions.get(request)
    if resolution is not None:
        run.state.resolutions = {other: one for other, one in run.state.resolutions.items() if other != request}
    return resolution
