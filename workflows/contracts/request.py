"""Requests: all that a run wants from people; and decisions: all that people say to it."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from mandate.workflows.contracts.base import Digest, JsonObject, Record, Spec, check_storable
from mandate.workflows.contracts.policy import Person, RequesterIs
from mandate.workflows.contracts.tool import Tool, ToolResult

RequestKind = Literal["approval", "question", "escalation", "outcome", "budget"]
"""May this exact call run? | The agent or a tool's MCP server asks. | Attempts are used up. | Did this effect happen? |
Raise the limit?
"""

REJECT = "reject"
"""The safe choice of requests that have it; the only one that may be made for all requests of a run at once."""

EVERY = "*"
"""Names all open requests of a run."""

CHOICES: dict[RequestKind, tuple[str, ...]] = {
    "approval": ("approve", REJECT),
    "question": ("answer", REJECT),
    "escalation": ("retry", "accept", "supply", "stop"),
    "outcome": ("happened", "not_happened", "stop"),
    "budget": ("raise", "answer", "stop"),
}
"""Choices that a request offers, the safe choice last."""

GO_BACK = "go_back"
"""Choice of an escalation where the agent may go back: it goes on from the step that the value names."""

CANCEL = "cancel"
"""Leaves a server's question without an answer: neither yes nor no."""

SERVER_CHOICES = ("answer", CANCEL, REJECT)
"""Choices of a question that an MCP server asks: it is told `accept`, `cancel` or `decline`."""

VALUE_BYTES = 64 * 1024
"""Most that the value of one decision takes as JSON."""

RequestId = Annotated[str, StringConstraints(pattern=r"^r[1-9][0-9]{0,8}$")]
"""`r1`, `r2`, ... in the order in which a run asked."""


def _check_printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("holds characters that cannot be seen")
    return name


By = Annotated[Person, AfterValidator(_check_printable)]
"""Author of a statement; where names are shown, this one looks like no other and moves nothing."""


class Message(Spec):
    """Something that a person says to a run; whatever is taken in must fit into its history and state."""

    @field_validator("*")
    @classmethod
    def _is_storable(cls, value: JsonValue) -> JsonValue:
        check_storable(value)
        return value


class Decision(Message):
    """Decision of a person on one request: the argument of `decide`, as update and as signal."""

    request: Literal["*"] | RequestId = Field(description="Id of the request; `*` for all, with `reject` only.")
    digest: Digest | None = Field(default=None, description="The request's digest; left out for `*` only.")
    choice: str = Field(min_length=1, max_length=40, description="One of the request's choices.")
    by: By | None = Field(default=None, description="Who decides; may be left out for `*` only.")
    comment: str = Field(default="", max_length=2000, description="Why, for the record and for the model.")
    value: JsonValue = Field(
        default=None,
        description="With `approve`: the arguments to run with instead. With `answer`: the answer. With `raise`: the "
        "new limits.",
    )
    token: str | None = Field(
        default=None, max_length=8192, repr=False, description="Signed token, where the request wants a signature."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.request == EVERY:
            if self.choice != REJECT:
                raise ValueError(f"'request: *' goes with 'choice: {REJECT}' only, not {self.choice!r}")
            if self.value is not None or self.digest is not None:
                raise ValueError("'request: *' goes without 'digest' and 'value'")
            return self
        for key in ("digest", "by"):
            if getattr(self, key) is None:
                raise ValueError(f"{key!r} is missing; only 'request: *' goes without it")
        return self


MOST_DECISIONS = 50
"""Most decisions of one message. A server takes ten updates of one run at a time, whoever sends them."""

DECISIONS_CHARACTERS = 512 * 1024
"""Most characters of one message with many, keys and containers counted: fifty with a token and a comment each fit."""


class Decisions(Spec):
    """Many decisions in one message: the other form of the argument of `decide`."""

    decisions: tuple[JsonValue, ...] = Field(
        min_length=1,
        max_length=MOST_DECISIONS,
        description="Decisions of one run, each as it would be sent by itself; `*` is sent by itself only.",
    )
    """Read one by one: what is wrong with one keeps the others from nothing."""


class Need(Record):
    """One condition of a request: so many of these people must approve. All needs of a request must be met."""

    rule: str | None
    """The rule that asks; `None` for calls that no rule matched, and for questions."""
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """With neither users nor groups: everybody in the file of people."""
    quorum: int = 1
    rejections: int = 1
    signature: bool = False
    expires_at: AwareDatetime
    then: "Then | None" = None
    """People to ask at `expires_at`; `None` denies."""
    remind: timedelta | None = None
    remind_at: AwareDatetime | None = None
    approved_by: tuple[str, ...] = ()
    rejected_by: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        return len(self.approved_by) >= self.quorum


class Then(Record):
    """Need that takes the place of one that expires."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    expires: timedelta


class Recorded(Record):
    """A decision that counts."""

    by: str
    choice: str
    comment: str = ""
    at: AwareDatetime
    signed: bool = False
    evidence: Digest | None = None
    """Address of the `SignedDecision`, where it was signed."""
    edited: bool = False
    """It came with other arguments, which need the approval of all from then on."""
    key: Digest
    """Of what the person said, so that the same decision twice is recorded once."""


class Refusal(Record):
    """A decision that does not count, and why."""

    request: str
    by: str
    choice: str
    reason: str
    at: AwareDatetime
    via: Literal["update", "signal"]


class EditedCall(Record):
    """The arguments that a person put in place of the model's."""

    by: str
    arguments: JsonObject
    """As the workflow sees them; a remote activity's are whole."""
    digest: Digest
    """Of the tool's name and the canonical whole arguments."""
    blob: Digest
    """Address of the whole arguments as JSON, from which `run_tool` reads them; sensitive ones are references there."""


class Request(Record):
    """One thing that a run wants from people."""

    id: RequestId
    kind: RequestKind
    digest: Digest
    """Over run chain, id, kind, tool, canonical arguments and agent: what a decision must name."""
    title: str
    """The matter in one line of up to 160 characters, without sensitive values."""
    tool: str | None = None
    arguments: JsonObject = {}
    """As people may see them: sensitive values are `***`, long texts `{"digest", "size", "preview"}`."""
    question: str | None = None
    """The text of a question, up to 4,000 characters."""
    options: tuple[str, ...] = ()
    """Answers to choose from; any answer is taken where there are none."""
    server: str | None = None
    """The MCP server that asks the question; `None` for the agent itself."""
    form: Digest | None = None
    """Address of the JSON Schema that the answer to a server's question must fit; `None` for a page to visit."""
    goal: str | None = None
    """The run's task, its beginning; of escalations and outcomes."""
    evidence: tuple[str, ...] = ()
    """Attempts and what became of them, one line each, the oldest first."""
    reason: str
    """The reason why people are asked, in one sentence."""
    plan_step: str | None = None
    """Id of the step of a plan that has failed, of which it is asked."""
    effect: str | None = None
    risk: float = 0.0
    tainted: bool = False
    """Content of an untrusted tool had been read when it was asked."""
    step: int
    head: Digest
    index: int
    """Index of the call in the turn at `head` that it is about."""
    choices: tuple[str, ...]
    needs: tuple[Need, ...]
    requested_at: AwareDatetime
    decisions: tuple[Recorded, ...] = ()
    edited: EditedCall | None = None
    """The call that runs if it is approved as it is."""

    @property
    def expires_at(self) -> AwareDatetime:
        """Time when the first of its needs that are not met expires."""
        unmet = [need.expires_at for need in self.needs if not need.is_met]
        return min(unmet or [need.expires_at for need in self.needs])

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Groups and users of needs that are not met; `anyone` for a need that names nobody."""
        names: dict[str, None] = {}
        for need in self.needs:
            if not need.is_met:
                names.update(dict.fromkeys((*need.groups, *need.users) or (ANYONE,)))
        return tuple(names)


ANYONE = "anyone"


class Closed(Record):
    """Outcome of a request that is not open any more."""

    id: RequestId
    kind: RequestKind
    digest: Digest
    outcome: Literal["approved", "rejected", "answered", "settled", "expired", "withdrawn"]
    reason: str
    """One sentence: who decided and why."""
    by: tuple[str, ...] = ()
    decided: tuple[Digest, ...] = ()
    """Digests of the decisions that counted, so that one that comes again is known."""


class OpenRequests(Record):
    """Answer of the query `open_requests`."""

    workflow_id: str
    run_id: str
    """The first of the chain: decisions go to the workflow id."""
    agent: str
    version: str
    status: Literal["running", "waiting", "idle", "paused", "done"]
    requester: str | None = None
    store: str | None = None
    """Id of the blob store that holds whole arguments."""
    requests: tuple[Request, ...]
    closed: tuple[Closed, ...] = ()
    """The last few that were decided or expired."""
    refused: tuple[Refusal, ...] = ()
    """The last few decisions that did not count."""
    refusals: int = 0
    """Number of decisions that did not count in all."""


class Receipt(Record):
    """Answer of the update `decide`."""

    request: str
    status: Literal["recorded", "approved", "rejected", "answered", "settled"]
    """`recorded`: it counts, and more people must decide."""
    message: str
    """One sentence for the person."""


class Answer(Record):
    """Answer to one decision of many: it has a receipt, or does not count."""

    receipt: Receipt | None = None
    refusal: str | None = None
    """One sentence."""
    again: bool = False
    """It does not count yet: sent again in a moment, it may."""


class Receipts(Record):
    """Answer of the update `decide` to many decisions: one for each, in their order."""

    receipts: tuple[Answer, ...]


class DecisionCheck(Record):
    """Input of `check_decision`."""

    decision: Decision
    request: Request
    tool: Tool | None
    """Set for approvals."""
    agent: Digest
    requester: str | None
    requester_is: RequesterIs = "anyone"
    speaker: str | None = None
    """The author of the newest message of a session, who decides on nothing either."""
    workflow_id: str
    at: AwareDatetime
    """Time when the decision came: a token must be valid then."""


class SignedDecision(Record):
    """A decision that had to be signed, as it is kept in the store with its token."""

    decision: Decision
    at: AwareDatetime
    """Time of arrival."""
    edited_before: Digest | None = None
    """Address of the arguments that the call had then; `None` for the model's own."""


class Checked(Record):
    """Output of `check_decision`: what a decision counts for, or why it does not."""

    refusal: str | None = None
    """One sentence; the decision counts for nothing then."""
    needs: tuple[int, ...] = ()
    """Positions of the request's needs for which the person may decide."""
    person: str | None = None
    """The person's name in the file of people, however they spelt it; `None` when there is no file."""
    signed: bool = False
    evidence: Digest | None = None
    """Address of the `SignedDecision`, where a signature was wanted."""
    edited: EditedCall | None = None
    answer: ToolResult | None = None
    """Result of a question's tool call."""
    decision: Decision | None = None
    """The decision, without its token, where the check was a local activity, whose input is in no history."""
    at: AwareDatetime | None = None
    """Time when it came, with `decision`."""


class Notice(Record):
    """One request as people are notified of it."""

    request: Request
    occasion: Literal["asked", "reminder", "escalated"]
    number: int = 0
    """Counts reminders and escalations, so that each notice has its own idempotency key."""


class NotifyRequest(Record):
    """Input of `notify_people`."""

    workflow_id: str
    run_id: str
    agent: str
    requester: str | None
    labels: dict[str, str] = {}
    notices: tuple[Notice, ...]


class Notified(Record):
    """Output of `notify_people`."""

    failures: tuple[str, ...] = ()
    """One sentence a channel that could not be reached; never holds a secret."""
    notices: tuple[Notice, ...] = ()
    """Those of its input, where it was a local activity, whose input is in no history."""


WORDS_CHARACTERS = 8000


class Steering(Message):
    """Message of a person to the agent: the argument of `steer`."""

    text: str = Field(min_length=1, description="The words, which the model is told as this person's.")
    by: By = Field(description="Who says it.")

    @field_validator("text")
    @classmethod
    def _is_short(cls, value: str) -> str:
        if len(value) > WORDS_CHARACTERS:
            raise ValueError(
                f"has {len(value):,} characters; at most {WORDS_CHARACTERS:,} are told at once; put more into a file "
                "that a tool of the agent reads, and name that file"
            )
        return value


class Halt(Message):
    """The argument of `pause` and `resume`."""

    by: By = Field(description="Who wants it.")
    reason: str = Field(default="", max_length=1000, description="Why.")
    tree: bool = Field(default=False, strict=True, description="Whether the children of the run do so too.")


class Stop(Halt):
    """The argument of `stop`."""

    keep: bool = Field(default=False, strict=True, description="Whether what was done is left as it is.")


class Told(Record):
    """Answer of the updates `steer`, `pause`, `resume` and `stop`."""

    status: str
    message: str
