"""Request fields of a vendor that an agent file adds: those that are the runtime's are never among them."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from mandate.activities.failures import make_model_failure
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.requests import dump
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import Located, Place
from mandate.workflows.contracts.templates import SECRET_START
from mandate.workflows.contracts.transcript import Protocol

EXTRA = "extra_body"
"""Key of fields that the vendor's own types do not have."""

_CONVERSATION = "the runtime writes the conversation"
_INSTRUCTIONS = "the agent's 'instructions' say it"
_TOOLS = "the agent's 'tools' say what there is, and its policy what may be called"
_MODEL = "the entry's 'model' and the agent's route say it"
_LIMIT = "the entry's or the agent's 'max_output_tokens' and the budget say it"
_STREAM = "the runtime reads whole answers"
_STORED = "the conversation is in the store of the runtime, and nothing is kept at the vendor"
_ONE = "the runtime reads one answer"
_CACHE_KEY = "the runtime writes one for each conversation"
_REQUEST = "it is no field of the body"

_EVERYWHERE: Mapping[str, str] = {
    **dict.fromkeys(("model", "models", "fallbacks", "route"), _MODEL),
    **dict.fromkeys(("messages", "input", "prompt"), _CONVERSATION),
    **dict.fromkeys(("instructions", "system"), _INSTRUCTIONS),
    **dict.fromkeys(
        (
            "tools", "tool_choice", "functions", "function_call", "mcp_servers", "plugins", "web_search_options",
            "web_search", "container", "code_execution",
        ),
        _TOOLS,
    ),
    **dict.fromkeys(
        (
            "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample",
            "max_gen_len", "maxtokens", "maxoutputtokens", "num_predict", "n_predict",
        ),
        _LIMIT,
    ),
    **dict.fromkeys(("stream", "stream_options"), _STREAM),
    **dict.fromkeys(("n", "best_of", "num_completions", "candidate_count", "candidatecount"), _ONE),
    **dict.fromkeys(("store", "background", "previous_response_id", "conversation"), _STORED),
    **dict.fromkeys(("include", "truncation"), _CONVERSATION),
    "prompt_cache_key": _CACHE_KEY,
    **dict.fromkeys(("extra_headers", "extra_query", "timeout", "headers", "base_url", "api_base"), _REQUEST),
}  # fmt: skip
"""Names that are refused whatever the protocol is: servers that translate one protocol into another read them all."""

_FORMATS: Mapping[Protocol, tuple[str, ...]] = {
    "openai.responses": ("text", "format"),
    "openai.chat": ("response_format",),
    "anthropic.messages": ("output_config", "format"),
}


def find_owned(params: JsonObject) -> Iterator[Located]:
    """Yield the fields that are the runtime's, each with a sentence; those of `extra_body` too."""
    extra = params.get(EXTRA, {})
    for place, fields in (((), params), ((EXTRA,), extra if isinstance(extra, dict) else {})):
        for name in fields:
            # Some servers read names without regard to case.
            if (why := _EVERYWHERE.get(name.lower())) is not None:
                yield (*place, name), f"is not an agent file's to set: {why}"


def find_format(params: JsonObject, protocol: Protocol) -> Place | None:
    """Return where `params` say the form of the answer, which an agent with `output_schema` says there."""
    extra = params.get(EXTRA, {})
    for begin, fields in (((), params), ((EXTRA,), extra)):
        for place in {("response_format",), ("output_format",), _FORMATS[protocol]}:
            found: JsonValue = fields
            for key in place:
                found = found.get(key) if isinstance(found, dict) else None
            if found is not None:
                return (*begin, *place)
    return None


def find_secrets(params: JsonValue, place: Place = ()) -> Iterator[Located]:
    """Yield texts that name secrets: the body is kept with the agent."""
    if isinstance(params, str):
        if SECRET_START in params:
            yield place, "secrets are resolved in the file of providers only, never in a body"
    elif isinstance(params, dict | list):
        for part, value in params.items() if isinstance(params, dict) else enumerate(params):
            yield from find_secrets(value, (*place, part))


def merge(params: JsonObject, defaults: JsonObject) -> JsonObject:
    """Return the fields of the body: the agent file's before the `defaults`, those of `extra_body` among them."""
    extra = params.get(EXTRA, {})
    own = {name: value for name, value in params.items() if name != EXTRA}
    return {**defaults, **own, **(extra if isinstance(extra, dict) else {})}


def encode(prompt: Prompt, protocol: Protocol, defaults: JsonObject) -> bytes:
    """Return the fields as a part of the JSON body, which ends with a comma where there are any.

    Raises:
        ApplicationError: one of them is the runtime's; another worker has pinned such an agent.
    """
    if not prompt.params and not defaults:
        return b""
    for place, why in find_owned(prompt.params):
        name = f"{prompt.model!r} was not asked by {protocol}: params: {place[-1]} {why}"
        raise make_model_failure("configuration", name, attempt=prompt.attempt)
    fields = merge(prompt.params, defaults)
    return b"%b," % dump(fields, sort_keys=True)[1:-1].encode() if fields else b""
