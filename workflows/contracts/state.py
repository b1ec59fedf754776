"""The state of a run: all that it carries over continue-as-new."""

from datetime import timedelta
from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.backtrack import WayBack
from mandate.workflows.contracts.base import Digest, Record, Usd, canonical_json
from mandate.workflows.contracts.budget import Budget, Ledger, Limit
from mandate.workflows.contracts.children import ChildState, OpenChild
from mandate.workflows.contracts.compensation import Compensable
from mandate.workflows.contracts.decision_lookups import KeptDecision
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.model import ModelReply, Usage, Words
from mandate.workflows.contracts.origin import Origin
from mandate.workflows.contracts.plan import PlanState
from mandate.workflows.contracts.policy import ToolTotals, Verdict
from mandate.workflows.contracts.question import OpenQuestions
from mandate.workflows.contracts.request import Closed, EditedCall, Halt, Refusal, Request
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunStatus
from mandate.workflows.contracts.session import Reply, SaidMessage
from mandate.workflows.contracts.tool import CallRequest, SignedApproval, ToolResult


class Edit(Record):
    """Other arguments for a call of the open turn, and the request under which a person gave them."""

    call: EditedCall
    request: str


class PeopleState(Record):
    """Requests of a run to people, and their decisions."""

    model_config = ConfigDict(frozen=False)

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

    model_config = ConfigDict(frozen=False)

    paused: Halt | None = None
    stopped: Halt | None = None
    words: tuple[Words, ...] = ()
    """Not told to the model yet."""
    tree_resumes: int = 0
    """Number of times that all below the run was resumed."""
    undo: Literal["begun", "ended", "kept"] | None = None
    """State of taking back what a stopped run did; `ended` by a second stop, `kept` when it was never to
    begin."""


class Resolution(Record):
    """Choice of a person on an escalation or an unknown outcome; `expired` when nobody chose."""

    choice: Literal[
        "retry", "accept", "supply", "stop", "happened", "not_happened", "raise", "answer", "go_back", "expired"
    ]
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


class Wait(Record):
    """A call that waits for its next attempt."""

    entry: EffectEntry | None
    """For a call that changes the world."""
    begun_at: AwareDatetime
    """Time of its first attempt."""
    again_at: AwareDatetime
    line: str
    """What it waits for, for people."""
    answer: ToolResult
    """Why the last attempt failed."""
    outcome: Outcome
    """Knowledge of all attempts so far."""
    attempts: int
    failed: int
    """Attempts that failed; the others were lost with their workers."""


class Trouble(Record):
    """Failures of one tool since its last success, of turns in a row, or of the final answer."""

    failures: int = 0
    lines: tuple[str, ...] = ()
    """Attempts and why they failed, the last ten."""
    index: int | None = None
    """The call of the open turn that failed last."""
    has_result: bool = False
    """One of the attempts has done what it was to do, and a check was not passed."""


class RecoveryState(Record):
    """Recent failures, as far as they decide on what comes next."""

    troubles: dict[str, Trouble] = {}
    """By tool; `*final` for the answer, `*turns` for turns in a row without a success, `*same` for calls that are made
    again and again, `*model` for models that give no answer."""
    failed: dict[str, str] = {}
    """Reasons why calls failed for good, by their digest: the same call again is not made. The last 64."""
    doubted: dict[str, str] = {}
    """Reasons why calls failed that may be gone another time, by their digest: the same call again has patience. The
    last 64."""
    spoiled: dict[str, str] = {}
    """Reasons why calls that changed the world failed a check: they are never made again as they are. The last 64."""
    refused: dict[str, str] = {}
    """What people said to calls that they rejected, by the digests of the calls: the same call again is not asked for,
    until somebody tells the run how to go on. The last 64."""
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
    limit: Limit | None = None
    """The limit that is used up, where people are asked to raise it."""


class Answered(Record):
    """End of the last turn of a session."""

    status: RunStatus
    reason: str | None = None
    answer: ModelReply | Resolution | None = None


class SessionState(Record):
    """A run that waits for another message after each answer."""

    model_config = ConfigDict(frozen=False)

    idle: timedelta
    """Time that it waits for the next message."""
    number: int = 0
    """Answers so far."""
    waits_since: AwareDatetime | None = None
    """Set while it waits for a message."""
    queue: tuple[SaidMessage, ...] = ()
    """Messages that wait until those before them are answered."""
    now: tuple[SaidMessage, ...] = ()
    """Messages of this turn that the model has not been told yet."""
    telling: tuple[SaidMessage, ...] = ()
    """Messages that are told with the model call under way: they are in the conversation once that is answered."""
    told: tuple[str, ...] = ()
    """Ids of the messages of this turn that the model was told."""
    speaker: str | None = None
    """The author of the newest message that the model was told."""
    replies: dict[str, Reply] = {}
    """By the ids of messages, the last `IDS_KEPT`, the oldest first."""
    last: Answered | None = None


class RunState(Record):
    """All that a run carries over continue-as-new; bounded whatever the length of the run."""

    model_config = ConfigDict(frozen=False)

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
    asked: dict[int, OpenQuestions] = {}
    """Questions of tools' servers, by position in `calls`."""
    signed: dict[int, SignedApproval] = {}
    """Of calls that people had to sign for, by position in `calls`."""
    totals: dict[str, ToolTotals] = {}
    """By tool; calls that were refused or failed are left out."""
    tainted: bool = False
    """Content of an untrusted tool has entered the conversation."""
    unclear: dict[int, Unclear] = {}
    """By position in `calls`."""
    waits: dict[int, Wait] = {}
    """By position in `calls`."""
    resolutions: dict[str, Resolution] = {}
    """By request, until what waits for it has taken it."""
    recovery: RecoveryState = RecoveryState()
    turn_counted: bool = False
    """True if the open turn is counted among those that failed or not."""
    rescue: Rescue | None = None
    goal: str = ""
    """The run's task, its beginning."""
    people: PeopleState = Field(default_factory=PeopleState)
    control: ControlState = Field(default_factory=ControlState)
    note: str | None = None
    misfits: int = 0
    """Final answers in a row that could not be taken."""
    untaken: tuple[str, ...] = ()
    """Fault of the last of them."""
    usage: Usage = Usage()
    budget: Budget | None = None
    """Limits of this run: the agent's, lowered by the start request, raised by people; `None` in older runs."""
    ledger: Ledger = Field(default_factory=Ledger)
    route: tuple[RoutePin, ...] = ()
    """In place of the agent's, where the start request names a model."""
    is_counted: bool = False
    """It counts in budgets beyond one run."""
    period_cost_usd: Usd = Decimal(0)
    """Spent in the current period of the budget beyond the run that has the least left, as last known."""
    why_model: str = ""
    """Why the run asks the model that it asks, in one sentence."""
    told_model: str | None = None
    """Model of the last request, for which `why_model` was told."""
    silent_models: tuple[str, ...] = ()
    """Equal models of the run's place in the route that gave no answer."""
    latencies: dict[str, float] = {}
    """Seconds that answers take, by model: a moving average, where the agent prefers by it."""
    unevaluable: tuple[str, ...] = ()
    """Models whose conditions could not be evaluated, as the run's steps have told."""
    failures: int = 0
    """Calls that failed, checks that were not passed and answers that could not be taken, so far."""
    context_tokens: int = 0
    """Of the conversation at `head`, as the last answer reported them."""
    estimate: int = 0
    """Tokens of the same, as they were estimated."""
    kept_in_mind: tuple[str, ...] = ()
    """What the model wants to have in every request, the last 20."""
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
    session: SessionState | None = None
    back: WayBack | None = None
    """Set while a model is to be asked from an earlier step on."""
    ways_back: int = 0
    """Number of times that the model went back."""
    left_behind: tuple[tuple[int, int], ...] = ()
    """First and last steps of branches that the run went back from, the last 50."""
    plan: PlanState | None = None
    """Set in a plan."""
    child: ChildState | None = None
    """Set in a child."""
    children: dict[int, OpenChild] = {}
    """Children that have not reported, by position of their call in `calls`."""
    children_made: int = 0
    """Children so far; the next one is `c{children_made + 1}`."""
    child_ids: dict[int, str] = {}
    """Workflow ids of children that have not the usual one, by their numbers."""
    child_ids_lost: bool = False
    """A reset has made the run forget children, which are looked for before it starts another."""
    child_ids_taken: bool = False
    """Another run of this workflow id has had children of the usual names."""
    uncertain_below: tuple[EffectEntry, ...] = ()
    """Calls of children whose outcome is unknown, the last 50."""
    origin: Origin | None = None
    """The run whose conversation this one goes on with."""
    quick: dict[str, bool] = {}
    """Whether the last time was quick, by names that `rules.local_activities` gives."""
