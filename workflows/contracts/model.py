"""One model call: what the workflow asks for and what it gets back."""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from mandate.workflows.contracts.backtrack import WayBack
from mandate.workflows.contracts.base import Digest, Record, Usd
from mandate.workflows.contracts.budget import Amount, Grant
from mandate.workflows.contracts.route import ModelName
from mandate.workflows.contracts.tool import CallRequest, ToolResult


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
    cost_usd: Usd = Decimal(0)
    """Sum over the calls with a known price."""
    unpriced_calls: int = 0
    """Calls whose price is unknown: their cost is in no sum."""
    assumed_calls: int = 0
    """Calls whose answers were lost: they may have been billed, and count as they were reserved."""
    cached_results: int = 0
    """Calls of tools that were answered with a kept result; counted when the model is told them."""
    tool_calls: int = 0
    """Calls of tools that were made; told in results."""

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


class Payer(Record):
    """Run, as budgets beyond one run tell runs apart."""

    requester: str | None = None
    labels: dict[str, str] = {}


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
    why: str = ""
    """Why this model is asked, where another one or none was asked before it."""
    has_others: bool = False
    """The route has another model, which is asked if this one gives no answer."""
    is_last: bool = False
    """The model is to give its last answer: no tools are offered."""
    used_up: str = ""
    """Why it is the last one, for whoever reads the history."""
    grant: Grant | None = None
    """Where tokens or money are limited."""
    payer: Payer | None = None
    """Where the run counts in budgets beyond it."""
    back: WayBack | None = None
    """The conversation goes on from an earlier step."""
    state: str | None = None
    """What is true of the run by now, in words, for the place of what a cut leaves out; see `NeedsState`."""
    cuts: bool = False
    """The run answers `NeedsState`; else its conversation is never cut."""
    is_child: bool = False
    """The run is a child, whose answers travel to its parent: longer ones by reference."""
    too_long: int = 0
    """Estimate of the request that the model refused as too long, for which the cut is made."""


class ModelReply(Record):
    """Output of `call_model`."""

    head: Digest
    text: str = ""
    """A final answer up to 16 KiB; its beginning when it is longer or when there are calls."""
    output_digest: Digest | None = None
    """Address of a final answer over 16 KiB; of a child's, of more than 128 bytes."""
    output_size: int | None = None
    """UTF-8 bytes of what is under `output_digest`."""
    calls: tuple[CallRequest, ...] = ()
    usage: Usage = Usage()
    beside: Usage | None = None
    """The part of `usage` that calls for summaries took."""
    finish: Finish = Finish.COMPLETE
    problem: str | None = None
    """The reason why the answer cannot be taken, for model and people; `None` if `finish` is `complete` or `paused`."""
    lost: int = 0
    """Attempts before the one that answered whose answers were lost: they may have been billed."""
    estimate: int = 0
    """Tokens of the request as they were estimated, to be compared with those that were billed."""
    period_cost_usd: Usd | None = None
    """Spent and held of the budget beyond the run that is used up most."""
    cut: bool = False
    """The conversation was cut for this request."""
    context_tokens: int = 0
    """Of the conversation at `head`, where `usage` has other calls in it, of a summary."""
    latency: float = 0.0
    """Seconds from sending to the whole answer."""


class NotSent(Record):
    """Details of a `NeedsMore` or `NeedsState` error of `call_model`: nothing was sent."""

    input_tokens: int
    """Estimate of what the request has."""
    lost: int = 0
    too_long: int = 0
    """The same, where the model refused the request as too long."""
    spent: Amount = Amount()
    """As of `ModelFailure`."""


class ModelFailure(Record):
    """Details of every other error of `call_model`."""

    fault: str = ""
    status: int | None = None
    may_be_billed: bool = False
    """The request was sent, and it is not known that it was refused."""
    lost: int = 0
    """Attempts that were sent, and may have been billed without an answer."""
    spent: Amount = Amount()
    """What other calls took that were made for this one, for example of a summary."""


ANSWER_SPARE = timedelta(seconds=10)
"""Rest of the activity's time after the longest model call, to store the answer."""

OUTPUT_INLINE_BYTES = 16 * 1024
"""A final answer up to this size is in the result; a longer one is in the store."""

CHILD_OUTPUT_BYTES = 128
"""The same of a child, whose result is in its parent's history."""
