"""An agent: as people write it, as a run pins it, and as the workflow holds it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from workflows.contracts.base import Digest, Duration, JsonObject, Name, Record, Spec
from workflows.contracts.budget import Budget
from workflows.contracts.model import ModelName
from workflows.contracts.policy import Rule
from workflows.contracts.tool import Effect, Tool, ToolDefinition

NOT_YET_AVAILABLE = {
    "agent": ("checks", "memory", "context"),
    "tool": ("agent", "probe", "compensate", "risk", "key_valid"),
    "budget": ("model_calls", "tool_calls", "tokens", "cost_usd", "wall_time", "depth", "children"),
    "rule": ("when", "approvers", "quorum", "expires", "signature"),
}
"""Keys of the design that this version refuses by name, so that nobody relies on a limit that is not enforced."""


class ToolSettings(Spec):
    """What any tool may say of itself; for Python tools each overrides the decorated function."""

    effect: Effect | None = Field(default=None, description="What a call does to the world; `once` if nothing says.")
    timeout: Duration | None = Field(default=None, description="Longest time of one attempt, for example `30s`.")
    retries: int | None = Field(default=None, ge=0, le=20, description="Attempts after the first; never for `once`.")
    untrusted: bool | None = Field(default=None, description="Whether its results come from outside.")
    tags: tuple[str, ...] | None = Field(default=None, description="Words that policy rules can match.")
    sensitive: tuple[str, ...] | None = Field(default=None, description="Arguments that are shown nowhere.")
    result_limit: int | None = Field(default=None, ge=256, description="Bytes of a result that the model is shown.")


class NamedToolSettings(ToolSettings):
    name: Name | None = Field(default=None, description="What the model and the policy call it.")
    description: str | None = Field(default=None, description="What the model is told of it.")


class PythonTool(NamedToolSettings):
    """A Python function decorated with `@tool`."""

    python: str = Field(pattern=r"^[\w.]+:\w+$", description="`module:function`.")


class McpConnection(Spec):
    """An MCP server: `command` starts it over stdio, `url` reaches it over streamable HTTP."""

    name: Name = Field(description="Prefix of its logs; one client per name and worker.")
    command: tuple[str, ...] | None = Field(default=None, min_length=1, description="Program and arguments.")
    env: dict[str, str] = Field(default={}, description="Environment of the command; `${secret:NAME}` is resolved.")
    url: str | None = Field(default=None, pattern=r"^https?://", description="Address of a streamable HTTP server.")
    headers: dict[str, str] = Field(default={}, description="Sent to `url`; `${secret:NAME}` is resolved.")

    @model_validator(mode="after")
    def _one_transport(self) -> "McpConnection":
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server needs exactly one of 'command' and 'url'")
        return self


class McpTools(ToolSettings):
    """All tools of an MCP server, or those that `only` names; settings apply to each of them."""

    mcp: McpConnection = Field(description="The server.")
    only: tuple[str, ...] | None = Field(default=None, min_length=1, description="Take these tools and no others.")
    effects: dict[str, Effect] = Field(default={}, description="Effect by tool; not named: `effect`, else `once`.")


class ActivityConnection(Spec):
    """A Temporal activity of any worker in any language."""

    name: str = Field(min_length=1, description="Activity type.")
    task_queue: str = Field(min_length=1, description="Where its workers poll.")


class ActivityTool(NamedToolSettings):
    """A Temporal activity as a tool; its activity id is the idempotency key."""

    activity: ActivityConnection = Field(description="Which activity.")
    input_schema: JsonObject = Field(description="JSON Schema of the arguments: an object.")
    arguments: tuple[str, ...] | None = Field(default=None, description="Positional order; without it one object.")
    failed_types: tuple[str, ...] = Field(default=(), description="Application errors that mean: not done.")

    @model_validator(mode="after")
    def _arguments_exist(self) -> "ActivityTool":
        known = self.input_schema.get("properties")
        for argument in self.arguments or ():
            if not isinstance(known, dict) or argument not in known:
                raise ValueError(f"argument {argument!r} is not a property of input_schema")
        return self


class HttpConnection(Spec):
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(description="HTTP method.")
    url: str = Field(pattern=r"^https?://", description="`{name}` is replaced by the argument, percent-encoded.")


class HttpTool(NamedToolSettings):
    """One HTTP request; its host must be allowed in the worker's settings."""

    http: HttpConnection = Field(description="The request.")
    name: Name = Field(description="What the model and the policy call it.")
    headers: dict[str, str] = Field(default={}, description="`${secret:NAME}` is resolved by the worker.")
    query: tuple[str, ...] = Field(default=(), description="Arguments that go into the query.")
    input_schema: JsonObject = Field(description="JSON Schema of the arguments: an object.")


TOOL_KINDS = ("python", "mcp", "activity", "http")


def _tool_kind(entry: Any) -> str | None:
    """Which of `TOOL_KINDS` an entry of `tools` is, by the key that names its source."""
    keys = entry if isinstance(entry, dict) else getattr(entry, "model_fields_set", ())
    kinds = [kind for kind in TOOL_KINDS if kind in keys]
    return kinds[0] if len(kinds) == 1 else None


ToolEntry = Annotated[
    Annotated[PythonTool, Tag("python")]
    | Annotated[McpTools, Tag("mcp")]
    | Annotated[ActivityTool, Tag("activity")]
    | Annotated[HttpTool, Tag("http")],
    Discriminator(
        _tool_kind,
        custom_error_type="tool_kind",
        custom_error_message="a tool has exactly one of the keys 'python', 'mcp', 'activity' and 'http'",
    ),
]


class AgentSpec(Spec):
    """An agent file."""

    name: Name = Field(description="What a start request calls it.")
    instructions: str = Field(min_length=1, description="The system text of every model call.")
    models: tuple[ModelName, ...] = Field(min_length=1, description="A route: preferred first, the rest are fallbacks.")
    tools: tuple[ToolEntry, ...] = Field(default=(), description="What the agent can do.")
    policy: tuple[Rule, ...] = Field(default=(), description="Which calls may run; unmatched calls only if they read.")
    attempts: int = Field(default=3, ge=1, le=20, description="Tries at a final answer that fits `output_schema`.")
    budget: Budget = Field(default=Budget(), description="Limits of one run.")
    output_schema: JsonObject | None = Field(default=None, description="JSON Schema that the final answer must fit.")
    max_output_tokens: int = Field(
        default=8192, ge=1, description="Longest answer of one model call, reasoning included."
    )

    @field_validator("policy")
    @classmethod
    def _rule_ids_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        seen: set[str] = set()
        for rule in rules:
            if rule.id in seen:
                raise ValueError(f"rule id {rule.id!r} is used twice")
            seen.add(rule.id)
        return rules


class PinnedAgent(Record):
    """An agent with the schemas of all its tools: stored as a blob, so that a run keeps it when files change."""

    name: Name
    instructions: str
    models: tuple[ModelName, ...]
    tools: tuple[ToolDefinition, ...]
    policy: tuple[Rule, ...]
    attempts: int
    budget: Budget
    output_schema: JsonObject | None
    max_output_tokens: int

    def definition(self, tool: str) -> ToolDefinition | None:
        return next((definition for definition in self.tools if definition.tool.name == tool), None)


class AgentPin(Record):
    """What the workflow holds of its agent: what it decides with."""

    name: Name
    digest: Digest
    """Of the `PinnedAgent`; its first 12 characters are the version."""
    models: tuple[ModelName, ...]
    tools: tuple[Tool, ...]
    policy: tuple[Rule, ...]
    attempts: int
    budget: Budget
    store: str
    """Id of the blob store that holds the run's conversation."""
    search_attributes: tuple[str, ...] = ()
    """Names that the namespace has; only these are upserted."""

    @property
    def version(self) -> str:
        return self.digest[:12]

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)
