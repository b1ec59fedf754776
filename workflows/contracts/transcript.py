"""The conversation: provider-neutral messages in a chain of content-addressed segments."""

from typing import Annotated, Literal

from pydantic import Field

from mandate.workflows.contracts.base import Digest, Record
from mandate.workflows.contracts.tool import CacheHit

Protocol = Literal["openai.responses", "openai.chat", "anthropic.messages", "scripted", "runtime"]
"""`runtime` is what no model said: calls that take back what a stopped run did."""


class TextPart(Record):
    kind: Literal["text"]
    text: str


class ResultPart(Record):
    """Answer to the call with this id, as the model was shown it."""

    kind: Literal["result"]
    call_id: str
    tool: str
    text: str
    error: bool = False
    digest: Digest | None = None
    """Address of the whole text when it is stored."""
    size: int | None = None
    cached: CacheHit | None = None
    """Set where another call's result was the answer."""


class CallPart(Record):
    kind: Literal["call"]
    call_id: str
    """The provider's own id."""
    tool: str
    arguments: str
    """JSON text exactly as the model wrote it; may be invalid."""


class RefusalPart(Record):
    kind: Literal["refusal"]
    text: str


class OpaquePart(Record):
    """Reasoning or anything else that only its provider understands; its content is in `native`."""

    kind: Literal["opaque"]
    type: str


class UserMessage(Record):
    """Message to the model: results first, then text."""

    role: Literal["user"]
    parts: tuple[Annotated[TextPart | ResultPart, Field(discriminator="kind")], ...]
    salt: str | None = Field(default=None, repr=False)
    """In the first message of a run with sensitive arguments: what their digests are keyed with; told to no model."""


class AssistantMessage(Record):
    """Answer of a model."""

    role: Literal["assistant"]
    parts: tuple[Annotated[TextPart | CallPart | RefusalPart | OpaquePart, Field(discriminator="kind")], ...]
    protocol: Protocol
    model: str
    """The name that was asked for, without the provider; not the snapshot that answered."""
    native: str | None = None
    """The provider's items as JSON texts joined with commas: put into the next request to it as they are."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def calls(self) -> tuple[CallPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, CallPart))


Message = Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]


class TokenRates(Record):
    """Tokens that a model counts to one that our tokenizer counts; see `context.calibration`."""

    fixed: float
    """Of instructions and tools."""
    text: float
    """Of other texts."""
    native: float
    """Of what only its provider understands."""
    part: float
    """Tokens around each text, call, result and tool."""


class Measured(Record):
    """Size of the request that an answer is to, as its model reported it."""

    model: str
    """`provider:model`, since each counts in its own way."""
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    """Those of `output_tokens` that were reasoning."""
    messages: int | None = None
    """Messages of the request, which the answer follows; older workers leave it out."""
    rates: TokenRates | None = None
    """As the run knows them by then; older workers leave them out."""
    ratios: tuple[float, ...] = ()
    """Read by older workers: their own estimates are not corrected."""


class StoredResult(Record):
    """Result that a cut left out."""

    digest: Digest
    size: int


class EarlierCalls(Record):
    """Calls that cuts left out of a conversation, as far as later steps need them."""

    effects: dict[Digest, int] = {}
    """Number of calls that change the world, by their digest."""
    results: dict[str, StoredResult] = {}
    """By the beginning of the digest that names a result to the model."""


class EarlierPart(Record):
    """Address of `EarlierCalls`; each part has at least twice the entries of the one after it."""

    digest: Digest
    entries: int


class SummaryLine(Record):
    """Line of a summary, and what it was made from."""

    text: str
    sources: tuple[Digest, ...]
    """Segments of the chain; the line stays only as long as it is made from them anew."""


class LeftOut(Record):
    """Account of all that cuts left out so far."""

    answers: int = 0
    calls: dict[str, int] = {}
    """By tool."""
    results: tuple[str, ...] = ()
    """The newest results in words."""


class Cut(Record):
    """Beginning of the conversation as requests have it from here on, in place of all messages before."""

    messages: tuple[Message, ...]
    """First the run's goal as it was, then a note of the runtime with people's words, then what was kept."""
    number: int
    """Cuts of this conversation so far."""
    count: int
    """Messages in the chain up to here."""
    kept_from: int
    """Position in the chain of the segment from which on messages were kept."""
    earlier: tuple[EarlierPart, ...] = ()
    left_out: LeftOut = LeftOut()
    summary: tuple[SummaryLine, ...] = ()
    limit: int | None = None
    """Tokens that requests of this run must stay below, learned from a refusal of the model."""
    measured: Measured | None = None
    """Of the newest answer before it, by which what follows is estimated."""


class Segment(Record):
    """One link of the chain; its address is the sha256 of its encoded bytes.

    `spine` makes loading cheap. Written in base 16, `position` has digits d0 (lowest), d1, ...: `spine[0]` are the
    addresses of the last d0 segments, `spine[1]` those of the last d1 `Block`s of 16 segments, `spine[2]` those of
    the last d2 blocks of 16 such blocks, and so on. Together they reach every predecessor.
    """

    previous: Digest | None
    position: int
    agent: Digest
    """The pinned agent that the segment was written under."""
    spine: tuple[tuple[Digest, ...], ...] = ()
    messages: tuple[Message, ...]
    cut: Cut | None = None
    """Set where the conversation was cut, the segment's own messages included."""
    cut_at: int | None = None
    """Position of the newest cut before this segment: what stands before it is in no request."""
    measured: Measured | None = None
    """Of the answer in it."""
    seal: Digest | None = None
    """Keyed digest of the rest, in runs with a salt: the address tells nothing of sensitive arguments then."""


class Block(Record):
    """Addresses of 16 consecutive segments, or of 16 consecutive blocks of the level below."""

    level: int
    """1 for a block of segments."""
    children: tuple[Digest, ...]
