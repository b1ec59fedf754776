"""Metrics of facts, on the port where the Temporal SDK serves its own.

Counts are of this process, as Prometheus wants them: the sum over workers and their restarts is `increase()`. Labels
never name a run, a request or a person, and hold a bounded number of values: what a client or a model can name freely
is `other` from `MOST_VALUES` on.
"""

from collections.abc import Iterable, Mapping
from typing import assert_never

from temporalio.common import MetricMeter

from mandate.workers.telemetry.conventions import split_model
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.telemetry import (
    CallJudged,
    CheckMade,
    ChildBegun,
    ChildEnded,
    DecisionTaken,
    MessageTaken,
    ModelCalled,
    Noted,
    PlanAdvanced,
    ProbeMade,
    RequestAsked,
    RequestClosed,
    RequestEscalated,
    RunBegun,
    RunEnded,
    ToolCalled,
)

MOST_VALUES = 200
"""Values of one label in one process."""

OTHER = "other"

OUTCOMES = ("completed", "stopped", "exhausted", "declined", "failed", "cancelled")

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
LONG_SECONDS = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 259200.0, 604800.0)
TOKENS = (64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)
USD = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)

BUCKETS = {
    "mandate_run_seconds": LONG_SECONDS,
    "mandate_run_steps": STEPS,
    "mandate_model_cost_usd": USD,
    "mandate_tool_seconds": SECONDS,
    "mandate_check_seconds": SECONDS,
    "mandate_request_wait_seconds": LONG_SECONDS,
    "mandate_store_seconds": STORE_SECONDS,
    "gen_ai_client_operation_duration_seconds": SECONDS,
    "gen_ai_client_token_usage": TOKENS,
}
"""Upper bounds of the buckets of each histogram."""

COUNTERS = {
    "mandate_runs_started": "Runs that began.",
    "mandate_runs": "Runs that ended, by outcome.",
    "mandate_model_calls": "Model calls, by how their answers ended or the type of their failure.",
    "mandate_tokens": "Tokens of model calls: input (with what was cached), cached, cache_write, output, reasoning.",
    "mandate_model_lost_attempts": "Attempts of model calls whose answers were lost.",
    "mandate_tool_calls": "Calls of tools, by outcome.",
    "mandate_tool_attempts": "Attempts of calls of tools.",
    "mandate_uncertain_effects": "Effects whose outcome was unknown when they were tried.",
    "mandate_verdicts": "Verdicts of policy.",
    "mandate_checks": "Checks, by finding.",
    "mandate_requests": "Requests to people.",
    "mandate_request_ends": "Requests to people that ended, by outcome.",
    "mandate_decisions": "Decisions of people; those that were refused do not count.",
    "mandate_escalations": "Times that a run could not go on by itself, or a request went on to the next people.",
    "mandate_children": "Children that ended, by status.",
    "mandate_messages": "Messages of people that are no decisions.",
}
HISTOGRAMS = {
    "mandate_run_seconds": "Time of runs, waits for people included.",
    "mandate_run_steps": "Steps of runs.",
    "mandate_model_cost_usd": "Cost of model calls whose price is known.",
    "mandate_tool_seconds": "Time of calls of tools, all attempts together.",
    "mandate_check_seconds": "Time of checks.",
    "mandate_request_wait_seconds": "Time until requests to people ended.",
    "mandate_store_seconds": "Time of the store's answers.",
    "gen_ai_client_operation_duration_seconds": "Time of model calls.",
    "gen_ai_client_token_usage": "Tokens of one model call.",
}
GAUGES = {
    "mandate_requests_open": "Requests that people have not answered; told by one worker of the queue.",
    "mandate_request_oldest_seconds": "Age of the oldest of them.",
    "mandate_breaker_open": "1 while this worker does not ask a model since its provider is down.",
    "mandate_budget_spent_usd": "Spent in the current periods of a budget beyond runs; told by one worker.",
    "mandate_budget_held_usd": "Held in them for calls that are under way.",
    "mandate_budget_used_ratio": "Share that is spent or held of the account of it that is used up most.",
}


class Labels:
    """Values of labels, of which there are so many and no more."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def bound(self, labels: dict[str, str]) -> dict[str, str]:
        return {name: self._bound(name, value) for name, value in labels.items()}

    def _bound(self, name: str, value: str) -> str:
        known = self._known.setdefault(name, set())
        if value in known:
            return value
        if len(known) >= MOST_VALUES:
            return OTHER
        known.add(value)
        return value


class Metrics:
    """Metrics of one worker process."""

    def __init__(self, meter: MetricMeter) -> None:
        self._labels = Labels()
        self._counters = {name: meter.create_counter(name, text) for name, text in COUNTERS.items()}
        self._histograms = {name: meter.create_histogram_float(name, text) for name, text in HISTOGRAMS.items()}
        self._gauges = {name: meter.create_gauge_float(name, text) for name, text in GAUGES.items()}

    def count(self, name: str, /, *, by: int = 1, **labels: str) -> None:
        self._counters[name].add(by, self._labels.bound(labels))

    def record(self, name: str, value: float, **labels: str) -> None:
        self._histograms[name].record(max(value, 0.0), self._labels.bound(labels))

    def set(self, name: str, value: float, **labels: str) -> None:
        self._gauges[name].set(value, self._labels.bound(labels))

    def begin(self, agents: Mapping[str, tuple[str, Iterable[str]]]) -> None:
        """Begin the counts of what is rare at 0: from nothing to 1 is no increase for Prometheus.

        `agents` are the version and the tools of each.
        """
        for agent, (version, tools) in agents.items():
            for outcome in OUTCOMES:
                self.count("mandate_runs", by=0, agent=agent, version=version, outcome=outcome)
            for kind in ("escalation", "outcome", "next_people"):
                self.count("mandate_escalations", by=0, agent=agent, kind=kind)
            for kind in ("approval", "question", "escalation", "outcome", "budget"):
                self.count("mandate_request_ends", by=0, agent=agent, kind=kind, outcome="expired")
            for tool in tools:
                self.count("mandate_uncertain_effects", by=0, agent=agent, tool=tool)

    def observe(self, noted: Noted) -> None:  # noqa: C901, PLR0912 - one case a kind of fact
        """Count a fact."""
        fact, agent = noted.fact, noted.fact.agent
        took = (noted.at - noted.began).total_seconds() if noted.began is not None else 0.0
        match fact:
            case RunBegun():
                if not fact.is_continued:
                    self.count("mandate_runs_started", agent=agent, version=fact.version)
            case RunEnded():
                self._observe_end(noted, fact)
            case ModelCalled():
                self._observe_model(fact, took)
            case CallJudged():
                self.count("mandate_verdicts", agent=agent, tool=fact.tool, verdict=fact.verdict)
            case ToolCalled():
                self._observe_tool(fact, took)
            case ProbeMade():
                self.count("mandate_checks", agent=agent, check="probe", finding=fact.outcome)
            case CheckMade():
                self.count("mandate_checks", agent=agent, check=fact.kind, finding=fact.finding)
                self.record("mandate_check_seconds", took, agent=agent, check=fact.kind)
                self._observe_usage(agent, "check", fact.usage)
            case RequestAsked():
                self.count("mandate_requests", agent=agent, kind=fact.kind)
                if fact.kind in {"escalation", "outcome"}:
                    self.count("mandate_escalations", agent=agent, kind=fact.kind)
            case RequestClosed():
                waited = (noted.at - fact.asked_at).total_seconds()
                self.count("mandate_request_ends", agent=agent, kind=fact.kind, outcome=fact.outcome)
                self.record("mandate_request_wait_seconds", waited, agent=agent, kind=fact.kind, outcome=fact.outcome)
            case RequestEscalated():
                self.count("mandate_escalations", agent=agent, kind="next_people")
            case DecisionTaken():
                counts = "true" if fact.counts else "false"
                self.count("mandate_decisions", agent=agent, kind=fact.kind, via=fact.via, counts=counts)
            case ChildBegun() | PlanAdvanced():
                pass
            case ChildEnded():
                self.count("mandate_children", agent=agent, status=fact.status)
            case MessageTaken():
                self.count("mandate_messages", agent=agent, verb=fact.verb)
            case _:
                assert_never(fact)

    def _observe_end(self, noted: Noted, fact: RunEnded) -> None:
        if fact.outcome == "continued":
            return
        agent, version, outcome = fact.agent, fact.version, fact.outcome
        self.count("mandate_runs", agent=agent, version=version, outcome=outcome)
        if fact.began_at is not None:
            took = (noted.at - fact.began_at).total_seconds()
            self.record("mandate_run_seconds", took, agent=agent, version=version, outcome=outcome)
        self.record("mandate_run_steps", fact.steps, agent=fact.agent, outcome=fact.outcome)

    def _observe_model(self, fact: ModelCalled, took: float) -> None:
        self.count("mandate_model_calls", agent=fact.agent, model=fact.model, outcome=fact.error or fact.finish)
        self.count("mandate_model_lost_attempts", by=fact.lost, agent=fact.agent, model=fact.model)
        provider, model = split_model(fact.model)
        named = {"gen_ai_provider_name": provider, "gen_ai_request_model": model}
        error = {"error_type": fact.error}
        self.record(
            "gen_ai_client_operation_duration_seconds", fact.latency or took, gen_ai_operation_name="chat",
            **named, **error,
        )  # fmt: skip
        if fact.error:
            return
        for kind, tokens in (("input", fact.usage.input_tokens), ("output", fact.usage.output_tokens)):
            self.record(
                "gen_ai_client_token_usage", tokens, gen_ai_operation_name="chat", gen_ai_token_type=kind, **named
            )
        self._observe_usage(fact.agent, fact.model, fact.usage)

    def _observe_usage(self, agent: str, model: str, usage: Usage) -> None:
        if not usage.model_calls:
            return
        tokens = {
            "input": usage.input_tokens,
            "cached": usage.cached_input_tokens,
            "cache_write": usage.cache_write_tokens,
            "output": usage.output_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        for kind, number in tokens.items():
            self.count("mandate_tokens", by=number, agent=agent, model=model, kind=kind)
        if not usage.unpriced_calls:
            self.record("mandate_model_cost_usd", float(usage.cost_usd), agent=agent, model=model)

    def _observe_tool(self, fact: ToolCalled, took: float) -> None:
        agent, tool, outcome = fact.agent, fact.tool, fact.outcome
        self.count("mandate_tool_calls", agent=agent, tool=tool, outcome=outcome)
        self.count("mandate_tool_attempts", by=fact.attempts, agent=agent, tool=tool, outcome=outcome)
        self.record("mandate_tool_seconds", took, agent=agent, tool=tool, outcome=outcome)
        if fact.outcome == "unknown" and fact.effect != "read":
            self.count("mandate_uncertain_effects", agent=fact.agent, tool=fact.tool)
