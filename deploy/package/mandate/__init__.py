"""Mandate: AI agents as durable Temporal workflows that act within a mandate.

For tools: `tool`, `check`, `NotDone`, `ToolContext`. For programs: `connect`, `AgentClient`, `Decision`.
Each is loaded when it is first used: workflow code imports this package for every run, and tools need no client.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mandate.activities.checks.functions import check as check
    from mandate.activities.toolbox.context import NotDone as NotDone
    from mandate.activities.toolbox.context import ToolContext as ToolContext
    from mandate.activities.toolbox.decorator import tool as tool
    from mandate.workers.client.client import AgentClient as AgentClient
    from mandate.workers.client.client import connect as connect
    from mandate.workflows.contracts.request import Decision as Decision

_MODULES = {
    "AgentClient": "mandate.workers.client.client",
    "Decision": "mandate.workflows.contracts.request",
    "NotDone": "mandate.activities.toolbox.context",
    "ToolContext": "mandate.activities.toolbox.context",
    "check": "mandate.activities.checks.functions",
    "connect": "mandate.workers.client.client",
    "tool": "mandate.activities.toolbox.decorator",
}

__all__ = ["AgentClient", "Decision", "NotDone", "ToolContext", "check", "connect", "tool"]


def __getattr__(name: str) -> object:
    """Load a public name on its first use (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
