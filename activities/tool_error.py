"""An attempt of a tool that did not return a result."""

from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.rules.plain_text import shorten


class ToolError(Exception):
    """One attempt of a tool that did not return a result; raised by the toolbox, one table a source of tools."""

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        *,
        retry_after: float | None = None,
        is_of_key: bool = True,
        lasting: bool = False,
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.whole = reason
        """The reason before it is cut: what must not be told is struck out of it first."""
        self.reason = shorten(reason)
        self.retry_after = retry_after
        """Seconds that the other side asked for; makes a definite `not done` worth another attempt."""
        self.lasting = lasting
        """Waiting does not mend it; another worker may."""
        self.is_of_key = is_of_key and retry_after is None
        """Whether a definite `not done` is the answer to the key, and so one for earlier attempts too."""
