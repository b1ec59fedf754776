"""Names and attributes of spans: OpenTelemetry's conventions for generative AI, and `mandate.*` beside them.

The conventions are in development and have moved to a repository of their own, `semantic-conventions-genai`; those
here are of November 2026. Their constants in `opentelemetry.semconv` are deprecated, so the names are written here and
nowhere else.

No attribute holds a text of people or models, an argument or a result, but `gen_ai.tool.call.arguments` and
`gen_ai.tool.call.result` where the agent file says `record: {arguments: true}`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, assert_never

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.telemetry import (
    CallJudged,
    CheckMade,
    ChildBegun,
    ChildEnded,
    DecisionTaken,
    Fact,
    MessageTaken,
    ModelCalled,
    PlanAdvanced,
    ProbeMade,
    RequestAsked,
    RequestClosed,
    RequestEscalated,
    RunBegun,
    RunEnded,
    ToolCalled,
)

VERSION = "gen-ai-2026-11"
"""The conventions that these names are of, also the schema version of our instrumentation scope."""

SCOPE = "mandate"

Value = str | bool | int | float
Kind = Literal["internal", "client"]

ARGUMENTS_CHARACTERS = 4096
"""Longest text of arguments and of a result in a span."""


@dataclass(frozen=True, slots=True)
class Described:
    """A span without its place and time."""

    name: str
    attributes: Mapping[str, Value]
    kind: Kind = "internal"
    error: str = ""
    """Why its status is an error; empty for none."""
    waited: Mapping[str, datetime] = field(default_factory=dict)


def describe(fact: Fact) -> Described:
    """Return the span of a fact."""
    made = _describe(fact)
    agent = {"gen_ai.agent.name": fact.agent} if fact.agent else {}
    return replace(made, attributes={**agent, **made.attributes})


def _describe(fact: Fact) -> Described:  # noqa: C901, PLR0912 - one case a kind of fact
    match fact:
        case RunBegun():
            return _describe_begin(fact)
        case RunEnded():
            return _describe_end(fact)
        case ModelCalled():
            return _describe_model(fact)
        case CallJudged():
            return _describe_verdict(fact)
        case ToolCalled():
            return _describe_tool(fact)
        case ProbeMade():
            return _describe_probe(fact)
        case CheckMade():
            return _describe_check(fact)
        case RequestAsked():
            return _describe_request(fact)
        case RequestClosed():
            return _describe_closed(fact)
        case RequestEscalated():
            return Described(
                f"escalate {fact.request}",
                {"mandate.request.id": fact.request, "mandate.request.kind": fact.kind},
            )
        case DecisionTaken():
            return _describe_decision(fact)
        case ChildBegun():
            return _describe_child(fact)
        case ChildEnded():
            return _describe_child_end(fact)
        case PlanAdvanced():
            return _describe_plan(fact)
        case MessageTaken():
            return Described(f"message {fact.verb}", {"mandate.message.verb": fact.verb})
        case _:
            assert_never(fact)


def split_model(model: str) -> tuple[str, str]:
    """Return the provider and the model of `provider:model`."""
    provider, _, name = model.partition(":")
    return provider, name or model


def _describe_begin(fact: RunBegun) -> Described:
    operation = "invoke_workflow" if fact.is_plan else "invoke_agent"
    return Described(
        f"{operation} {fact.agent}",
        {
            "gen_ai.operation.name": operation,
            "gen_ai.agent.version": fact.version,
            "mandate.run.depth": fact.depth,
            "mandate.run.is_child": fact.is_child,
            "mandate.run.is_continued": fact.is_continued,
        },
    )


def _describe_end(fact: RunEnded) -> Described:
    return Described(
        f"end {fact.outcome}",
        {
            **({"gen_ai.agent.version": fact.version} if fact.version else {}),
            "mandate.run.outcome": fact.outcome,
            "mandate.run.steps": fact.steps,
            "mandate.run.uncertain_effects": fact.uncertain,
            **_usage(fact.usage),
            "mandate.model_calls": fact.usage.model_calls,
        },
        error=fact.outcome if fact.outcome == "failed" else "",
    )


def _describe_model(fact: ModelCalled) -> Described:
    provider, model = split_model(fact.model)
    return Described(
        f"chat {model}",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            **({"gen_ai.response.finish_reasons": fact.finish} if fact.finish else {}),
            "gen_ai.conversation.compacted": fact.is_cut,
            **_usage(fact.usage),
            **({"error.type": fact.error} if fact.error else {}),
            "mandate.step": fact.step,
            "mandate.model.seconds": fact.latency,
            "mandate.model.lost_attempts": fact.lost,
            "mandate.model.calls_asked": fact.calls,
            "mandate.model.is_last_answer": fact.is_last,
        },
        kind="client",
        error=fact.error,
    )


def _describe_verdict(fact: CallJudged) -> Described:
    return Described(
        f"judge {fact.tool}",
        {
            "gen_ai.tool.name": fact.tool,
            **_call(fact.step, fact.index),
            "mandate.verdict": fact.verdict,
            **({"mandate.verdict.rule": fact.rule} if fact.rule is not None else {}),
            "mandate.verdict.is_repeated_call": fact.is_refused,
            "mandate.arguments.digest": fact.arguments_digest,
        },
    )


def _describe_tool(fact: ToolCalled) -> Described:
    contents = {} if fact.arguments is None else {"gen_ai.tool.call.arguments": _shorten(json.dumps(fact.arguments))}
    if fact.result is not None:
        contents["gen_ai.tool.call.result"] = _shorten(fact.result)
    error = fact.outcome if fact.is_error or fact.outcome in {"unknown", "not_sent"} else ""
    return Described(
        f"execute_tool {fact.tool}",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": fact.tool,
            "gen_ai.tool.type": "extension" if fact.source in {"mcp", "http", "activity"} else "function",
            **({"gen_ai.tool.call.id": fact.key} if fact.key else {}),
            **_call(fact.step, fact.index),
            "mandate.tool.source": fact.source,
            "mandate.tool.effect": fact.effect,
            "mandate.tool.outcome": fact.outcome,
            "mandate.tool.attempts": fact.attempts,
            "mandate.tool.is_local": fact.is_local,
            "mandate.tool.is_cached": fact.is_cached,
            "mandate.arguments.digest": fact.arguments_digest,
            **({"mandate.result.digest": fact.result_digest} if fact.result_digest else {}),
            **({"mandate.result.bytes": fact.result_size} if fact.result_size is not None else {}),
            **({"error.type": error} if error else {}),
            **contents,
        },
        error=error,
    )


def _describe_probe(fact: ProbeMade) -> Described:
    return Described(
        f"probe {fact.tool}",
        {
            "gen_ai.tool.name": fact.probe,
            **_call(fact.step, fact.index),
            "mandate.probe.of": fact.tool,
            "mandate.probe.outcome": fact.outcome,
        },
    )


def _describe_check(fact: CheckMade) -> Described:
    return Described(
        f"check {fact.check}",
        {
            **_call(fact.step, fact.index),
            "mandate.check.name": fact.check,
            "mandate.check.kind": fact.kind,
            "mandate.check.after": fact.after,
            "mandate.check.finding": fact.finding,
            **(_usage(fact.usage) if fact.usage.model_calls else {}),
        },
    )


def _describe_request(fact: RequestAsked) -> Described:
    return Described(
        f"ask {fact.kind}",
        {
            "mandate.step": fact.step,
            "mandate.request.id": fact.request,
            "mandate.request.kind": fact.kind,
            "mandate.request.digest": fact.digest,
            **({"gen_ai.tool.name": fact.tool} if fact.tool is not None else {}),
            **({"mandate.request.expires_at": fact.expires_at.isoformat()} if fact.expires_at is not None else {}),
        },
    )


def _describe_closed(fact: RequestClosed) -> Described:
    return Described(
        f"answer {fact.outcome}",
        {
            "mandate.request.id": fact.request,
            "mandate.request.kind": fact.kind,
            "mandate.request.outcome": fact.outcome,
            **({"gen_ai.tool.name": fact.tool} if fact.tool is not None else {}),
        },
        waited={"mandate.request.waited_seconds": fact.asked_at},
    )


def _describe_decision(fact: DecisionTaken) -> Described:
    return Described(
        f"decide {fact.choice}" if fact.choice else "decide",
        {
            "mandate.request.id": fact.request,
            "mandate.request.kind": fact.kind,
            "mandate.decision.choice": fact.choice,
            "mandate.decision.via": fact.via,
            "mandate.decision.counts": fact.counts,
        },
        waited={"mandate.request.waited_seconds": fact.asked_at} if fact.asked_at is not None else {},
    )


def _describe_child(fact: ChildBegun) -> Described:
    return Described(
        f"execute_tool {fact.tool}",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": fact.tool,
            "gen_ai.transfer.target.name": fact.name,
            "gen_ai.transfer.mode": "return_to_caller",
            **_call(fact.step, fact.index),
            "mandate.child.id": fact.child,
            "mandate.child.is_plan": fact.is_plan,
        },
    )


def _describe_child_end(fact: ChildEnded) -> Described:
    return Described(
        f"child {fact.status}",
        {
            **_call(fact.step, fact.index),
            "mandate.child.id": fact.child,
            "mandate.child.status": fact.status,
            **_usage(fact.usage),
        },
    )


def _describe_plan(fact: PlanAdvanced) -> Described:
    return Described(
        f"plan {fact.agent}",
        {
            "gen_ai.operation.name": "plan",
            "mandate.step": fact.step,
            "mandate.plan.calls_begun": fact.begun,
            "mandate.plan.calls_ended": fact.ended,
            "mandate.plan.steps_asked": fact.asked,
            "mandate.plan.is_over": fact.is_over,
        },
    )


def _call(step: int, index: int | None) -> dict[str, Value]:
    return {"mandate.step": step} if index is None else {"mandate.step": step, "mandate.call": index}


def _usage(usage: Usage) -> dict[str, Value]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "mandate.cost_usd": float(usage.cost_usd),
    }


def _shorten(text: str) -> str:
    return text if len(text) <= ARGUMENTS_CHARACTERS else f"{text[:ARGUMENTS_CHARACTERS]}..."
