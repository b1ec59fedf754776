"""Sources of tools: each makes one call and says what became of it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from mandate.activities.failures import ToolError
from mandate.activities.toolbox.raised_errors import describe_error
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import ToolDefinition


@dataclass(frozen=True, slots=True)
class ToolText:
    """Answer of a tool, as text for the model; structured values are JSON."""

    text: str
    error: bool = False
    """A definite answer that the call failed and changed nothing, in the tool's own words."""
    is_of_key: bool = True
    """True if an `error` is the answer to the key: then it also says that earlier attempts changed nothing."""
    is_lost: bool = False
    """The call was done, and this says only that what it returned did not arrive."""
    is_missing: bool = False
    """True if an `error` says that what was asked for does not exist."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Facts that a tool may know of its call."""

    workflow_id: str
    run_id: str
    step: int
    idempotency_key: str
    """Names one intended action: equal in every attempt of it, different for two intended identical calls."""
    attempt: int
    timeout: timedelta
    requester: str | None = None
    """Who asked for the run; known for HTTP tools only."""


class Toolbox(Protocol):
    """One source of tools."""

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        """Make one attempt.

        Raises:
            ToolError: what is known of the attempt, by the table of this source.
        """
        ...

    async def close(self) -> None: ...


async def make_attempt(
    toolbox: Toolbox, definition: ToolDefinition, arguments: JsonObject, context: CallContext
) -> ToolText:
    """Make one attempt as `Toolbox.call` does; an error that its toolbox knows nothing of leaves the outcome open."""
    try:
        return await toolbox.call(definition, arguments, context)
    except (ToolError, TimeoutError):
        raise
    except Exception as error:  # noqa: BLE001 - it may be of any library; as a `ToolError` it is struck and told
        raise ToolError(Outcome.UNKNOWN, describe_error(error)) from None


class ResolveSecrets(Protocol):
    """Function that fills each `${secret:NAME}` in `text`; it raises `LookupError` with the name of a missing one."""

    def __call__(self, text: str) -> str: ...
