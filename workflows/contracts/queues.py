"""Task queues that clients rely on."""

AGENTS = "agents"
"""Task queue of `AgentWorkflow` and its activities unless a worker is told otherwise."""
