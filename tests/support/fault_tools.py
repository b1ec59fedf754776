"""Python tools over the fault server; a 503 says that nothing was done yet, any other failure leaves it open."""

from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from tests.support import fault_client


def _call(name: str, task: str, item: str, context: ToolContext) -> str:
    try:
        return fault_client.call(name, task, item, context.idempotency_key)
    except fault_client.Busy as busy:
        raise NotDone(str(busy), retry_after=busy.retry_after) from None


@tool(effect="read", timeout="60s")
def look_python(task: str, item: str, context: ToolContext) -> str:
    """Look something up."""
    return _call("look_python", task, item, context)


@tool(effect="idempotent", timeout="60s")
def set_python(task: str, item: str, context: ToolContext) -> str:
    """Set something."""
    return _call("set_python", task, item, context)


@tool(effect="keyed", timeout="60s")
def pay_python(task: str, item: str, context: ToolContext) -> str:
    """Pay something."""
    return _call("pay_python", task, item, context)


@tool(effect="once", timeout="60s")
def send_python(task: str, item: str, context: ToolContext) -> str:
    """Send something."""
    return _call("send_python", task, item, context)
