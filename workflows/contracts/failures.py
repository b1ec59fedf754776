"""Failures of activities and messages, in words that the workflow can decide on."""

from enum import StrEnum

from mandate.workflows.contracts.base import Record

NOT_BEGUN = "the run has not begun its work yet"
"""Answer to a query to a run whose agent is not pinned yet."""

ENDED_BEFORE = "the run ended before it began its work"
"""Refusal of a message that came while the agent was being pinned."""

AHEAD = "the run is ahead of its history on this worker; ask again"
"""Answer to a query of a worker whose run has seen events that no workflow task has taken in yet. It answers in a
moment; after three seconds where the run was closed meanwhile."""


class FailureType(StrEnum):
    """The `type` of every ApplicationError that Mandate raises."""

    BAD_INPUT = "BadInput"
    """A start request or message that does not fit; the message names the field."""
    UNKNOWN_AGENT = "UnknownAgent"
    NOT_ASKED = "NotAsked"
    """The task lacks the mark of a run of this installation, or the answer that of its workers."""
    DECISION_REFUSED = "DecisionRefused"
    """A person's decision or message that does not count; the message says why."""
    TRY_AGAIN = "TryAgain"
    """A message that a run cannot take in just now; sent again in a moment, it may count."""
    CHECK_UNAVAILABLE = "CheckUnavailable"
    """A decision could not be checked; it used nothing up."""
    CHECK_UNABLE = "CheckUnable"
    """A check of a result could not be made this time; after its last attempt it is a finding and no failure."""
    MODEL_REJECTED = "ModelRejected"
    """The provider refused the request: the same request will be refused again."""
    MODEL_UNAVAILABLE = "ModelUnavailable"
    """Outage, rate limit, time-out or a cut connection: the same request may succeed later."""
    CONTEXT_TOO_LONG = "ContextTooLong"
    NEEDS_MORE = "NeedsMore"
    """The request is larger than what it was granted; nothing was sent. Its details are one `NotSent`."""
    NEEDS_STATE = "NeedsState"
    """The conversation is to be cut, for which the run must say how it stands; nothing was sent. Details as above."""
    BUDGET_USED_UP = "BudgetUsedUp"
    """A budget beyond this run has nothing left; nothing was sent. The message says which and until when."""
    TOOL_FAILED = "ToolFailed"
    """One attempt of a tool; its details are one `ToolFailure`."""
    NOT_QUICK = "NotQuick"
    """A local activity that took too long; what it should do is done as an ordinary activity."""
    STORE_MISMATCH = "StoreMismatch"
    """The run was started on another blob store than this worker's."""
    BLOB_MISSING = "BlobMissing"
    BLOB_CORRUPTED = "BlobCorrupted"
    STORE_UNAVAILABLE = "StoreUnavailable"
    CHANNEL_BROKEN = "ChannelBroken"
    """A fault of ours in telling people; the other channels were told."""


REFUSALS = (FailureType.DECISION_REFUSED, FailureType.TRY_AGAIN)
"""Types of errors that say why a message does not count."""


class Outcome(StrEnum):
    """Knowledge of an attempt to act on the world."""

    NOT_SENT = "not_sent"
    """It never left us: nothing can have happened."""
    NOT_DONE = "not_done"
    """A definite answer that it was not done."""
    DONE = "done"
    UNKNOWN = "unknown"
    """It may have happened."""


class Unreadable(Record):
    """Stand-in for an argument that could not be decoded."""

    reason: str


class ToolFailure(Record):
    """Details of a `ToolFailed` error."""

    outcome: Outcome
    reason: str
    """One short sentence for the model; never holds a secret."""
    attempts: int = 1
    """Number of the attempt that says so."""
    passing: bool = False
    """It may be gone another time: the other side asked to come again later, or was not there."""
    failed: int = 1
    """Attempts that failed, lost ones not counted: those of the activities before this one included."""
    again_in: float | None = None
    """Seconds after which the run may make another attempt; `None` where there is to be none."""
