"""One model call: what the workflow asks for and what it gets back."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from mandate.workflows.contracts.base import Digest, Record
from mandate.workflows.contracts.tool import CallRequest, ToolResult

PROVIDERS = ("openai", "anthropic", "vllm", "scripted")

ModelName = Annotated[str, StringConstraints(pattern=r"^(?:openai|anthropic|vllm|scripted):\S+$")]
"""`provider:model`, for example `openai:gpt-6-sol`; `scripted:` is followed by the path of a script."""


class Usage(Record):
    """Tokens and money of one model call or of many."""

    model_calls: int = 0
    input_tokens: int = 0
    """All input, the cached part included."""
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    """All output, reasoning included."""
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    """Sum over the calls with a known price."""
    unpriced_calls: int = 0
    """Calls whose price is unknown: their cost is in no sum."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class Finish(StrEnum):
    """End of an answer."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    """Cut at the output limit: its last call may be incomplete, so none of them runs."""
    REFUSED = "refused"
    EMPTY = "empty"
    MISFIT = "misfit"
    """A final answer that does not fit the agent's `output_schema`."""
    PAUSED = "paused"
    """The provider wants the same conversation again to go on."""


class Words(Record):
    """Message of a person to a running agent."""

    by: str
    text: str


class ModelRequest(Record):
    """Input of `call_model`: go on from `head` with the answers to its calls."""

    agent: Digest
    head: Digest
    model: ModelName | None = None
    """`None` means the first of the agent's route."""
    results: tuple[ToolResult, ...] = ()
    """One for each call of the turn at `head`, in its order."""
    note: str | None = None
    """Message of the runtime to the model, after the results."""
    words: tuple[Words, ...] = ()
    """Messages of people to the model, last."""
    step: int


class ModelReply(Record):
    """Output of `call_model`."""

    head: Digest
    text: str = ""
    """A final answer up to 16 KiB; its beginning when it is longer or when there are calls."""
    output_digest: Digest | None = None
    """Address of a final answer over 16 KiB."""
    calls: tuple[CallRequest, ...] = ()
    usage: Usage = Usage()
    finish: Finish = Finish.COMPLETE
    problem: str | None = None
    """The reason why the answer cannot be taken, for model and people; `None` if `finish` is `complete` or `paused`."""


OUTPUT_INLINE_BYTES = 16 * 1024
"""A final answer up to this size is in the result; a longer one is in the store."""
