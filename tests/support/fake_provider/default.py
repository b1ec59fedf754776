"""The answer to a request for which nothing else is said."""

import json
from typing import Any

from tests.support.fake_provider.behaviours import MESSAGES, RESPONSES, Answer, Call
from tests.support.fake_provider.requests import Request


async def default_answer(request: Request) -> Answer:
    """Return two calls of the first tool offered, in parallel, once after each text; else a text."""
    protocol, document = request.protocol, request.json
    last = document["input" if protocol == RESPONSES else "messages"][-1]
    said = last["content"][-1]["type"] == "text" if protocol == MESSAGES else last.get("role") == "user"
    if not said or not document.get("tools"):
        return Answer(text="All done.")
    tool = document["tools"][0]
    tool = tool.get("function", tool)
    schema = tool.get("parameters") or tool.get("input_schema")
    calls = tuple(
        Call(tool["name"], json.dumps({name: _sample(schema, name, n) for name in schema.get("required", ())}))
        for n in (1, 2)
    )
    return Answer(text="Let me see.", calls=calls)


def _sample(schema: dict[str, Any], name: str, number: int) -> object:
    samples = {"integer": number, "number": number + 0.5, "boolean": True, "array": [], "object": {}}
    return samples.get(schema["properties"].get(name, {}).get("type"), f"{name} {number}")
