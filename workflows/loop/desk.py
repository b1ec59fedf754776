"""Contract between the gate of people and the run behind it, about requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import Decision, EditedCall, Need, Request
from mandate.workflows.contracts.tool import Tool, ToolResult


class Desk(Protocol):
    """Services that a gate needs of its run."""

    def tool_of(self, request: Request) -> Tool | None:
        """Return the tool that an approval is about."""
        ...

    def judged(self, request: Request, edited: EditedCall) -> tuple[Verdict, Sequence[Need]]:
        """Return what the policy says of other arguments, and what it then needs."""
        ...

    def digest_of(self, request: Request, edited: EditedCall) -> Digest:
        """Return the digest of `request` about these other arguments."""
        ...

    def title_of(self, request: Request, edited: EditedCall) -> str:
        """Return the title of `request` about these other arguments."""
        ...

    def view(self, request: Request) -> Request:
        """Return `request` with its arguments as people may see them, which the state does not hold a second time."""
        ...

    def settle(self, settled: "Settled") -> None:
        """Settle a request that is not open any more."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """Outcome of a request."""

    request: Request
    outcome: Literal["approved", "rejected", "answered", "settled", "expired", "withdrawn"]
    reason: str
    decision: Decision | None = None
    by: str = ""
    answer: ToolResult | None = None

    @property
    def comment(self) -> str:
        return self.decision.comment if self.decision is not None else ""
