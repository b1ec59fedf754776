"""What people see of a run in Temporal: search attributes, current details, memo."""

from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from workflows.contracts.run import RunState
from workflows.rules import wording

AGENT_NAME = SearchAttributeKey.for_keyword("AgentName")
AGENT_VERSION = SearchAttributeKey.for_keyword("AgentVersion")
AGENT_STATUS = SearchAttributeKey.for_keyword("AgentStatus")
AGENT_REQUESTER = SearchAttributeKey.for_keyword("AgentRequester")
AGENT_WAITING_FOR = SearchAttributeKey.for_keyword_list("AgentWaitingFor")
AGENT_LABELS = SearchAttributeKey.for_keyword_list("AgentLabels")
AGENT_COST_USD = SearchAttributeKey.for_float("AgentCostUsd")

SEARCH_ATTRIBUTES = (
    AGENT_NAME,
    AGENT_VERSION,
    AGENT_STATUS,
    AGENT_REQUESTER,
    AGENT_WAITING_FOR,
    AGENT_LABELS,
    AGENT_COST_USD,
)


def announce(state: RunState) -> None:
    """Make the run findable; once, when it begins."""
    updates: list[SearchAttributeUpdate[Any]] = [
        AGENT_NAME.value_set(state.agent.name),
        AGENT_VERSION.value_set(state.agent.version),
        AGENT_STATUS.value_set("running"),
    ]
    if state.requester is not None:
        updates.append(AGENT_REQUESTER.value_set(state.requester))
    if state.labels:
        updates.append(AGENT_LABELS.value_set([f"{name}={value}" for name, value in state.labels.items()]))
    _upsert(state, updates)


def note_cost(state: RunState) -> None:
    _upsert(state, [AGENT_COST_USD.value_set(float(state.usage.cost_usd))])


def close(state: RunState, *, memo: bool = False) -> None:
    """Mark the run as done; with `memo`, leave there what a result would have told."""
    _upsert(state, [AGENT_STATUS.value_set("done"), AGENT_COST_USD.value_set(float(state.usage.cost_usd))])
    if memo:
        told = state.model_dump(mode="json", include={"head", "step", "usage", "effects", "uncertain"})
        workflow.upsert_memo({"mandate": told})


def _upsert(state: RunState, updates: list[SearchAttributeUpdate[Any]]) -> None:
    known = [update for update in updates if update.key.name in state.agent.search_attributes]
    if known:
        workflow.upsert_search_attributes(known)


def details(state: RunState, doing: str) -> None:
    """The current details: bullets and code, since the UI runs tables together."""
    lines = [
        f"**{state.agent.name}** `{state.agent.version}`, step {state.step} of at most {state.step_limit}",
        "",
        f"Now: `{_code(doing)}`",
        "",
        *(f"- `{_code(line)}`" for line in reversed(state.recent)),
        "",
        f"Used: {wording.usage(state.usage)}",
    ]
    if state.effects.count:
        times = "once" if state.effects.count == 1 else f"{state.effects.count} times"
        lines += ["", f"Changed the world {times}, last: `{_code(state.effects.last[-1].call)}`"]
    lines += [f"- **unknown outcome**: `{_code(entry.call)}`" for entry in state.uncertain]
    workflow.set_current_details("\n".join(lines))


def _code(text: str) -> str:
    return text.replace("`", "'")
