"""Limits of what a model is sent: its window, and where its price rises."""

from dataclasses import dataclass

from mandate.activities.context import tokenizer
from mandate.activities.context.sizes import measure_agent, measure_message
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.transcript import Message

UNKNOWN_WINDOW = 128_000
"""Window of a model of which nobody knows it: the smallest of those that are sold with tools today."""
DEFAULT_SHARE = 0.75
LEAST = 0.6
"""Share of what our tokenizer counts that another one counts at least, or any for tools, which it is told otherwise."""
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


def find_excess(agent: PinnedAgent, goal: Message) -> str | None:
    """Return why no model of the route takes a run's first message, in one sentence; `None` if one may take it.

    A text is not refused for tokens that it may not have: its least likely count must be too large.
    """
    found = [(limits, entry) for entry in agent.models if (limits := find_limits(agent, entry)) is not None]
    if len(found) < len(agent.models):
        return None
    widest, model = max(found, key=lambda pair: pair[0].most)
    always = round(measure_agent(agent).total * LEAST)
    goal_size = round(measure_message(goal).total * (1.0 if tokenizer.fits(model) else LEAST))
    if always + goal_size <= widest.most:
        return None
    if always > widest.most // 2:
        return (
            f"instructions, pinned texts and tools have about {always:,} tokens, and the input "
            f"about {goal_size:,}; {model!r} takes {widest.most:,} beside its answer, of a window "
            f"of {widest.window:,}. Give the agent fewer tools or a shorter text"
        )
    return (
        f"the input has about {goal_size:,} tokens, and instructions and tools about "
        f"{always:,}; {model!r} takes {widest.most:,} beside its answer, of a window of "
        f"{widest.window:,}. Put the text into a file, give the agent a tool that reads parts of it, and name the file "
        "in the input"
    )


def _find_edge(entry: RoutePin | None) -> int | None:
    """Return the size of input above which all of a call costs more."""
    if entry is None or entry.price is None:
        return None
    edges = [rates.above for rates in entry.price.tiers if rates.above > 0]
    return min(edges) if edges else None
