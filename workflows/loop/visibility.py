"""Visibility of a run in Temporal: search attributes, current details, memo."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import ATTRIBUTE_BYTES
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import budget_use, commands, decisions, plain_text, quantities, wording

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


REQUESTS_SHOWN = 5
"""Open requests that the current details show with the commands that answer them; the others have a line each."""

REQUESTS_LISTED = 60

REFUSALS_SHOWN = 5

CHILDREN_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """Status of a run, for lists."""

    status: str
    waits_for: tuple[str, ...]


def announce(state: RunState) -> None:
    """Make the run findable; once, when it begins."""
    updates: list[SearchAttributeUpdate[Any]] = [
        AGENT_NAME.value_set(state.agent.name),
        AGENT_VERSION.value_set(state.agent.version),
        AGENT_STATUS.value_set("running"),
    ]
    if state.requester is not None:
        updates.append(AGENT_REQUESTER.value_set(plain_text.make_plain(state.requester)))
    if state.labels:
        labels = [plain_text.make_plain(f"{name}={value}") for name, value in state.labels.items()]
        updates.append(AGENT_LABELS.value_set(labels))
    _upsert(state, updates)


def stand(state: RunState, standing: Standing) -> None:
    """Publish the status as in `AgentStatus="waiting"` and `AgentWaitingFor="finance"`."""
    waits: list[str] = []
    for name in standing.waits_for:
        if len(json.dumps([*waits, name])) > ATTRIBUTE_BYTES:
            break
        waits.append(name)
    _upsert(state, [AGENT_STATUS.value_set(standing.status), AGENT_WAITING_FOR.value_set(waits)])


def note_cost(state: RunState) -> None:
    _upsert(state, [AGENT_COST_USD.value_set(float(state.usage.cost_usd))])


def close(state: RunState, *, memo: bool = False) -> None:
    """Mark the run as done; with `memo`, leave there what a result would have told."""
    _upsert(
        state,
        [
            AGENT_STATUS.value_set("done"),
            AGENT_COST_USD.value_set(float(state.usage.cost_usd)),
            *([AGENT_WAITING_FOR.value_set([])] if state.people.made else []),
        ],
    )
    if memo:
        whole = state.model_copy(update={"uncertain": (*state.uncertain_below, *state.uncertain)})
        told = whole.model_dump(mode="json", include={"head", "step", "usage", "effects", "uncertain"})
        workflow.upsert_memo({"mandate": told})


def _upsert(state: RunState, updates: list[SearchAttributeUpdate[Any]]) -> None:
    known = [update for update in updates if update.key.name in state.agent.search_attributes]
    if known:
        workflow.upsert_search_attributes(known)


class Rendered:
    """Lines of open requests as they were last shown: of two hundred, a decision changes one."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, bool], tuple[Request, list[str]]] = {}

    def lines(self, request: Request, *, whole: bool) -> list[str]:
        known = self._lines.get((request.id, whole))
        # Requests are never changed in place.
        if known is None or known[0] is not request:
            known = (request, _request(request) if whole else [f"- `{request.id}` {_plain(request.title)}"])
            self._lines[request.id, whole] = known
        return known[1]

    def forget_closed(self, state: RunState) -> None:
        if len(self._lines) > 2 * len(state.people.open) + REQUESTS_LISTED:
            self._lines.clear()


def details(state: RunState, doing: str, rendered: Rendered) -> None:
    """Set the current details: bullets and code, since the UI runs tables together."""
    lines = [
        f"**{state.agent.name}** version `{state.agent.version}`, step {state.step} of at most {_limit_steps(state)}",
        "",
        *_place(state),
        f"Now: `{_code(doing)}`",
        "",
        *_model(state),
        *_children(state),
        *(f"- waits: `{_code(wait.line)}`" for wait in state.waits.values()),
        *([""] if state.waits else []),
        *_open_requests(state, rendered),
        "### Last steps",
        "",
        *(f"- `{_code(line)}`" for line in reversed(state.recent)),
        "",
        f"Used: {wording.describe_usage(state.usage)}",
        *_budget(state),
    ]
    if state.effects.count:
        times = quantities.count_times(state.effects.count)
        lines += ["", f"Changed the world {times}, last: `{_code(state.effects.last[-1].call)}`"]
    lines += [f"- **unknown outcome**: `{_code(entry.call)}`" for entry in state.uncertain]
    workflow.set_current_details("\n".join(map(_make_plain, lines)))


def _place(state: RunState) -> list[str]:
    """Describe where a child stands in its tree."""
    if state.child is None:
        return []
    root = workflow.info().root
    below = (
        f", at level {state.child.depth} below `{_code(root.workflow_id)}`" if root and state.child.depth > 1 else ""
    )
    return [f"Child of `{_code(state.child.parent)}`{below}", ""]


def _children(state: RunState) -> list[str]:
    """Describe the children that have not reported."""
    open_ones = sorted(state.children.items())
    lines = [
        f"- works: `{_code(child.id)}`: `{_code(wording.describe_call(call.tool, call.arguments, tool.sensitive))}`"
        for index, child in open_ones[:CHILDREN_SHOWN]
        for call in (state.calls[index],)
        if (tool := state.agent.tool(call.tool)) is not None
    ]
    if len(open_ones) > CHILDREN_SHOWN:
        lines.append(f"- and {len(open_ones) - CHILDREN_SHOWN} more children")
    return [*lines, ""] if lines else []


def _limit_steps(state: RunState) -> int:
    return state.budget.steps if state.budget is not None else state.step_limit


def _budget(state: RunState) -> list[str]:
    """Describe what is left of the limits of calls, where there are some and they are kept."""
    limits = state.budget or state.agent.budget
    if not budget_use.limits_calls(limits) or not Change.KEEPS_BUDGET.is_in(state.agent):
        return []
    use = budget_use.measure_use(state.ledger, limits, budget_use.Standing(step=state.step))
    told = budget_use.describe_use(use)
    return ["", f"Budget: {_plain(told)}"] if told else []


def _model(state: RunState) -> list[str]:
    """Describe the model that is asked and why, where there is a choice."""
    if not state.why_model or not (state.route or len(state.agent.models) > 1):
        return []
    model = state.model or (state.route[0].model if state.route else state.agent.models[0])
    return [f"Model: `{_code(model)}`: {_plain(state.why_model)}", ""]


@lru_cache(maxsize=256)
def _make_plain(lines: str) -> str:
    """Return `plain_text.make_plain_lines`; of two renderings in a row most lines are the same."""
    return plain_text.make_plain_lines(lines)


def _open_requests(state: RunState, rendered: Rendered) -> list[str]:
    """Describe the open requests: the question, who is asked, until when, how to answer; then refused decisions."""
    asked = state.people.open
    lines: list[str] = []
    for number, request in enumerate(asked[:REQUESTS_LISTED]):
        lines += rendered.lines(request, whole=number < REQUESTS_SHOWN)
    rendered.forget_closed(state)
    if len(asked) > REQUESTS_LISTED:
        lines.append(f"- and {len(asked) - REQUESTS_LISTED} more")
    if state.people.refused:
        lines += ["", f"Decisions that did not count: {state.people.refusals}, the last of them:", ""]
        lines += [
            f"- `{_code(refused.request)}` `{_code(refused.choice)}` by `{_code(refused.by)}`: {_plain(refused.reason)}"
            for refused in reversed(state.people.refused[-REFUSALS_SHOWN:])
        ]
    return [*lines, ""] if lines else []


def _request(request: Request) -> list[str]:
    until = f"until {decisions.format_time(request.expires_at)}, then {decisions.describe_expiry(request)}"
    lines = [
        f"### {request.id}: {_plain(request.title)}",
        "",
        f"- why: {_plain(request.reason)}",
        f"- waits for: `{_code(', '.join(request.waits_for))}`, {until}",
    ]
    lines += [
        f"- {recorded.choice} by `{_code(recorded.by)}`{f': {_plain(recorded.comment)}' if recorded.comment else ''}"
        for recorded in request.decisions
    ]
    lines += [f"- {_plain(line)}" for line in request.evidence]
    way = commands.list_ways(workflow.info().workflow_id, request)[0]
    others = ", ".join(f"`{choice}`" for choice in request.choices[1:])
    decision = commands.format_decision(request, way.choice)
    again = "if *Submit* does nothing, press it again: the form has moved"
    how = f"with this as data, your name put in (or {others}; {again})"
    return [
        *lines,
        f"- with Mandate: `{_code(way.mandate)}` (or {others})",
        f"- with Temporal's CLI: `{_code(way.temporal)}`",
        f"- here: *More Actions*, *Send an Update*, `decide`, {how}:",
        "",
        "```",
        decision,
        "```",
        "",
    ]


def _plain(text: str) -> str:
    """Return `text` on one line, without anything that Markdown or HTML would read."""
    line = wording.shorten(text, 300)
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>#|!" else sign for sign in line)


def _code(text: str) -> str:
    return text.replace("`", "'")
