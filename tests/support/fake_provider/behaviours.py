"""What the fake provider can be told to do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal

RESPONSES, CHAT, MESSAGES = "openai.responses", "openai.chat", "anthropic.messages"

Stop = Literal["complete", "truncated", "refused", "filtered", "paused", "window"]


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: str = "{}"
    """JSON text; Anthropic's protocol carries it as it is, so it must then be JSON (NaN and 1e999 will do)."""
    id: str | None = None
    """The protocol's own form when it is `None`; an empty id is left empty."""


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP 200 with an answer of the protocol."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: bool = True
    stop: Stop = "complete"
    usage: bool = True
    unknown_item: bool = False
    delay: float = 0.0
    """Seconds before the answer."""
    pieces: int = 3
    """Of each of its texts, where it is streamed."""
    streams: bool = True
    """Else it is one document whatever the request asks for."""
    tokens: "tuple[int, int, int] | None" = None
    """Input, the cached part of it, and output, as it reports them; `None` for the numbers that are always the same."""
    then: Callable[[], None] | None = None
    """Called once the client has had the time to read it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error status with the protocol's error body."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """Exactly this."""

    content: bytes
    status: int = 200
    content_type: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent as they are; a `content-type` among them wins."""


@dataclass(frozen=True, slots=True)
class Broken:
    """`drop` closes the connection without an answer, `cut` in the middle of one.

    The others are of streams, half of which comes, and `cut` where nothing is streamed: `half_event` ends orderly but
    in the middle of an event, `end` between two events, `stall` goes on never, and `error` tells of `problem`.
    """

    how: Literal["drop", "cut", "half_event", "end", "stall", "error"]
    lost: Answer | None = None
    """The answer that nobody gets; it is billed as one that came."""
    problem: "Problem | None" = None


Behaviour = Answer | Problem | Body | Broken

PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"

NAMED: dict[str, Behaviour] = {
    "text": Answer(text="All done."),
    "empty": Answer(),
    "truncated": Answer(text="The answer goes on and", stop="truncated"),
    "truncated-calls": Answer(calls=(Call("get_weather", '{"city":"Ro'),), stop="truncated"),
    "refuse": Answer(text="I cannot help with that.", stop="refused"),
    "filtered": Answer(stop="filtered"),
    "pause": Answer(text="Searching", stop="paused"),
    "window": Answer(text="part", stop="window"),
    "no-usage": Answer(text="All done.", usage=False),
    "unknown-item": Answer(text="All done.", unknown_item=True),
    "slow": Answer(text="All done.", delay=30.0),
    "rate-limit": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "7"}),
    "rate-limit-ms": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after-ms": "1500", "retry-after": "9"}),
    "rate-limit-long": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "3600"}),
    "rate-limit-bare": Problem(429, "rate_limit_exceeded", "Slow down."),
    "rate-limit-brief": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "0.2"}),
    "rate-limit-far": Problem(
        429, "rate_limit_exceeded", "Slow down.", {"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}
    ),
    "rate-limit-odd": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "soon"}),
    "rate-limit-negative": Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "-5"}),
    "quota": Problem(429, "insufficient_quota", "You exceeded your current quota."),
    "broke": Problem(402, "payment_required", "Add credits."),
    "error": Problem(500, "server_error", "Something broke."),
    "overloaded": Problem(529, "overloaded_error", "Overloaded"),
    "unavailable": Body(PAGE, status=503),
    "timeout": Problem(408, "timeout", "Took too long."),
    "conflict": Problem(409, "conflict", "Try again."),
    "final-error": Problem(500, "server_error", "Do not ask again.", {"x-should-retry": "false"}),
    "soft-error": Problem(400, "odd", "Ask again.", {"x-should-retry": "true"}),
    "bad-request": Problem(400, "invalid_value", "Unknown field 'frobnicate'."),
    "context": Problem(400, "context_length_exceeded", "maximum context length is 8192 tokens"),
    "too-large": Problem(413, "request_too_large", "Request exceeds the maximum size"),
    "azure-filter": Problem(400, "content_filter", "The prompt was filtered."),
    "unauthorized": Problem(401, "invalid_api_key", "Incorrect API key provided."),
    "missing": Problem(404, "model_not_found", "The model does not exist."),
    "html": Body(PAGE),
    "half-json": Body(b'{"id": "x", "output": [', content_type="application/json"),
    "list": Body(b"[1, 2]", content_type="application/json"),
    "drop": Broken("drop"),
    "cut": Broken("cut"),
    "plain": Answer(text="All done.", streams=False),
    "half-event": Broken("half_event"),
    "early-end": Broken("end"),
    "stall": Broken("stall"),
    "late-overload": Broken("error", problem=Problem(529, "overloaded_error", "Overloaded")),
}
"""Behaviours by the name of a model: `fake-quota` is out of quota."""


def named(model: str) -> Behaviour | None:
    """The behaviour of model `fake-<name>`; `fake-rate-limit-date` asks to wait until a minute from now."""
    name = model.removeprefix("fake-")
    if name == "rate-limit-date":
        return Problem(
            429, "rate_limit_exceeded", "Slow down.", {"retry-after": formatdate(time.time() + 60, usegmt=True)}
        )
    return NAMED.get(name) if model != name else None
