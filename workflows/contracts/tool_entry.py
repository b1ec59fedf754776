"""The tools of an agent file, as people write them."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from mandate.workflows.contracts.base import Digest, Duration, JsonObject, Name, Spec
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.faults import Located, Place, did_you_mean, find_close, given_twice, refuse
from mandate.workflows.contracts.templates import KEY, SECRET_START, find_arguments, find_run_values, find_secrets
from mandate.workflows.contracts.tool import Effect, ErrorMeaning
from mandate.workflows.contracts.verification import ProbeSpec

PYTHON_PATH = r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
HTTP_ADDRESS = r"^https?://"

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "idempotency-key")


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


LONGEST_CACHE = timedelta(hours=24)


def _check_cache_time(value: timedelta) -> timedelta:
    if value > LONGEST_CACHE:
        raise ValueError("a result answers other calls for at most 24h")
    return value


CacheTime = Annotated[Duration, AfterValidator(_check_cache_time)]


class ToolSettings(Spec):
    """Settings that any tool may have; for Python tools each overrides the decorated function."""

    effect: Effect | None = Field(default=None, description="What a call does to the world; `once` if nothing says.")
    timeout: Duration | None = Field(default=None, description="Longest time of one attempt, for example `30s`.")
    patience: Duration | None = Field(
        default=None,
        description="How long a call is repeated while the other side is down; 1m for `read`, 10m for `idempotent` and "
        "`keyed`, never for `once`.",
    )
    retries: int | None = Field(
        default=None, ge=0, le=20, description="Attempts after the first at most, for who wants to bound them."
    )
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
    cache: CacheTime | None = Field(
        default=None,
        description="For `read`: how long a result answers equal calls, for example `10m`, at most `24h`; never if "
        "nothing says. `null` takes away what a decorated function says.",
    )
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

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        # What the file leaves out may stand at the function.
        refuse([*_cache_faults(self, self.effect or Effect.READ)])
        return self


class McpConnection(Spec):
    """An MCP server: `command` starts it over stdio, `url` reaches it over streamable HTTP."""

    name: Name = Field(description="Prefix of its logs; one client per name and worker.")
    command: tuple[Annotated[str, AfterValidator(_refuse_secret_argument)], ...] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments; the program `python` is the interpreter that the worker runs on.",
    )
    env: dict[str, Confidential] = Field(
        default={}, repr=False, description="Environment of the command; `${secret:NAME}` is resolved."
    )
    url: Annotated[str, Field(pattern=HTTP_ADDRESS), AfterValidator(_refuse_secret_address)] | None = Field(
        default=None, description="Address of a streamable HTTP server."
    )
    headers: dict[str, Confidential] = Field(
        default={}, repr=False, description="Sent to `url`; `${secret:NAME}` is resolved."
    )
    start: Duration | None = Field(
        default=None, description="Longest time that it may take to start and to list its tools; `30s` if nothing says."
    )

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if (self.command is None) == (self.url is None):
            refuse([((), "an MCP server needs exactly one of 'command' and 'url'")])
        if self.command is None and self.env:
            refuse([(("env",), "belongs to 'command'; a server at a 'url' has its own environment")])
        if self.url is None and self.headers:
            refuse([(("headers",), "belongs to 'url'; a server started by 'command' has no headers")])
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
    caches: dict[str, CacheTime] = Field(
        default={}, description="The same as `cache` by tool; not named: `cache`, for those with the effect `read`."
    )
    start: Duration | None = Field(default=None, description="The same as `start` of `mcp`, for this entry.")
    asks_before_acting: bool = Field(
        default=False,
        description="Whether the server asks people what it must know before a tool changes anything; without it a "
        "`once` call that is not carried on after a question has an unknown outcome.",
    )
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
        effects = (self.effect, *self.effects.values())
        refuse([*self._faults_of_untaken(), *_key_faults(self, *effects), *self._faults_of_caches()])
        return self

    def _faults_of_caches(self) -> Iterator[Located]:
        effects = {self.effect or Effect.ONCE, *self.effects.values()}
        yield from _cache_faults(self, Effect.READ if Effect.READ in effects else self.effect or Effect.ONCE)
        for tool in self.caches:
            effect = self.effects.get(tool) or self.effect or Effect.ONCE
            if effect is not Effect.READ:
                yield ("caches", tool), refuse_cache(effect)
            elif self.sensitive:
                yield ("caches", tool), SENSITIVE_CACHE

    def _faults_of_untaken(self) -> Iterator[Located]:
        """Find settings by tool of tools that are not taken."""
        for key, named in (("effects", self.effects), ("errors", self.errors), ("caches", self.caches)):
            for tool in named:
                if self.only is not None and tool not in self.only:
                    yield (key, tool), "is not one of the tools that 'only' takes"


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
        found = [*_key_faults(self, self.effect), *_schema_faults(self.input_schema, self.sensitive)]
        if self.name is None and not _is_name(self.activity.name):
            why = f"{self.activity.name!r} cannot be the name of a tool; set the tool's 'name'"
            found.append((("activity", "name"), why))
        if self.sensitive:
            found.append((("sensitive",), _IN_CLEAR))
        if self.cache is not None:
            found.append((("cache",), _CALLED_BY_TEMPORAL))
        refuse([*found, *self._position_faults()])
        return self

    def _position_faults(self) -> Iterator[Located]:
        if self.arguments is None:
            return
        known = _properties(self.input_schema)
        for index, name in enumerate(self.arguments):
            if name not in known:
                yield ("arguments", index), f"{name!r} is not a property of input_schema"
        for place, message in given_twice(self.arguments):
            yield ("arguments", *place), message
        for name in known:
            if name not in self.arguments:
                yield ("arguments",), f"the property {name!r} of input_schema has no position and would be lost"


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
    headers: dict[str, Confidential] = Field(
        default={}, repr=False, description="`${secret:NAME}` is resolved by the worker."
    )
    query: tuple[str, ...] = Field(default=(), description="Arguments that go into the query.")
    body: JsonObject = Field(
        default={}, description="Fields of the JSON body that are always sent, whatever the arguments are."
    )

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        found = [*_key_faults(self, self.effect), *_schema_faults(self.input_schema, self.sensitive)]
        found += _cache_faults(self, self.effect or Effect.ONCE)
        refuse([*found, *self._address_faults(), *self._query_faults(), *self._value_faults(), *self._body_faults()])
        return self

    def _value_faults(self) -> Iterator[Located]:
        """Find headers that cannot be sent, and misspelt names of values of the run."""
        for name in self.headers:
            if fault := find_header_fault(name):
                yield ("headers", name), fault
        texts: Iterator[Located] = chain(
            ((("headers", name), text) for name, text in self.headers.items()), _list_texts(self.body, ("body",))
        )
        for place, text in texts:
            try:
                values = find_run_values(text)
            except ValueError as error:
                yield place, str(error)
            else:
                yield from self._key_value_faults(place, values)

    def _key_value_faults(self, place: Place, values: tuple[str, ...]) -> Iterator[Located]:
        if self.cache is not None and KEY in values:
            yield place, _NEVER_EQUAL

    def _body_faults(self) -> Iterator[Located]:
        if self.body and self.http.method in ("GET", "HEAD"):
            yield ("body",), f"{self.http.method} has no body"
        for place, text in _list_texts(self.body, ("body",)):
            if SECRET_START in text:
                yield place, "secrets are resolved in header values only, never in a body"
        for name in self.body:
            if name in _properties(self.input_schema):
                yield ("body", name), "is an argument too; the body has it from one place only"

    def _address_faults(self) -> Iterator[Located]:
        known, required = _properties(self.input_schema), self.input_schema.get("required", [])
        yield from self._key_value_faults(("http", "url"), find_run_values(self.http.url))
        for argument in find_arguments(self.http.url):
            if argument not in known or not isinstance(required, list) or argument not in required:
                yield ("http", "url"), f"the argument {argument!r} must be a required property of input_schema"

    def _query_faults(self) -> Iterator[Located]:
        known, in_url = _properties(self.input_schema), find_arguments(self.http.url)
        for index, argument in enumerate(self.query):
            if argument not in known:
                yield ("query", index), f"{argument!r} is not a property of input_schema"
            elif argument in in_url:
                yield ("query", index), f"{argument!r} is in the address already"


TASK = "task"
"""Argument of an agent as a tool that says nothing of its arguments: what it is asked, one text."""

TASK_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {TASK: {"type": "string", "description": "What the agent is asked, with all that it has to know."}},
    "required": [TASK],
}

_NOT_OF_AGENTS = ("effect", "patience", "retries", "key_valid", "cache", "probe", "compensate")


class AgentTool(NamedToolSettings):
    """Another agent as a tool: each call starts a run of it, below this one."""

    agent: Name = Field(description="Name of the agent, of a file beside this one.")
    input_schema: JsonObject | None = Field(
        default=None,
        description="JSON Schema of the arguments: an object, which the agent is asked as JSON. Left out: one text, "
        "`task`.",
    )
    output_schema: JsonObject | None = Field(
        default=None, description="JSON Schema that its answer must fit, in place of the one in its own file."
    )
    budget: BudgetRequest = Field(
        default=BudgetRequest(),
        description='Limits of one such run, for example `{cost_usd: "0.20"}`, reserved of those of the run that '
        "calls it; they lower those of its own file.",
    )
    timeout: Duration | None = Field(default=None, description="Longest time of one such run, for example `1h`.")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        given = [key for key in _NOT_OF_AGENTS if key in self.model_fields_set]
        found: list[Located] = [
            ((key,), "belongs to other tools; a call of an agent starts a run, whose own calls have that")
            for key in given
        ]
        if self.input_schema is not None:
            found += _schema_faults(self.input_schema, self.sensitive)
        elif self.sensitive:
            found += _schema_faults(TASK_SCHEMA, self.sensitive)
        if self.timeout is not None and self.budget.wall_time is not None:
            found.append((("timeout",), "is the same as 'wall_time' of 'budget'; give one of them"))
        refuse(found)
        return self


TOOL_KINDS = ("python", "mcp", "activity", "http", "agent")


_NAME: TypeAdapter[str] = TypeAdapter(Name)
_IN_CLEAR = (
    "Temporal carries the arguments of an activity, and its history keeps them as they are; call it by 'python' or "
    "'http' instead, or hand on a reference to what is sensitive"
)


_CALLED_BY_TEMPORAL = (
    "a Temporal activity is called by the run and not by a worker of ours, so nothing of it is kept; 'cache' belongs "
    "to tools from 'python', 'mcp' and 'http'"
)
_NEVER_EQUAL = "'${key}' is another one for each call, so that no kept result would answer a call; leave out 'cache'"
SENSITIVE_CACHE = "results of a tool with sensitive arguments may repeat them, so they are never kept for other calls"


def refuse_cache(effect: Effect) -> str:
    """Say why results of a tool with this effect answer no other call."""
    return f"belongs to the effect 'read'; this tool is {str(effect)!r}, and each of its calls is made"


def _cache_faults(tool: ToolSettings, effect: Effect) -> Iterator[Located]:
    if tool.cache is None:
        return
    if effect is not Effect.READ:
        yield ("cache",), refuse_cache(effect)
    if tool.sensitive:
        yield ("cache",), SENSITIVE_CACHE


def _is_name(value: str) -> bool:
    try:
        _NAME.validate_python(value)
    except ValidationError:
        return False
    return True


def _key_faults(tool: ToolSettings, *effects: Effect | None) -> Iterator[Located]:
    """Find a validity of keys where no key is sent; `effects` are all that the entry names."""
    if tool.key_valid is not None and Effect.KEYED not in effects:
        yield ("key_valid",), "belongs to the effect 'keyed'; the other side knows no key of other tools"


def _schema_faults(schema: JsonObject, sensitive: tuple[str, ...] | None) -> Iterator[Located]:
    if schema.get("type") != "object":
        yield ("input_schema",), "must be the JSON Schema of an object, with 'type: object'"
    for argument in sensitive or ():
        if argument not in _properties(schema):
            yield ("input_schema",), f"the sensitive argument {argument!r} is not one of its properties"


def find_header_fault(name: str) -> str | None:
    """Return why a header of this name cannot be set, or `None`."""
    if not _HEADER_NAME.fullmatch(name):
        return "is not a header name"
    return "is set by Mandate" if name.lower() in _OWN_HEADERS else None


def _list_texts(value: JsonValue, place: Place) -> Iterator[Located]:
    """Yield the texts in a value, each with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _list_texts(item, (*place, part))


def _properties(schema: JsonObject) -> Mapping[str, JsonValue]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def entry_name(entry: "ToolEntry") -> str | None:
    """Return the name of the tool of `entry`, if one is known without loading anything."""
    if isinstance(entry, McpTools):
        return None
    if isinstance(entry, AgentTool):
        return entry.name or entry.agent
    return entry.name or (entry.activity.name if isinstance(entry, ActivityTool) else None)


def find_tool_kind(entry: Any) -> str | None:
    """Return which of `TOOL_KINDS` an entry of `tools` is, by the key that names its source."""
    keys = entry if isinstance(entry, dict) else getattr(entry, "model_fields_set", ())
    kinds = [kind for kind in TOOL_KINDS if kind in keys]
    return kinds[0] if len(kinds) == 1 else None


def kind_fault(entry: object) -> str:
    """Say why an entry of `tools` is of no kind."""
    kinds = ", ".join(TOOL_KINDS)
    if not isinstance(entry, dict):
        return f"is not a mapping; a tool has exactly one of the keys {kinds}"
    given = [kind for kind in TOOL_KINDS if kind in entry]
    if given:
        return f"has the keys {' and '.join(given)}; a tool has exactly one of {kinds}"
    close = next((key for key in map(str, entry) if find_close(key, TOOL_KINDS)), "")
    hint = did_you_mean(close, TOOL_KINDS).rstrip(";")
    return f"has none of the keys {kinds}, of which a tool has exactly one{hint}"


ToolEntry = Annotated[
    Annotated[PythonTool, Tag("python")]
    | Annotated[McpTools, Tag("mcp")]
    | Annotated[ActivityTool, Tag("activity")]
    | Annotated[HttpTool, Tag("http")]
    | Annotated[AgentTool, Tag("agent")],
    Discriminator(
        find_tool_kind,
        custom_error_type="tool_kind",
        custom_error_message="a tool has exactly one of the keys 'python', 'mcp', 'activity', 'http' and 'agent'",
    ),
]
