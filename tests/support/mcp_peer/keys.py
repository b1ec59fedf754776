"""Idempotency keys of calls, as Mandate sends them."""

from typing import Any

from mcp.server.mcpserver import Context


def sent_key(context: Context[Any, Any]) -> str | None:
    """Return the key that came with the call of `context`."""
    key = dict(context.request_context.meta or {}).get("mandate/idempotency-key")
    return None if key is None else str(key)
