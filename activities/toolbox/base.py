"""Sources of tools: each makes one call and says what became of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, Self

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.raised_errors import describe_error
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import Dialogue
from mandate.workflows.contracts.tool import Effect, Tool, ToolDefinition

MAX_BYTES = 5 * 1024 * 1024
"""Most that is read of a result that comes over HTTP, unpacked, or from an MCP server."""


SOURCES = ("python", "mcp", "http")
"""Sources of the tools of checks and probes: those that this process calls itself."""


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
    tainted: bool = False
    """It holds what a run wrote that had read content of an untrusted tool."""


class OfferedTools(tuple[ToolDefinition, ...]):  # noqa: SLOT001 - a tuple has no room for slots
    """Tools of a server, with a sentence for each that it offers and that cannot be used."""

    left_out: tuple[str, ...]

    def __new__(cls, tools: Iterable[ToolDefinition], left_out: Iterable[str] = ()) -> Self:
        made = super().__new__(cls, tools)
        made.left_out = tuple(left_out)
        return made


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """One question for people."""

    key: str
    text: str
    form: JsonObject | None
    """JSON Schema of the answer; `None` for a page to visit."""


class AsksPeople(ToolError):
    """A call that its server goes on with when people have answered; where nobody is asked, it has failed."""

    def __init__(self, outcome: Outcome, server: str, questions: tuple[AskedQuestion, ...], dialogue: Dialogue) -> None:
        super().__init__(outcome, f"MCP server {server!r} asks, and nobody is asked here: {questions[0].text}")
        self.server = server
        self.questions = questions
        self.dialogue = dialogue


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
    dialogue: Dialogue | None = None
    """Set for a call that goes on after its server has asked people."""
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


def is_read(tool: Tool) -> bool:
    """Return whether checks and probes may call the tool."""
    return tool.effect is Effect.READ and tool.source in SOURCES
