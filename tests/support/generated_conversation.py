"""Conversations that are drawn by lot, through the activity that calls the model and a protocol's own adapter.

The provider counts each request as the fakes of its protocol do. Nothing is sent anywhere.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.failures import make_model_failure
from mandate.activities.model import ModelActivities
from mandate.activities.providers import errors
from mandate.activities.providers.anthropic import AnthropicMessages
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.openai_chat import OpenAiChat
from mandate.activities.providers.openai_responses import OpenAiResponses
from mandate.activities.providers.rawjson import Raw
from mandate.activities.toolbox import builtin
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.backtrack import WayBack
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget, Grant
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelReply, ModelRequest, NotSent, Words
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.tool import Effect, PythonBinding, Tool, ToolDefinition
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from tests.support.fake_provider import tokens
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Call
from tests.support.fake_provider.bodies import render
from tests.support.memory_store import MemoryStore
from tests.support.texts import COMMON, write_words

PROVIDERS = {RESPONSES: "openai", CHAT: "vllm", MESSAGES: "anthropic"}
"""By protocol: names under which models are asked in it."""

WINDOWS = (6_000, 12_000, 40_000, 128_000)

_NOWHERE = "http://127.0.0.1:1"
_ADAPTERS: dict[str, OpenAiResponses | OpenAiChat | AnthropicMessages] = {
    RESPONSES: OpenAiResponses(api_key="none", base_url=_NOWHERE),
    CHAT: OpenAiChat(base_url=_NOWHERE),
    MESSAGES: AnthropicMessages(api_key="none", base_url=_NOWHERE),
}
_PEER = errors.Peer("fake", "m", _NOWHERE, 1, secrets=())
_AMPLE = Grant(input_tokens=10_000_000, output_tokens=4_000, attempts=3)


@dataclass(frozen=True, slots=True)
class Estimated:
    """Tokens of one request, as they were estimated and as they were counted."""

    estimate: int
    counted: int
    is_cut: bool
    is_back: bool
    """The conversation went back to an earlier step."""
    kinds: tuple[str, ...]
    """Of the texts that were new in it."""

    @property
    def ratio(self) -> float:
        return self.estimate / self.counted


@dataclass
class CountingProvider:
    """A model that says and calls something drawn by lot, and reports the tokens of each request."""

    protocol: str
    window: int
    dice: random.Random
    kinds: Sequence[str]
    answers: int = 0

    async def complete(self, prompt: Prompt) -> Completion:
        adapter = _ADAPTERS[self.protocol]
        counted = tokens.count_request(self.protocol, json.loads(adapter.request(prompt)))
        if counted > self.window:
            raise make_model_failure("context_length", "too long")
        self.answers += 1
        answer = self._answer(counted)
        body = Raw.read(render(self.protocol, prompt.model, self.answers, answer).decode())
        return adapter.read_answer(prompt, body, _PEER)

    async def close(self) -> None:
        pass

    def _answer(self, counted: int) -> Answer:
        dice = self.dice
        calls = tuple(
            Call(dice.choice(("look_up", "pay")), self._write_arguments(), id=f"call{self.answers}x{number}")
            for number in range(dice.choice((1, 1, 1, 2, 3, 8)))
        )
        text = write(dice, self.kinds, 5, 1_500) if dice.random() < 0.6 else ""
        answer = Answer(text=text, calls=calls, reasoning=dice.random() < 0.3)
        return Answer(answer.text, calls, answer.reasoning, tokens=(counted, 0, tokens.count_answer(answer)))

    def _write_arguments(self) -> str:
        dice = self.dice
        arguments: JsonObject = {"number": dice.randrange(1_000)}
        if (kind := dice.random()) < 0.2:
            arguments["text"] = write(dice, self.kinds, 5, 1_500)
        elif kind < 0.3:
            arguments["rows"] = [dice.randrange(1_000) for _ in range(_draw_size(dice, 2, 200))]
        separators = dice.choice(((",", ":"), (", ", ": ")))
        return json.dumps(arguments, ensure_ascii=dice.random() < 0.3, separators=separators)


def write(dice: random.Random, kinds: Sequence[str], shortest: int, longest: int) -> str:
    """A text of one of `kinds`, short ones as often as long ones."""
    return COMMON[dice.choice(kinds)](dice, _draw_size(dice, shortest, longest))


def _draw_size(dice: random.Random, shortest: int, longest: int) -> int:
    return round(math.exp(dice.uniform(math.log(shortest), math.log(longest))))


def _draw_agent(dice: random.Random, model: str, window: int) -> PinnedAgent:
    names = ("look_up", "pay", *(f"tool_{number}" for number in range(dice.randrange(6))))
    return PinnedAgent(
        name="a",
        instructions=write(dice, ("text", "text", *COMMON), 20, 3_000),
        models=(model,),
        route=(RoutePin(model=model, group=0, window=window),),
        tools=(*(_draw_tool(dice, name) for name in names), *builtin.DEFINITIONS),
        policy=(),
        context=ContextSpec(),
        max_output_tokens=1_000,
        output_schema=None,
        budget=Budget(),
        attempts=3,
    )


def _draw_tool(dice: random.Random, name: str) -> ToolDefinition:
    number: JsonObject = {"type": "integer", "description": write_words(dice, _draw_size(dice, 10, 200))}
    rows: JsonObject = {"type": "array", "items": {"type": "integer"}}
    return ToolDefinition(
        tool=Tool(name=name, source="python", effect=Effect.READ),
        description=write_words(dice, _draw_size(dice, 10, 600)),
        input_schema={
            "type": "object",
            "properties": {"number": number, "text": {"type": "string"}, "rows": rows},
            "required": ["number"],
        },
        binding=PythonBinding(kind="python", function=f"shop:{name}"),
    )


@dataclass
class GeneratedConversation:
    """One conversation: its agent, what people say, what the model answers and what tools return follow from a seed."""

    protocol: str
    seed: int
    window: int | None = None
    """Of the model; `None` draws it."""
    longest_result: int = 8_000
    """In characters."""
    requests: list[Estimated] = field(default_factory=list)

    async def run(self, calls: int) -> "GeneratedConversation":
        """Make so many model calls."""
        dice = random.Random(f"{self.protocol} {self.seed}")
        # Every second conversation is of one kind alone.
        kinds = [dice.choice(list(COMMON))] if self.seed % 2 else list(COMMON)
        window = self.window or dice.choice(WINDOWS)
        name = PROVIDERS[self.protocol]
        agent = _draw_agent(dice, f"{name}:m", window)
        blobs = Blobs(MemoryStore())
        transcript = TranscriptLog(blobs)
        provider = CountingProvider(self.protocol, window, dice, kinds)

        async def make() -> CountingProvider:
            return provider

        activities = ModelActivities({name: make}, PinnedAgents(blobs), transcript)
        (digest,) = await blobs.put(canonical_json(agent.model_dump(mode="json")))
        goal = UserMessage(role="user", parts=(TextPart(kind="text", text=write(dice, kinds, 10, 3_000)),))
        chain = await transcript.start(digest, goal)
        request = ModelRequest(agent=digest, head=chain.head, step=1, cuts=True, grant=_AMPLE)
        new: tuple[str, ...] = ("text",)
        for step in range(1, calls + 1):
            reply = await self._ask(activities, request, dice)
            if reply is None:
                break
            self.requests.append(
                Estimated(reply.estimate, reply.usage.input_tokens, reply.cut, request.back is not None, new)
            )
            new = tuple(dice.choice(kinds) for _ in reply.calls)
            longest = min(self.longest_result, window)
            told = [
                await results.store(blobs, write(dice, (kind,), 5, longest), error=dice.random() < 0.1) for kind in new
            ]
            words: tuple[Words, ...] = ()
            if dice.random() < 0.2:
                words = (Words(by="ann", text=write(dice, kinds, 5, 2_000)),)
            goes_back = step > 2 and dice.random() < 0.05
            request = ModelRequest(
                agent=digest,
                head=reply.head,
                step=step + 1,
                results=() if goes_back else tuple(told),
                back=WayBack(to=step - 2, note=write_words(dice, 100)) if goes_back else None,
                words=words,
                cuts=True,
                grant=_AMPLE,
            )
        return self

    async def _ask(self, activities: ModelActivities, request: ModelRequest, dice: random.Random) -> ModelReply | None:
        """Return the answer; `None` where nothing is left to cut."""
        call = activities.call_model
        try:
            try:
                return await ActivityEnvironment().run(call, request)
            except ApplicationError as error:
                if error.type != FailureType.NEEDS_STATE:
                    raise
                not_sent = error.details[0]
                assert isinstance(not_sent, NotSent)
                state = write_words(dice, _draw_size(dice, 10, 1_500))
                stated = request.model_copy(update={"state": state, "too_long": not_sent.too_long})
                return await ActivityEnvironment().run(call, stated)
        except ApplicationError as error:
            if error.type != FailureType.CONTEXT_TOO_LONG:
                raise
            return None
