"""Words for how a run stands, which its model is told in place of what a cut leaves out.

Whatever is state is said from the state, and never summed up from the conversation.
"""

from collections.abc import Iterable

from mandate.workflows.contracts.request import Closed, Request
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import KEEP_IN_MIND, Tool
from mandate.workflows.rules import quantities, wording

STATE_CHARACTERS = 6_000
"""Of all but what the model keeps in mind."""
LINE_CHARACTERS = 240
EFFECTS, REQUESTS, CLOSED, REFUSED = 20, 20, 10, 5
"""Entries of each kind that are told, the newest."""

FACTS = 20
FACT_CHARACTERS = 500


def is_keeping(tool: Tool) -> bool:
    """Tell whether `tool` is the built-in one that keeps a fact in mind."""
    return tool.source == "builtin" and tool.name == KEEP_IN_MIND


def keep_fact(facts: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Return `facts` with `text` as the newest; one that is there already becomes the newest, the oldest may go."""
    fact = wording.shorten(text, FACT_CHARACTERS)
    return (*(other for other in facts if other != fact), fact)[-FACTS:]


def write_state(state: RunState) -> str:
    """Return how the run stands: facts to keep in mind, effects, requests, refusals, limits and usage."""
    facts = _write_list("Keep in mind, as you asked for:", state.kept_in_mind)
    # The first are the last to be left out where there is no room.
    paragraphs = (
        _write_list(_count_effects(state), map(_describe_effect, state.effects.last[-EFFECTS:])),
        _write_list("It is unknown whether these happened:", map(_describe_effect, _list_uncertain(state))),
        _write_list("Open requests to people:", map(_describe_request, state.people.open[-REQUESTS:])),
        _describe_limits(state),
        _write_list("What people decided lately:", map(_describe_closed, state.people.closed[-CLOSED:])),
        _write_list("Refused by people, not to be asked for again:", list(state.recovery.refused.values())[-REFUSED:]),
    )
    told = "\n\n".join(filter(None, paragraphs))
    if len(told) > STATE_CHARACTERS:
        told = f"{told[: STATE_CHARACTERS - 1]}…"
    return "\n\n".join(filter(None, (facts, told)))


def _write_list(title: str, lines: Iterable[str]) -> str:
    told = [f"- {wording.shorten(line, max(LINE_CHARACTERS, FACT_CHARACTERS))}" for line in lines]
    return "\n".join((title, *told)) if told else ""


def _count_effects(state: RunState) -> str:
    shown = min(state.effects.count, EFFECTS)
    if state.effects.count > shown:
        return f"Done so far: {state.effects.count} calls that changed the world, the last {shown} of them:"
    return "Done so far, and not to be done again:"


def _describe_effect(entry: EffectEntry) -> str:
    undone = ", which took back an earlier call" if entry.undoes is not None else ""
    reason = f" ({entry.reason})" if entry.reason else ""
    return wording.shorten(f"step {entry.step}: {entry.call}{undone}{reason}", LINE_CHARACTERS)


def _list_uncertain(state: RunState) -> list[EffectEntry]:
    own = (*state.uncertain, *(unclear.entry for unclear in state.unclear.values()))
    return [*state.uncertain_below, *own][-EFFECTS:]


def _describe_request(request: Request) -> str:
    return wording.shorten(f"{request.id}, {request.kind}: {request.title}", LINE_CHARACTERS)


def _describe_closed(closed: Closed) -> str:
    return wording.shorten(f"{closed.id}, {closed.kind}: {closed.outcome}; {closed.reason}", LINE_CHARACTERS)


def _describe_limits(state: RunState) -> str:
    budget = state.budget or state.agent.budget
    limit = f"Step {state.step} of at most {budget.steps}; so far {wording.describe_usage(state.usage)}."
    most = [quantities.count_noun(budget.tokens, "token")] if budget.tokens is not None else []
    most += [f"${budget.cost_usd:f}"] if budget.cost_usd is not None else []
    return f"{limit} The run may use at most {' and '.join(most)}." if most else limit
