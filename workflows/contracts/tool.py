"""Tools: what the loop decides with, what the model is told, and where a call goes."""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import Field

from mandate.workflows.contracts.base import Digest, JsonObject, Name, Record
from mandate.workflows.contracts.board import BoardPlace
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.question import AnsweredQuestions, ServerQuestions


class Effect(StrEnum):
    """Effect of a call on the world, hence when an attempt may be repeated."""

    READ = "read"
    """Changes nothing: retried freely."""
    IDEMPOTENT = "idempotent"
    """Twice is the same as once: retried freely."""
    KEYED = "keyed"
    """The other side knows the idempotency key: retried with the same key."""
    ONCE = "once"
    """Never repeated on a guess."""

    @property
    def changes_world(self) -> bool:
        return self is not Effect.READ


ErrorMeaning = Literal["not_done", "unknown"]
"""Knowledge of a call whose tool says that it failed, and may have acted before it did."""

ToolSource = Literal["python", "mcp", "http", "activity", "agent", "builtin"]


class RemoteActivity(Record):
    """A Temporal activity of somebody else's worker."""

    name: str
    task_queue: str
    arguments: tuple[str, ...] | None = None
    """Names of the arguments in positional order; `None` sends one JSON object."""
    failed_types: tuple[str, ...] = ()
    """Types of application errors that mean: not done."""


class ChildAgent(Record):
    """An agent that a call starts as a child."""

    agent: Name
    is_plan: bool = False
    """It is a plan."""
    digest: Digest
    """Of its `PinnedAgent` as a child: with the rules of those above it, and what the entry of the tool says."""
    share: BudgetRequest = BudgetRequest()
    """Limits of one child, as the entry and the child's own file have them together."""


class Tool(Record):
    """Tool as the workflow knows it: enough to decide, no schema and no description."""

    name: Name
    source: ToolSource
    effect: Effect = Effect.ONCE
    timeout: timedelta = timedelta(seconds=60)
    """Of one attempt."""
    retries: int | None = None
    """Attempts after the first at most; `None` for as many as patience has room for. `once` tools have none."""
    patience: timedelta | None = None
    """Time for which a call that may be repeated is; `None` for what `rules.patience` has for its effect."""
    key_valid: timedelta | None = None
    """For `keyed`: how long the other side knows the idempotency key; `None` for ever. No attempt begins later."""
    tags: tuple[str, ...] = ()
    risk: float = 0.0
    """Harm that a call can do, on a scale of the agent's author; rules and people see it."""
    untrusted: bool = False
    """Its results come from outside and may try to instruct the model."""
    numeric: tuple[str, ...] = ()
    """Arguments that are numbers by its schema, of which the run keeps sums."""
    sensitive: tuple[str, ...] = ()
    """Arguments that are shown nowhere but to the tool and the model, at every depth and in every spelling."""
    remote: RemoteActivity | None = None
    """Set for source `activity`, which the workflow calls itself."""
    child: ChildAgent | None = None
    """Set for source `agent`, which the workflow starts itself."""
    variant_of: Name | None = None
    """Set for a tool that a step of a plan calls with limits or checks of its own: its name elsewhere."""

    @property
    def known_as(self) -> str:
        """The name by which rules, totals and checks know it."""
        return self.variant_of or self.name


class McpServer(Record):
    """Address of an MCP server; values may hold `${secret:NAME}`, resolved by the worker only."""

    name: Name
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = None
    headers: dict[str, str] = {}
    start: timedelta | None = None
    """Longest time until it has listed its tools; `None` for the worker's own."""

    def without_start(self) -> Self:
        """Return which server it is: runs that were pinned before `start` was changed have the same."""
        return self.model_copy(update={"start": None})


class PythonBinding(Record):
    kind: Literal["python"]
    function: str
    """`module:name`."""


class McpBinding(Record):
    kind: Literal["mcp"]
    server: McpServer
    tool: str
    """The server's own name for it."""
    claims: tuple[str, ...] = ()
    """The server's words on the tool's effect; shown to people and never trusted."""
    error: ErrorMeaning | None = None
    """Meaning of a failure that the tool reports; `None` for unknown if it is `once`, else not done."""
    asks_before_acting: bool = False
    """The server asks what it must know before it changes anything."""


class HttpBinding(Record):
    """A request template; `${secret:NAME}` in header values is resolved by the worker only.

    Address, headers and body may name values of the run (`templates.RUN_VALUES`).
    """

    kind: Literal["http"]
    method: str
    url: str
    """`{name}` is replaced by the percent-encoded argument."""
    headers: dict[str, str] = {}
    query: tuple[str, ...] = ()
    """Arguments that go into the query; what is in neither path nor query is the JSON body."""
    body: JsonObject = {}
    """Fields of the JSON body that no argument can change."""


class ActivityBinding(Record):
    kind: Literal["activity"]
    activity: RemoteActivity


class PlanTarget(Record):
    """An agent or a tool that steps of a plan may name, as far as calls of it can be checked."""

    input_schema: JsonObject | None = None
    """JSON Schema of what it is asked; `None` for anything."""
    output_schema: JsonObject | None = None
    """JSON Schema of its output; `None` where nothing says."""
    share: BudgetRequest = BudgetRequest()
    """Limits of one run of it."""


class PlanTerms(Record):
    """Terms of a plan that a model writes."""

    agents: dict[Name, PlanTarget] = {}
    tools: dict[Name, PlanTarget] = {}
    steps: int
    """Steps at most."""


class AgentBinding(Record):
    """Another agent or a plan, started as a child of the run."""

    kind: Literal["agent"]
    agent: Name
    task: str | None = None
    """The argument whose text the child is asked; `None` where it is asked all of them as JSON."""
    plans: PlanTerms | None = None
    """Set where the arguments are a plan, which the child carries out."""


class BuiltinBinding(Record):
    kind: Literal["builtin"]


Binding = Annotated[
    PythonBinding | McpBinding | HttpBinding | ActivityBinding | AgentBinding | BuiltinBinding,
    Field(discriminator="kind"),
]


class ToolDefinition(Record):
    """A tool in full, as pinned with a run."""

    tool: Tool
    description: str = ""
    input_schema: JsonObject
    """JSON Schema of an object; no reference leaves it."""
    binding: Binding
    result_limit_bytes: int = 32 * 1024
    """UTF-8 bytes of a result that the model is shown; the rest is read with `read_result`."""
    cache: timedelta | None = None
    """For `read`: how long a result answers equal calls; `None` for never."""


class CallRequest(Record):
    """A call that the model asked for, as the workflow sees it."""

    tool: str
    arguments: JsonObject = {}
    """Text leaves over 1 KiB are `{"digest", "size", "preview"}`, and sensitive arguments are, with nothing but a keyed
    digest; `run_tool` reads the whole call from the chain."""
    misfit: str | None = None
    """The reason why this call reaches neither rule nor tool: unknown tool, invalid JSON, arguments that do not fit."""
    digest: Digest | None = None
    """Of the tool's name and canonical arguments, keyed if some are sensitive; set for calls that change the world."""
    repeat: int = 0
    """Number of calls with this digest before it in the run."""
    undoes: str | None = None
    """Idempotency key of the call that this one takes back."""


class SignedApproval(Record):
    """Signatures that a call needs: whoever makes it checks them again."""

    run: str
    """First run id of the chain, which the request's digest holds."""
    request: str
    rules: tuple[str | None, ...]
    """Rules that asked for signatures; `None` for what the agent asks where no rule says it."""
    evidence: tuple[Digest, ...]
    """Addresses of the `SignedDecision` of each person."""


class ToolRequest(Record):
    """Input of `run_tool`: call number `index` of the turn at `head`."""

    agent: Digest
    head: Digest
    index: int = 0
    key: str | None = None
    """Idempotency key; set for calls that change the world."""
    instead_of: str | None = None
    """Key of the attempt in whose place this one is made: it must not act any more, however late it comes."""
    edited: Digest | None = None
    """Address of the arguments that a person put in place of the model's."""
    signed: SignedApproval | None = None
    """Set where people had to sign."""
    answers: AnsweredQuestions | None = None
    """What people answered to the tool's server, for a call that goes on."""
    requester: str | None = None
    """Who asked for the run; set for HTTP tools, whose requests may name it."""
    step: int
    patience: timedelta | None = None
    """Rest of the call's patience; `None` for `once`, and in runs that began when attempts were counted only."""
    failed: int = 0
    """Attempts that failed in activities before this one."""
    reached: bool = False
    """One of these may have reached the other side."""
    board: BoardPlace | None = None
    """Set for the tools of the board."""
    tainted: bool = False
    """As of the run, for these tools."""


class CacheHit(Record):
    """The call whose kept result is the answer to another one."""

    run: str
    """Workflow id."""
    run_id: str
    step: int
    seconds: int
    """Age of the result when it was the answer."""


class ToolResult(Record):
    """Answer to one call: inline up to 128 bytes, else by reference."""

    text: str | None = None
    digest: Digest | None = None
    size: int | None = None
    """UTF-8 bytes of the text under `digest`; what follows them there only keeps the address from telling of it."""
    preview: str = ""
    """Its beginning, for people; left out when the result travels on."""
    error: bool = False
    note: str | None = None
    """Note for the model before the text: that a person changed the call, or what they said of it."""
    stands_in: bool = False
    """The call was done, and this is not what its tool returned, which is lost."""
    unfit: bool = False
    """It did not pass a check."""
    rejected: "ToolResult | None" = None
    """The result that did not pass a check, of a call of a plan: a person may accept it as it is."""
    asking: ServerQuestions | None = None
    """Set where the tool's server asks people before it goes on: the call has no result yet."""
    cause: Literal["people", "other_side", "budget"] | None = None
    """Whose doing an error is, if not the agent's: people refused the call, the other side was down, or a limit is
    used up."""
    cached: CacheHit | None = None
    """Set where the tool was not called: another call's result is the answer."""
    attempts: int = 1
    """Number of attempts the call is known to have had; at least, where only the other side counts them."""
    tainted: bool = False
    """It holds content of an untrusted tool that another run had read; left out when the result travels on."""
    quick: bool = False
    """It was made and stored within `QUICK_SECONDS`; left out when the result travels on."""


LOCAL_ID = re.compile(r"\d+(?::(?P<index>\d*)(?::(?P<subject>.*))?)?")
"""Ids of activities. A local one's tells what else no history would: the position of the call, the name of a check."""

QUICK_SECONDS = 0.1
"""A read or a check that took no longer is a local activity the next time."""

READ_RESULT = "read_result"
"""Name of the built-in tool that reads on in a long result."""
KEEP_IN_MIND = "keep_in_mind"
GO_BACK = "go_back"
RUN_PLAN = "run_plan"
READ_BOARD = "read_board"
WRITE_BOARD = "write_board"

INLINE_BYTES = 128
"""Results up to this size travel through Temporal; longer ones stay in the store."""

REMOTE_LIMIT_BYTES = 256 * 1024
"""Most that Temporal carries to or from a remote activity."""

CALLS_PER_TURN = 256
"""Calls of one answer beyond this many are not made."""

TURN_LIMIT_BYTES = 1024 * 1024
"""Most that the arguments, and the results that have no blob, of one turn take in Temporal together."""

ARGUMENT_LEAF_BYTES = 1024
"""Text arguments over this size reach the workflow as a reference."""


class LeafReference(Record):
    """Reference to a long text argument; to a sensitive one with size 0, no preview and a digest that is keyed."""

    digest: Digest
    size: int
    preview: str

    @classmethod
    def is_one(cls, value: object) -> TypeGuard[JsonObject]:
        """Tell whether a value of JSON is such a reference."""
        return isinstance(value, dict) and value.keys() == cls.model_fields.keys()
