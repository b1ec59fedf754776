"""Model providers: one answer to one conversation."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.model import Finish, Usage
from mandate.workflows.contracts.route import Price
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to one model."""

    model: str
    """The name after `provider:`."""
    instructions: str
    tools: tuple[ToolDefinition, ...]
    agent: Digest
    """Of the pinned agent: `instructions` and `tools` are functions of it, so what is made of them can be cached."""
    conversation: Conversation
    max_output_tokens: int
    timeout: timedelta
    """For the whole call, whatever the provider's gaps between bytes."""
    attempt: int
    """1 for the first attempt of this request."""
    is_last: bool = False
    """The model may call no tools any more; they are offered all the same, so that requests begin alike."""
    price: Price | None = None
    """The price that the run has pinned; `None`: the list price of the day."""
    has_others: bool = False
    """Another model is asked if this one gives no answer."""
    params: JsonObject = field(default_factory=dict)
    """Request fields of the vendor, as the agent file has them."""
    on_text: Callable[[str], None] | None = None
    """Told of each piece of the answer's text as it comes, in order; set where somebody may read along."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer."""

    message: AssistantMessage
    finish: Finish
    usage: Usage
    """Of this call; `model_calls` is 1, and an unknown price is one of `unpriced_calls`."""
    problem: str | None = None
    """The reason why `finish` is `truncated`, `refused` or `empty`: one sentence for people and for the model."""
    answered_by: str = ""
    """Model that answered, as the provider names it; empty where it does not."""


class Provider(Protocol):
    """Provider of models, safe for concurrent calls; made once a worker, on its event loop."""

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask a model; raise only the `ApplicationError` of `failures.make_model_failure`."""
        ...

    async def close(self) -> None: ...


GetProvider = Callable[[str], Awaitable[Provider]]
"""The provider of a name; raises `ApplicationError` when the worker has none."""

MakeProvider = Callable[[], Awaitable[Provider]]
