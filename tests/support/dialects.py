"""The endpoints of the gallery as their vendors speak: what each wants in a request, an answer, and an error.

Answers and errors are the vendors' own forms, as their references and reports of users quote them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_provider.behaviours import CHAT, RESPONSES
from tests.support.fake_provider.streams import write_event, write_events
from tests.support.http_peer import Reply, Seen

SECRETS = {
    "AZURE_OPENAI_API_KEY": "azure-key-0123",
    "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key-0123",
    "VERTEX_ACCESS_TOKEN": "ya29.vertex-0123",
    "GROQ_API_KEY": "gsk_groq-0123",
    "MISTRAL_API_KEY": "mistral-key-0123",
    "OPENROUTER_API_KEY": "sk-or-v1-0123",
    "LITELLM_API_KEY": "sk-litellm-0123",
    "VLLM_LARGE_API_KEY": "vllm-key-0123",
}

STREAM_FIELDS = frozenset({"stream", "stream_options"})
COMMON = {"model", "messages", "tools"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One vendor."""

    model: str
    """As a route names it, without the endpoint."""
    target: str
    """Path and query that it answers under."""
    headers: Mapping[str, str]
    """Those that say who asks; a server without keys wants none."""
    answer: dict[str, Any]
    error: Reply
    fault: str
    """The fault that `error` is."""
    says: str
    """Part of the sentence on it."""
    status: int
    fields: frozenset[str] = frozenset({*COMMON, "max_completion_tokens"})
    """Fields that it takes: it refuses others."""
    tokens: tuple[int, int, int] = (100, 0, 20)
    """Input, cached part and output of `answer`."""
    retried: bool = False
    more: Mapping[str, str] = field(default_factory=dict)
    """Headers that say nothing of who asks."""
    stream_fields: frozenset[str] = frozenset({"stream", "stream_options"})
    """Fields that ask for a stream: it refuses others."""
    ends_with_usage: bool = False
    """The usage of a streamed answer is in the event of its end, whatever was asked for."""

    def refusal(self, seen: Seen) -> Reply | None:
        """Return what the vendor says of a request that it does not take."""
        if seen.method != "POST" or seen.target != self.target:
            return reply({"error": {"message": f"no such path: {seen.target}"}}, 404)
        told = {name: seen.headers.get(name) for name in ("authorization", "api-key", "x-api-key")}
        if {name: value for name, value in told.items() if value} != self.headers:
            return reply({"error": {"message": "unauthorized"}}, 401)
        if any(seen.headers.get(name) != value for name, value in self.more.items()):
            return reply({"error": {"message": "a header is missing"}}, 400)
        document = json.loads(seen.body)
        if document.keys() & STREAM_FIELDS - self.stream_fields:
            [name] = document.keys() & STREAM_FIELDS - self.stream_fields
            detail = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
            return reply({"object": "error", "message": {"detail": [detail]}, "type": "invalid_request_error"}, 422)
        if set(document) - STREAM_FIELDS != self.fields:
            return reply({"error": {"message": f"fields: {sorted(document)}"}}, 422)
        return None if document["model"] == self.model else reply({"error": {"message": "no such model"}}, 404)

    def respond(self, seen: Seen) -> Reply:
        """Return its answer, in events where the request asks for them."""
        document = json.loads(seen.body)
        if not document.get("stream"):
            return reply(self.answer)
        protocol = RESPONSES if "input" in document else CHAT
        events = write_events(protocol, self.answer, tells_usage="stream_options" in document)
        if self.ends_with_usage:
            end = json.loads(events[-2].removeprefix(b"data: "))
            events[-2] = write_event(end | {"usage": self.answer["usage"]})
        return Reply(200, b"".join(events), {"Content-Type": "text/event-stream; charset=utf-8"})


def reply(document: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})


def chat(
    model: str, usage: dict[str, Any], *, call_id: str = "call_1", finish: str = "tool_calls", **more: Any
) -> dict[str, Any]:
    """An answer of Chat Completions with one call."""
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    call = {"id": call_id, "type": "function", "function": function, "index": 0}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    } | more


def used(prompt: int = 100, completion: int = 20, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[secret]}"}


AZURE_ANSWER = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-5.5-2026-04-01",
    "error": None,
    "content_filters": [{"blocked": False}],
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ENC=="},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"city": "Rome"}',
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 12},
        "total_tokens": 120,
    },
}
MAX_TOKENS = frozenset({*COMMON, "max_tokens"})

DIALECTS: Mapping[str, Dialect] = {
    "azure": Dialect(
        model="my-deployment",
        target="/openai/v1/responses?api-version=preview",
        headers={"api-key": SECRETS["AZURE_OPENAI_API_KEY"]},
        fields=frozenset(
            {"model", "max_output_tokens", "prompt_cache_key", "include", "store", "instructions", "tools", "input"}
        ),
        stream_fields=frozenset({"stream"}),
        answer=AZURE_ANSWER,
        tokens=(100, 64, 20),
        error=reply(
            {
                "error": {
                    "message": "The response was filtered due to the prompt.",
                    "type": None,
                    "param": "prompt",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
            400,
        ),
        fault="content_filter",
        says="answered 400 (content_filter): The response was filtered",
        status=400,
    ),
    "bedrock": Dialect(
        model="openai.gpt-oss-120b-1:0",
        target="/openai/v1/chat/completions",
        headers=bearer("AWS_BEARER_TOKEN_BEDROCK"),
        answer=chat("openai.gpt-oss-120b-1:0", used(), call_id="chatcmpl-tool-0123"),
        error=reply(
            {"__type": "AccessDeniedException", "Message": "Authentication failed: bearer token is invalid."}, 403
        ),
        fault="configuration",
        says="answered 403 (AccessDeniedException): Authentication failed: bearer token is invalid.; check the API key",
        status=403,
    ),
    "vertex": Dialect(
        model="google/gemini-2.5-pro",
        target="/v1/projects/my-project/locations/us-central1/endpoints/openapi/chat/completions",
        headers=bearer("VERTEX_ACCESS_TOKEN"),
        answer=chat(
            "google/gemini-2.5-pro",
            used(
                extra_properties={"google": {"traffic_type": "ON_DEMAND"}},
                completion_tokens_details={"reasoning_tokens": 12},
            ),
            call_id="function-call-123",
        ),
        error=reply(
            [
                {
                    "error": {
                        "code": 429,
                        "message": "Resource exhausted. Please try again later.",
                        "status": "RESOURCE_EXHAUSTED",
                    }
                }
            ],
            429,
        ),
        fault="rate_limit",
        says="answered 429 (RESOURCE_EXHAUSTED): Resource exhausted.",
        status=429,
        retried=True,
    ),
    "groq": Dialect(
        model="llama-3.3-70b-versatile",
        target="/openai/v1/chat/completions",
        headers=bearer("GROQ_API_KEY"),
        answer=chat(
            "llama-3.3-70b-versatile",
            used(queue_time=0.01, prompt_time=0.01, completion_time=0.1, prompt_tokens_details={"cached_tokens": 64}),
            x_groq={"id": "req_1"},
        ),
        tokens=(100, 64, 20),
        error=reply(
            {
                "error": {
                    "message": "Failed to call a function. Please adjust your prompt.",
                    "type": "invalid_request_error",
                    "code": "tool_use_failed",
                    "failed_generation": "<function=get_weather>",
                }
            },
            400,
        ),
        fault="malformed",
        says="answered 400 (tool_use_failed): Failed to call a function.",
        status=400,
        retried=True,
    ),
    "mistral": Dialect(
        model="mistral-large-latest",
        target="/v1/chat/completions",
        headers=bearer("MISTRAL_API_KEY"),
        fields=MAX_TOKENS,
        stream_fields=frozenset({"stream"}),
        ends_with_usage=True,
        answer=chat("mistral-large-latest", used(), call_id="D681PevKs"),
        error=reply(
            {"object": "error", "message": "Invalid model: mistral-huge", "type": "invalid_model", "code": "1500"}, 400
        ),
        fault="configuration",
        says="answered 400 (invalid_model): Invalid model: mistral-huge; check the model's name",
        status=400,
    ),
    "ollama": Dialect(
        model="qwen3:32b",
        target="/v1/chat/completions",
        headers={},
        fields=MAX_TOKENS,
        answer=chat("qwen3:32b", used(), finish="stop", system_fingerprint="fp_ollama"),
        error=reply(
            {
                "error": {
                    "message": 'model "qwen3:32b" not found, try pulling it first',
                    "type": "not_found_error",
                    "code": None,
                }
            },
            404,
        ),
        fault="configuration",
        says='answered 404 (not_found_error): model "qwen3:32b" not found, try pulling it first; check the model',
        status=404,
    ),
    "openrouter": Dialect(
        model="meta-llama/llama-3.3-70b-instruct",
        target="/api/v1/chat/completions",
        headers=bearer("OPENROUTER_API_KEY"),
        fields=MAX_TOKENS,
        more={"http-referer": "https://example.com", "x-title": "Mandate"},
        answer=chat("meta-llama/llama-3.3-70b-instruct", used(cost=0.0001), provider="Together"),
        error=reply({"error": {"code": 402, "message": "Insufficient credits. Add more."}, "user_id": "u1"}, 402),
        fault="quota",
        says="answered 402: Insufficient credits. Add more.",
        status=402,
    ),
    "litellm": Dialect(
        model="team/gpt",
        target="/v1/chat/completions",
        headers=bearer("LITELLM_API_KEY"),
        answer=chat("gpt-5.5-2026-04-01", used(prompt_tokens_details={"cached_tokens": None}), service_tier="default"),
        error=reply(
            {
                "error": {
                    "message": "Budget has been exceeded! Current cost: 0.5, Max budget: 0.1",
                    "type": "budget_exceeded",
                    "code": "400",
                }
            },
            400,
        ),
        fault="quota",
        says="answered 400 (budget_exceeded): Budget has been exceeded!",
        status=400,
    ),
    "vllm-large": Dialect(
        model="Qwen/Qwen3-235B-A22B",
        target="/v1/chat/completions",
        headers=bearer("VLLM_LARGE_API_KEY"),
        answer=chat("Qwen/Qwen3-235B-A22B", used(prompt_tokens_details=None), call_id="chatcmpl-tool-" + "a" * 32),
        error=reply(
            {
                "error": {
                    "message": "This model's maximum context length is 4096 tokens. You requested 5000.",
                    "type": "BadRequestError",
                    "param": None,
                    "code": 400,
                }
            },
            400,
        ),
        fault="context_length",
        says="answered 400 (BadRequestError): This model's maximum context length is 4096 tokens.",
        status=400,
    ),
    "sglang": Dialect(
        model="Qwen/Qwen3-32B",
        target="/v1/chat/completions",
        headers={},
        answer=chat("Qwen/Qwen3-32B", used(reasoning_tokens=0), metadata={"weight_version": "default"}),
        error=reply(
            {
                "object": "error",
                "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
                "type": "BadRequestError",
                "code": 400,
            },
            400,
        ),
        fault="context_length",
        says="answered 400 (BadRequestError): The input (5000 tokens) is longer than the model's context length",
        status=400,
    ),
}
