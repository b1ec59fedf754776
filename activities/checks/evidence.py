"""Evidence for a model that checks work: what was asked for, what was done, nothing of how the agent argues."""

import json
from collections.abc import Iterator

from pydantic import JsonValue

from mandate.activities.checks.subject import Work
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript.conversation import NOTE, Conversation
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage
from mandate.workflows.rules import redaction

GOAL_CHARACTERS = 8_000
WORDS_CHARACTERS = 4_000
"""Of what people said later, the newest kept."""
ARGUMENTS_CHARACTERS = 4_000
RESULT_CHARACTERS = 32_000
"""Of the answer or of the one result that is checked."""
EARLIER_CHARACTERS = 4_000
"""Of each result that an answer rests on."""
ALL_EARLIER_CHARACTERS = 64_000


def collect(work: Work) -> str:
    """Return the evidence as one JSON object, of at most about 120,000 characters."""
    shown: JsonObject = {"goal": cut(_goal(work.conversation), GOAL_CHARACTERS)}
    if words := _words(work.conversation):
        shown["people_said"] = words
    if work.definition is not None:
        shown["call"] = {"tool": work.definition.tool.name, "arguments": _mask(work.args, work.definition)}
        shown["result"] = cut(strike_sensitive(work.text, work.definition.tool, work.args), RESULT_CHARACTERS)
    else:
        shown["answer"] = cut(work.text, RESULT_CHARACTERS)
        shown |= _list_calls(work.agent, work.conversation)
    return json.dumps(shown, ensure_ascii=False)


def cut(text: str, limit: int) -> str:
    """Return `text`, or its beginning and how much of it is missing."""
    return text if len(text) <= limit else f"{text[:limit]} [... {len(text) - limit} more characters are not shown]"


def _goal(conversation: Conversation) -> str:
    first = conversation[0] if len(conversation) else None
    return "\n".join(_texts(first)) if isinstance(first, UserMessage) else ""


def _words(conversation: Conversation) -> list[JsonValue]:
    """Return the texts of people after the first, oldest first, the newest kept; none of the runtime's."""
    kept: list[JsonValue] = []
    left = WORDS_CHARACTERS
    for message in reversed(list(conversation)[1:]):
        texts = _texts(message) if isinstance(message, UserMessage) else []
        for text in reversed([text for text in texts if not text.startswith(NOTE)]):
            if left <= 0:
                return kept[::-1]
            kept.append(cut(text, left))
            left -= len(text)
    return kept[::-1]


def _texts(message: UserMessage) -> list[str]:
    return [part.text for part in message.parts if isinstance(part, TextPart)]


def _list_calls(agent: PinnedAgent, conversation: Conversation) -> JsonObject:
    """Return the calls of the run with their results, oldest first; of too many the oldest are left out."""
    kept: list[JsonValue] = []
    left, total = ALL_EARLIER_CHARACTERS, 0
    for call, result in _pair_calls(conversation):
        total += 1
        entry = _call(agent, call, result)
        size = len(json.dumps(entry, ensure_ascii=False))
        if size <= left:
            kept.append(entry)
        left -= size
    shown: JsonObject = {"tool_results": kept[::-1]}
    return shown | ({"earlier_results_left_out": total - len(kept)} if len(kept) < total else {})


def _pair_calls(conversation: Conversation) -> Iterator[tuple[CallPart, ResultPart]]:
    """Yield each call with its result, newest first."""
    results: dict[str, ResultPart] = {}
    for message in reversed(list(conversation)):
        if isinstance(message, UserMessage):
            results = {part.call_id: part for part in message.parts if isinstance(part, ResultPart)}
        elif isinstance(message, AssistantMessage):
            yield from ((call, results[call.call_id]) for call in reversed(message.calls) if call.call_id in results)
            results = {}


def _call(agent: PinnedAgent, call: CallPart, result: ResultPart) -> JsonObject:
    definition = agent.definition(call.tool)
    arguments, text = _read(call.arguments), result.text
    if isinstance(arguments, dict) and definition is not None:
        text = strike_sensitive(text, definition.tool, arguments)
        written: JsonValue = _mask(arguments, definition)
    else:
        is_hidden = definition is not None and bool(definition.tool.sensitive)
        written = redaction.HIDDEN if is_hidden else cut(call.arguments, ARGUMENTS_CHARACTERS)
    entry: JsonObject = {"tool": call.tool, "arguments": written, "result": cut(text, EARLIER_CHARACTERS)}
    return entry | ({"failed": True} if result.error else {})


def _read(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _mask(arguments: JsonObject, definition: ToolDefinition) -> JsonValue:
    """Return `arguments` without the sensitive ones, as text where they are long."""
    seen = redaction.mask(arguments, definition.tool.sensitive)
    written = json.dumps(seen, ensure_ascii=False)
    return seen if len(written) <= ARGUMENTS_CHARACTERS else cut(written, ARGUMENTS_CHARACTERS)
