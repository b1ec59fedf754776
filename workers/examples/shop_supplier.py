"""Tool of the demo's team whose other side never answers: a failure that costs no other agent anything."""

from mandate import ToolContext, tool
from mandate.workers.examples.shop import Sku

SILENT_SECONDS = 60.0


@tool(effect="read", timeout="90s")
def ask_supplier(sku: Sku, context: ToolContext) -> str:
    """Ask the supplier when an article comes in again."""
    context.wait(SILENT_SECONDS)
    raise ConnectionError(f"the supplier's server did not answer; nobody knows when {sku} comes in")
