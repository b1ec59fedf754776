"""The tool of the proof of sessions: it takes a while before and after the payment, so that runs end meanwhile."""

import random
import time

from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from tests.support import fault_client

LONGEST = 0.4
"""Seconds that it takes before the payment, and after it, at most."""


@tool(effect="keyed", timeout="60s")
def pay_slowly(task: str, item: str, context: ToolContext) -> str:
    """Pay something."""
    time.sleep(random.uniform(0.0, LONGEST))
    try:
        return fault_client.call("pay_slowly", task, item, context.idempotency_key)
    except fault_client.Busy as busy:
        raise NotDone(str(busy), retry_after=busy.retry_after) from None
    finally:
        time.sleep(random.uniform(0.0, LONGEST))
