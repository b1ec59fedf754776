"""Prompts and adapters for tests of the model providers."""

from collections.abc import Callable, Iterable
from datetime import timedelta

from mandate.activities.providers.anthropic import AnthropicMessages
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.openai_chat import OpenAiChat
from mandate.activities.providers.openai_responses import OpenAiResponses
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import JsonObject, digest_of
from mandate.workflows.contracts.tool import PythonBinding, Tool, ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, TextPart, UserMessage
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES

Adapter = OpenAiResponses | OpenAiChat | AnthropicMessages
KEY = "sk-secret-0123456789"

ADAPTERS: dict[str, Callable[[str], Adapter]] = {
    RESPONSES: lambda url: OpenAiResponses(api_key=KEY, base_url=f"{url}/v1"),
    CHAT: lambda url: OpenAiChat(api_key=KEY, base_url=f"{url}/v1"),
    MESSAGES: lambda url: AnthropicMessages(api_key=KEY, base_url=url),
}
"""By protocol; each is made for a server's URL."""

CITY: JsonObject = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


def tool(name: str, schema: JsonObject | None = None) -> ToolDefinition:
    return ToolDefinition(
        tool=Tool(name=name, source="python"),
        description=f"What {name} does",
        input_schema=schema if schema is not None else CITY,
        binding=PythonBinding(kind="python", function=f"shop:{name}"),
    )


TOOLS = (tool("get_weather"), tool("note", {"type": "object"}))


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def results(answer: AssistantMessage, text: str = "21C", *, note: str = "") -> UserMessage:
    """A result for each call of `answer`."""
    parts = tuple(
        ResultPart(kind="result", call_id=call.call_id, tool=call.tool, text=text, error=index > 0)
        for index, call in enumerate(answer.calls)
    )
    return UserMessage(role="user", parts=(*parts, *((TextPart(kind="text", text=note),) if note else ())))


QUESTION = told("What is the weather?")


def prompt(
    messages: Conversation | Iterable[Message] = (QUESTION,),
    *,
    model: str = "fake",
    tools: tuple[ToolDefinition, ...] = TOOLS,
    instructions: str = "You answer with the weather. Ünïcode",
    timeout: float = 30.0,
    attempt: int = 1,
    params: JsonObject | None = None,
) -> Prompt:
    names = ",".join(definition.tool.name for definition in tools)
    return Prompt(
        model=model,
        instructions=instructions,
        tools=tools,
        agent=digest_of(f"{instructions}|{names}".encode(errors="replace")),
        conversation=messages if isinstance(messages, Conversation) else Conversation(tuple(messages)),
        max_output_tokens=4096,
        timeout=timedelta(seconds=timeout),
        attempt=attempt,
        params=params or {},
    )
