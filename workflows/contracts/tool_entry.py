"""The tools of an agent file, as people write them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from mandate.workflows.contracts import tool_checks
from mandate.workflows.contracts.base import Digest, Duration, JsonObject, Name, Spec
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.faults import Located, find_repeated, refuse
from mandate.workflows.contracts.templates import SECRET_START, find_arguments, find_secrets
from mandate.workflows.contracts.tool import Effect, ErrorMeaning
from mandate.workflows.contracts.verification import ProbeSpec
from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

PYTHON_PATH = r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
HTTP_ADDRESS = r"^https?://"


def _check_spelling(value: str) -> str:
    """Return `value`, or raise if it holds a misspelt `${secret:NAME}`, which would be sent as it stands."""
    find_secrets(value)
    return value


Confidential = Annotated[str, AfterValidator(_check_spelling)]
"""A text that may hold `${secret:NAME}`."""


def _refuse_secret_argument(value: str) -> str:
    if SECRET_START in value:
        raise ValueError("a command line is seen by other processes; put the secret into 'env'")
    return value


def _refuse_secret_address(value: str) -> str:
    if SECRET_START in value:
        raise ValueError("secrets are resolved in header values only, never in an address")
    return value


class ToolSettings(Spec):
    """Settings that any tool may have; for Python tools each overrides the decorated function."""

    effect: Effect | None = Field(default=None, description="What a call does to the world; `once` if nothing says.")
    timeout: Duration | None = Field(default=None, description="Longest time of one attempt, for example `30s`.")
    retries: int | None = Field(default=None, ge=0, le=20, description="Attempts after the first; never for `once`.")
    key_valid: Duration | None = Field(
        default=None,
        description="For `keyed`: how long the other side knows the idempotency key, for example `24h`; "
        "after that no attempt is made.",
    )
    untrusted: bool | None = Field(default=None, description="Whether its results come from outside.")
    tags: tuple[str, ...] | None = Field(default=None, description="Words that policy rules can match.")
    risk: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="How much harm a call can do, on a scale of your own."
    )
    sensitive: tuple[str, ...] | None = Field(
        default=None, description="Arguments that are shown nowhere: Temporal and rules have a digest of them."
    )
    result_limit: int | None = Field(default=None, ge=256, description="Bytes of a result that the model is shown.")
    probe: Name | ProbeSpec | None = Field(
        default=None,
        description="How to find out whether a call happened whose outcome is unknown: a read tool of the agent, "
        "which is given the arguments that it shares with the call, or a mapping.",
    )
    compensate: Name | CompensationSpec | None = Field(
        default=None,
        description="The tool that takes a call back when the run is stopped: its name, if it is given the arguments "
        "that it shares with the call, or a mapping.",
    )


class NamedToolSettings(ToolSettings):
    name: Name | None = Field(default=None, description="What the model and the policy call it.")
    description: str | None = Field(default=None, description="What the model is told of it.")


class PythonTool(NamedToolSettings):
    """A Python function decorated with `@tool`."""

    python: str = Field(pattern=PYTHON_PATH, description="The function, as `module:function`.")


class McpConnection(Spec):
    """An MCP server: `command` starts it over stdio, `url` reaches it over streamable HTTP."""

    name: Name = Field(description="Prefix of its logs; one client per name and worker.")
    command: tuple[Annotated[str, AfterValidator(_refuse_secret_argument)], ...] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments; the program `python` is the interpreter that the worker runs on.",
    )
    env: dict[str, Confidential] = Field(
        default={}, description="Environment of the command; `${secret:NAME}` is resolved."
    )
    url: Annotated[str, Field(pattern=HTTP_ADDRESS), AfterValidator(_refuse_secret_address)] | None = Field(
        default=None, description="Address of a streamable HTTP server."
    )
    headers: dict[str, Confidential] = Field(default={}, description="Sent to `url`; `${secret:NAME}` is resolved.")

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        refuse(tool_checks.find_connection_faults(vars(self)))
        return self


class McpTools(ToolSettings):
    """All tools of an MCP server, or those that `only` names; settings apply to each of them."""

    mcp: McpConnection = Field(description="The server.")
    only: tuple[str, ...] | None = Field(default=None, min_length=1, description="Take these tools and no others.")
    effects: dict[str, Effect] = Field(default={}, description="Effect by tool; not named: `effect`, else `once`.")
    error: ErrorMeaning | None = Field(
        default=None,
        description="What it means that a tool says it failed: `not_done` or `unknown`; "
        "if nothing says, `unknown` for `once` and `not_done` for the rest.",
    )
    errors: dict[str, ErrorMeaning] = Field(default={}, description="The same by tool; not named: `error`.")
    additional_arguments: Literal["allow", "refuse"] = Field(
        default="refuse",
        description="Whether calls may have arguments that the server's schemas do not declare, where these leave it "
        "open: rules cannot know of them.",
    )
    accepted: Digest | None = Field(
        default=None,
        description="Digest of what the server says of these tools (names, descriptions, schemas), which `mandate "
        "validate --accept` writes: other words are refused. Without it they taint each run from its beginning, unless "
        "`untrusted: false`.",
    )

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse(tool_checks.find_mcp_faults(vars(self)))
        return self


class ActivityConnection(Spec):
    """A Temporal activity of any worker in any language."""

    name: str = Field(min_length=1, max_length=200, description="Activity type.")
    task_queue: str = Field(min_length=1, max_length=200, description="Where its workers poll.")

    @field_validator("task_queue")
    @classmethod
    def _is_not_temporals(cls, value: str) -> str:
        if value.startswith("/_sys/"):
            raise ValueError("names that begin with '/_sys/' are Temporal's own")
        return value


class ActivityTool(NamedToolSettings):
    """A Temporal activity as a tool; its activity id is the idempotency key."""

    activity: ActivityConnection = Field(description="Which activity.")
    input_schema: JsonObject = Field(
        description="JSON Schema of the arguments: an object. There are no others unless it says "
        "`additionalProperties`."
    )
    arguments: tuple[str, ...] | None = Field(default=None, description="Positional order; without it one object.")
    failed_types: tuple[str, ...] = Field(default=(), description="Application errors that mean: not done.")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse(tool_checks.find_activity_faults(self.model_dump()))
        return self


class HttpConnection(Spec):
    """Method and address of a request."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(description="HTTP method.")
    url: str = Field(pattern=HTTP_ADDRESS, description="`{name}` is replaced by the argument, percent-encoded.")

    @field_validator("url")
    @classmethod
    def _placeholders_are_spelt(cls, url: str) -> str:
        find_arguments(url)
        return url


class HttpTool(NamedToolSettings):
    """One HTTP request; its host must be allowed in the worker's settings."""

    name: Name = Field(description="What the model and the policy call it.")
    input_schema: JsonObject = Field(
        description="JSON Schema of the arguments: an object. There are no others unless it says "
        "`additionalProperties`. What is in neither address nor query is the JSON body."
    )
    http: HttpConnection = Field(description="The request.")
    headers: dict[str, Confidential] = Field(default={}, description="`${secret:NAME}` is resolved by the worker.")
    query: tuple[str, ...] = Field(default=(), description="Arguments that go into the query.")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse(tool_checks.find_http_faults(self.model_dump()))
        return self


TOOL_KINDS = ("python", "mcp", "activity", "http")


def find_entry_name(entry: Any) -> str | None:
    """Return the name of an entry of `tools`, if known without loading anything; `entry` may be plain values."""
    fields = entry if isinstance(entry, dict) else getattr(entry, "__dict__", {})
    name = fields.get("name")
    if name is None and "activity" in fields:
        activity = fields["activity"]
        name = activity.get("name") if isinstance(activity, dict) else getattr(activity, "name", None)
    return name if isinstance(name, str) and tool_checks.is_name(name) else None


def find_tool_kind(entry: Any) -> str | None:
    """Return which of `TOOL_KINDS` an entry of `tools` is, by the key that names its source."""
    keys = entry if isinstance(entry, dict) else getattr(entry, "model_fields_set", ())
    kinds = [kind for kind in TOOL_KINDS if kind in keys]
    return kinds[0] if len(kinds) == 1 else None


ToolEntry = Annotated[
    Annotated[PythonTool, Tag("python")]
    | Annotated[McpTools, Tag("mcp")]
    | Annotated[ActivityTool, Tag("activity")]
    | Annotated[HttpTool, Tag("http")],
    Discriminator(
        find_tool_kind,
        custom_error_type="tool_kind",
        custom_error_message="a tool has exactly one of the keys 'python', 'mcp', 'activity' and 'http'",
    ),
]


def find_shared_names(names: Sequence[str | None]) -> list[Located]:
    return [
        ((again,), f"the name {name!r} is taken by tools[{first}]; set another 'name'")
        for again, name, first in find_repeated(names)
    ]
