"""Task queues that clients rely on."""

AGENTS = "agents"
"""Where `AgentWorkflow` and its activities run unless a worker is told otherwise."""
