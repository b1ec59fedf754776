"""Rules of each protocol's vendor for tools, in one table; those for conversations are in its adapter.

Each value is from the words of a refused request: one tool that is refused has every request of its agent refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mandate.workflows.contracts.transcript import Protocol

ROOT_KEYS = ("$ref", "allOf", "anyOf", "oneOf", "enum", "const", "not")
"""Keys that no vendor may be sent at the top of a tool's schema.

OpenAI: "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'const'/'not' at the top level".
Anthropic: "input_schema does not support oneOf, allOf, or anyOf at the top level". Servers of one's own that speak
OpenAI's protocol often stand before one of the two. A `$ref` would leave the top without the properties that it means.
"""


@dataclass(frozen=True, slots=True)
class VendorRules:
    """Rules of one vendor for tools."""

    most_tools: int | None = None
    """OpenAI: "Invalid 'tools': array too long. Expected an array with maximum length 128"."""
    argument_name: re.Pattern[str] | None = None
    """Anthropic: "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"; `None` where any name will do."""
    lists_need_items: bool = False
    """OpenAI: "In context=('properties', 'ids'), array schema missing items"."""


RULES: Mapping[Protocol, VendorRules] = {
    "openai.responses": VendorRules(most_tools=128, lists_need_items=True),
    "openai.chat": VendorRules(lists_need_items=True),
    "anthropic.messages": VendorRules(argument_name=re.compile(r"[a-zA-Z0-9_.-]{1,64}")),
}

PROTOCOLS: Mapping[str, Protocol] = {
    "openai": "openai.responses",
    "vllm": "openai.chat",
    "anthropic": "anthropic.messages",
}
"""By provider; scripts take every tool as it is."""


def find_count_fault(provider: str, protocol: Protocol, count: int) -> str | None:
    """Return why `provider` takes no request with `count` tools, or `None` when it does."""
    most = RULES[protocol].most_tools
    if most is None or count <= most:
        return None
    return f"{provider} takes at most {most} tools, and this agent has {count}, built-in ones included"
