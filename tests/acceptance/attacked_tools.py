"""A tool that writes down, in a file, each call that reaches it."""

import json
import os
from pathlib import Path

from mandate.activities.toolbox.decorator import ToolContext, tool

JOURNAL = "MANDATE_TEST_JOURNAL"


@tool(effect="keyed", timeout="20s")
def transfer(order: int, context: ToolContext, amount: float = 1.0) -> str:
    """Move money."""
    entry = {"run": context.workflow_id, "order": order, "amount": amount, "key": context.idempotency_key}
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    return f"moved {amount} for {order}"
