"""Limits of what a model is sent: its window, and where its price rises."""

from dataclasses import dataclass

from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.route import RoutePin

UNKNOWN_WINDOW = 128_000
"""Window of a model of which nobody knows it: the smallest of those that are sold with tools today."""
DEFAULT_SHARE = 0.75
AIM = 0.5
"""Share of the limit that a cut makes room down to, so that cuts are rare."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens that one model takes."""

    window: int
    most: int
    """Input beside the longest answer."""
    limit: int
    """Input at which the conversation is cut."""


def find_limits(agent: PinnedAgent, model: str, learned: int | None = None) -> Limits | None:
    """Return the limits of `model` for an agent; `None` where a script plays it, which takes all.

    `learned` is what the model itself turned out to take in this run.
    """
    entry = next((entry for entry in agent.route if entry.model == model), None)
    window = entry.window if entry is not None else None
    if window is None:
        if model.startswith("scripted:"):
            return None
        window = UNKNOWN_WINDOW
    answer = (entry.max_output_tokens if entry is not None else None) or agent.max_output_tokens
    most = max(window - answer, window // 2)
    limit = min(int((agent.context.limit or DEFAULT_SHARE) * window), most)
    edge = _find_edge(entry) if agent.context.limit is None else None
    limit = limit if edge is None else min(limit, edge)
    return Limits(window, most, limit if learned is None else min(limit, learned))


def _find_edge(entry: RoutePin | None) -> int | None:
    """Return the size of input above which all of a call costs more."""
    if entry is None or entry.price is None:
        return None
    edges = [rates.above for rates in entry.price.tiers if rates.above > 0]
    return min(edges) if edges else None
