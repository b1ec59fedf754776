"""A run from outside: how it is started, what it returns, and what survives of it."""

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.base import Digest, JsonObject, Name, Record, Spec, canonical_json, check_storable
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.compensation import Compensable
from mandate.workflows.contracts.decision_lookups import KeptDecision
from mandate.workflows.contracts.model import ModelReply, Usage, Words
from mandate.workflows.contracts.policy import ToolTotals, Verdict
from mandate.workflows.contracts.request import By, Closed, EditedCall, Halt, Refusal, Request
from mandate.workflows.contracts.tool import CallRequest, SignedApproval, ToolResult
from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, field_validator

Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]

TASK_TIMEOUT = timedelta(seconds=10)
"""Time that a worker may take for one workflow task of a run, a replay of its history included.

What was handed to a worker as it died is handed out again after this. A task that takes longer is begun anew, with the
same replay; from the fourth time on the server gives it five seconds more, then ten, twenty and so on, so that a worker
that has too little of a processor gets through in the end.
"""

ATTRIBUTE_BYTES = 1900
"""Temporal takes at most 2 KiB of ASCII JSON for one search attribute, and ends a run that sets more."""


class RunRequest(Spec):
    """The one argument of `AgentWorkflow`."""

    agent: Name = Field(description="Name of an agent file of the workers.")
    input: str | JsonObject = Field(description="What the agent is asked: a text, or an object that it reads as JSON.")
    requester: str | None = Field(default=None, min_length=1, max_length=200, description="Who asks.")
    labels: dict[Label, Label] = Field(default={}, max_length=20, description="For finding the run again.")
    budget: BudgetRequest | None = Field(default=None, description="Lower limits than the agent file's.")
    token: str | None = Field(
        default=None,
        max_length=8192,
        repr=False,
        description="Signed token of the requester, where decisions on the agent's runs are signed.",
    )

    @field_validator("input")
    @classmethod
    def _says_something(cls, value: str | JsonObject) -> str | JsonObject:
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError("must not be empty")
        check_storable(value)
        return value

    @field_validator("requester")
    @classmethod
    def _is_a_search_attribute(cls, value: str | None) -> str | None:
        if value is not None and len(json.dumps(value)) > ATTRIBUTE_BYTES:
            raise ValueError(f"is longer than a search attribute takes, {ATTRIBUTE_BYTES} bytes of JSON")
        return value

    @field_validator("labels")
    @classmethod
    def _fits_a_search_attribute(cls, value: dict[str, str]) -> dict[str, str]:
        size = len(json.dumps([f"{name}={text}" for name, text in value.items()]))
        if size > ATTRIBUTE_BYTES:
            raise ValueError(f"are {size} bytes of JSON together; at most {ATTRIBUTE_BYTES} are allowed")
        return value


class StartRequest(RunRequest):
    """A `RunRequest` as clients make it: who asks is named as whoever decides is.

    Runs read `RunRequest`, since those that began with other names go on; `pin_agent` refuses such names.
    """

    requester: By | None = Field(default=None, description="Who asks.")


class RunStatus(StrEnum):
    COMPLETED = "completed"
    STOPPED = "stopped"
    """By a person."""
    EXHAUSTED = "exhausted"
    """A limit was reached."""
    DECLINED = "declined"
    """It could not go on and nobody helped in time."""


class EffectEntry(Record):
    """One call that was sent out to change the world."""

    step: int
    tool: str
    call: str
    """Name and arguments in one line of up to 100 characters, sensitive ones hidden."""
    key: str
    """Idempotency key."""
    reason: str | None = None
    """The reason why its outcome is unknown, or how it became known after it was."""
    attempts: int = 1
    """Number of attempts it is known to have had; at least, where only the other side counts them."""
    undoes: str | None = None
    """Idempotency key of the call that this one took back."""


class EffectLog(Record):
    """The calls that changed the world: how many, the last 50, and the digest of them all."""

    count: int = 0
    digest: Digest | None = None
    """Of the previous digest and the newest entry, so that it covers the whole list."""
    last: tuple[EffectEntry, ...] = ()


class RunResult(Record):
    """Result of a run: under 32 KiB, readable without Mandate; every key is always there."""

    status: RunStatus
    output: JsonValue
    """The final answer: a text, or an object when the agent has an `output_schema`; `None` when there is none."""
    output_digest: Digest | None
    """Address of an answer over 16 KiB; `output` is then its beginning."""
    reason: str | None
    """The reason why it did not complete, in one sentence."""
    usage: Usage
    head: Digest | None
    audit_head: Digest | None
    effects: EffectLog
    uncertain: tuple[EffectEntry, ...]
    """Calls whose outcome is unknown: they may have happened."""


class Edit(Record):
    """Other arguments for a call of the open turn, and the request under which a person gave them."""

    call: EditedCall
    request: str


class PeopleState(Record):
    """Requests of a run to people, and their decisions."""

    made: int = 0
    """Requests so far; the next one is `r{made + 1}`."""
    open: tuple[Request, ...] = ()
    closed: tuple[Closed, ...] = ()
    """The last 256."""
    refused: tuple[Refusal, ...] = ()
    """The last 20."""
    refusals: int = 0
    kept: tuple[KeptDecision, ...] = ()
    """Came by signal in a crowd, and are taken in once the run has continued as new."""


class ControlState(Record):
    """Commands of people on the run as a whole."""

    paused: Halt | None = None
    stopped: Halt | None = None
    words: tuple[Words, ...] = ()
    """Not told to the model yet."""
    undo: Literal["begun", "ended", "kept"] | None = None
    """State of taking back what a stopped run did; `ended` by a second stop, `kept` when it was never to
    begin."""


class Resolution(Record):
    """Choice of a person on an escalation or an unknown outcome; `expired` when nobody chose."""

    choice: Literal["retry", "accept", "supply", "stop", "happened", "not_happened", "expired"]
    by: str = ""
    comment: str = ""
    reason: str
    """One sentence."""
    value: JsonValue = None
    """Guidance, a result or an answer in the person's words."""
    answer: ToolResult | None = None
    """`value` as a call's result."""

    @property
    def guidance(self) -> str:
        """All that the person says to the model."""
        value = self.value if isinstance(self.value, str | None) else canonical_json(self.value).decode()
        return " ".join(text for text in (value, self.comment) if text)


class Unclear(Record):
    """A call whose outcome is unknown, while that is being found out."""

    entry: EffectEntry
    request: str | None = None
    """Of kind `outcome`; `None` before people are asked."""
    reruns: int = 0
    """Number of times it was found not to have happened, and made again."""
    begun_at: AwareDatetime | None = None
    """Time when its key was first sent."""
    is_not_done: bool = False
    """It is known that it has not happened, and is to be made again."""


class Trouble(Record):
    """Failures of one tool since its last success, of turns in a row, or of the final answer."""

    failures: int = 0
    lines: tuple[str, ...] = ()
    """Attempts and why they failed, the last ten."""
    index: int | None = None
    """The call of the open turn that failed last."""


class RecoveryState(Record):
    """Recent failures, as far as they decide on what comes next."""

    troubles: dict[str, Trouble] = {}
    """By tool; `*final` for the answer, `*turns` for turns in a row without a success, `*same` for calls that are made
    again and again, `*model` for models that give no answer."""
    failed: dict[str, str] = {}
    """Reasons why calls failed for good, by their digest: the same call again is not made. The last 64."""
    spoiled: dict[str, str] = {}
    """Reasons why calls that changed the world failed a check: they are never made again as they are. The last 64."""
    same: dict[str, int] = {}
    """Number of times that a call came with the same result, by the digest of both. The last 64."""


class Rescue(Record):
    """A run that waits for a person to say how it goes on."""

    request: str
    about: str
    """A tool, or one of the other names in `RecoveryState.troubles`."""
    reason: str
    reply: ModelReply | None = None
    """The answer that could not be taken."""


class RunState(Record):
    """All that a run carries over continue-as-new; bounded whatever the length of the run."""

    agent: AgentPin
    head: Digest
    requester: str | None = None
    labels: dict[str, str] = {}
    step: int = 0
    """Model calls made and answered."""
    step_limit: int
    model: str | None = None
    """Set once the run has left the first model of the route."""
    calls: tuple[CallRequest, ...] = ()
    """Calls of the turn at `head`."""
    answers: tuple[ToolResult | None, ...] = ()
    """One for each of `calls`; `None` while it is open."""
    verdicts: tuple[Verdict | None, ...] = ()
    """One for each of `calls` once the turn is judged; `ask` while people have not decided."""
    edits: dict[int, Edit] = {}
    """By position in `calls`."""
    notes: dict[int, str] = {}
    """Notes of people who approved, by position in `calls`; told with the result."""
    signed: dict[int, SignedApproval] = {}
    """Of calls that people had to sign for, by position in `calls`."""
    totals: dict[str, ToolTotals] = {}
    """By tool; calls that were refused or failed are left out."""
    tainted: bool = False
    """Content of an untrusted tool has entered the conversation."""
    unclear: dict[int, Unclear] = {}
    """By position in `calls`."""
    resolutions: dict[str, Resolution] = {}
    """By request, until what waits for it has taken it."""
    recovery: RecoveryState = RecoveryState()
    turn_counted: bool = False
    """True if the open turn is counted among those that failed or not."""
    rescue: Rescue | None = None
    goal: str = ""
    """The run's task, its beginning."""
    people: PeopleState = PeopleState()
    control: ControlState = ControlState()
    note: str | None = None
    misfits: int = 0
    """Final answers in a row that could not be taken."""
    untaken: tuple[str, ...] = ()
    """Fault of the last of them."""
    usage: Usage = Usage()
    effects: EffectLog = EffectLog()
    uncertain: tuple[EffectEntry, ...] = ()
    compensable: tuple[Compensable, ...] = ()
    """The last 50 calls that can be taken back, the oldest first."""
    compensable_count: int = 0
    """Number of them in all."""
    last_answer: ModelReply | None = None
    """That of a run which was stopped as it came."""
    recent: tuple[str, ...] = ()
    """The last few steps in words, for the current details."""


class Progress(Record):
    """Answer of the query `progress`."""

    agent: Name
    version: str
    doing: str
    """Current work, in words."""
    step: int
    head: Digest
    answers: tuple[ToolResult | None, ...]
    """Results of the turn at `head` so far; `None` for a call that is still open."""
    usage: Usage
    effects: EffectLog
    uncertain: tuple[EffectEntry, ...]
    recent: tuple[str, ...]
