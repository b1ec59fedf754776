"""Size of what a run is asked and told: Temporal carries only so much in one piece."""

import pydantic_core
from pydantic import JsonValue

from mandate.workflows.contracts.base import canonical_json
from mandate.workflows.contracts.request import VALUE_BYTES
from mandate.workflows.rules import plain_text

INPUT_BYTES = 2_000_000
"""Most that what is asked takes as JSON. Temporal carries 2 MiB, with all that stands beside it in a start request."""

PAYLOAD_BYTES = 2 * 1024 * 1024 - 1024
"""Most that the input of one activity takes as JSON, with room for its mark."""

WAY = "put it into a file that a tool of the agent reads, and ask for that"

VALUE_WAY = "put it into a file that a tool of the agent reads, and name that file"


def measure(value: JsonValue) -> int:
    """Return the bytes of a value as our converter writes it."""
    content = pydantic_core.to_json(value)
    if content.isascii() and b"\x7f" not in content:
        return len(content)
    return len(plain_text.escape_json(content.decode()).encode())


def find_excess(asked: JsonValue) -> str | None:
    """Return why that is too much to ask a run in one piece, in words that go on after `input: `; or `None`."""
    size = measure(asked)
    return describe_excess(f"{size:,}") if size > INPUT_BYTES else None


def describe_excess(size: str) -> str:
    return f"has {size} bytes as JSON, and a run is asked at most {INPUT_BYTES:,}; {WAY}"


def find_value_excess(value: JsonValue) -> str | None:
    """Return why a decision's value is too large, in words that go on after `value: `; or `None`."""
    size = len(canonical_json(value))
    if size <= VALUE_BYTES:
        return None
    return f"has {size:,} bytes as JSON; at most {VALUE_BYTES:,} are allowed; {VALUE_WAY}"
