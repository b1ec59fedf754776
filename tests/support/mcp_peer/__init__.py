"""An MCP server as a process, whose behaviour its arguments choose: `python -m tests.support.mcp_peer KIND ...`.

- `good stdio|PORT [JOURNAL]`: tools of every sort on the SDK, and a journal of their calls.
- `faults`: tools over the tool server of the crash suite, over stdio.
- `hostile WAY[,WAY...]`: the worst that a server can do, over stdio, on the standard library alone.
- `keys`: the idempotency key that came with a call, for the first two.
"""

import sys

COMMAND = (sys.executable, "-m", "tests.support.mcp_peer")
"""Starts it, from the project's folder."""
