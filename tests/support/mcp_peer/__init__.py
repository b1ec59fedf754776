"""An MCP server as a process, whose behaviour its arguments choose: `python -m tests.support.mcp_peer KIND ...`.

- `good stdio|PORT [JOURNAL]`: tools of every sort on the SDK, and a journal of their calls.
- `asking stdio|PORT JOURNAL`: tools on the SDK that ask people before they act, and a journal of what they did.
- `faults`: tools over the tool server of the crash suite, over stdio.
- `planned`: answers by a plan in its environment, over stdio, and a journal of all messages.
- `oversized LIMIT`: answers that are longer than so many bytes, over stdio.
- `hostile WAY[,WAY...]`: the worst that a server can do, over stdio.
- `keys`: the idempotency key that came with a call, for the first two.

The last three run on the standard library alone.
"""

import sys

COMMAND = (sys.executable, "-m", "tests.support.mcp_peer")
"""Starts it, from the project's folder."""
BARE_COMMAND = (sys.executable, "-S", *COMMAND[1:])
"""Starts it without other packages, and so at once."""
