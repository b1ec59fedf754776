"""Requests in words, for reading on a terminal."""

import dataclasses
import shlex
from datetime import datetime
from typing import assert_never

from pydantic import JsonValue, ValidationError
from rich.text import Text

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.output import Output
from mandate.workers.cli.requests.edit import as_yaml
from mandate.workers.client.decisions import Target
from mandate.workflows.contracts.request import Need, OpenRequests, Request
from mandate.workflows.contracts.tool import RUN_PLAN
from mandate.workflows.rules import commands, decisions, wording

SERVER_MEANINGS = {
    "answer": "the form as JSON, or that the page was visited; the server goes on with it",
    "cancel": "the server is told that nobody chose",
    "reject": "the server is told that people do not want it",
}
"""Meanings of the choices of a question that an MCP server asks."""

STEP_MEANINGS = {
    "retry": "the step is made again, and its attempts count anew; with --value its agent is told your guidance",
    "accept": "what it returned counts as good",
    "supply": "--value is its output",
    "stop": "the plan ends; what has a compensation is taken back first",
}
"""Meanings of the choices on a step of a plan that has failed."""

MEANINGS: dict[str, dict[str, str]] = {
    "escalation": {
        "retry": "the agent tries again; with --value it is told your guidance, and all attempts count anew",
        "accept": "what there is counts as good",
        "supply": "--value takes the place of the result that could not be had",
        "go_back": "the agent goes on from an earlier step: --value with its number; what was done since stays done",
        "stop": "the run ends; what has a compensation is taken back first",
    },
    "outcome": {
        "happened": "it was done; with --value this is what it returned",
        "not_happened": "it was not done, and is made again",
        "stop": "the run ends, with the call among its uncertain ones",
    },
    "budget": {
        "raise": "the run goes on with new limits: --raise LIMIT=VALUE, or --value with them as JSON",
        "answer": "the agent gives its last answer from what it has, for which enough is kept back",
        "stop": "the run ends; what has a compensation is taken back first",
    },
}
"""Meanings of the choices of a request, by its kind."""


def remaining(request: Request, now: datetime) -> str:
    """Return the time that people have; `over` when it has come and the run has not ended it yet."""
    return decisions.round_duration(request.expires_at - now) if request.expires_at > now else "over"


def waits_for(request: Request) -> str:
    return ", ".join(request.waits_for)


def _find_meanings(request: Request) -> dict[str, str] | None:
    """Return the meanings of the choices of a request; `None` where they say it themselves."""
    if request.plan_step is not None:
        return STEP_MEANINGS
    return MEANINGS.get(request.kind) if request.server is None else SERVER_MEANINGS


def print_request(
    out: Output,
    run: OpenRequests,
    request: Request,
    arguments: JsonValue,
    now: datetime,
    *,
    above: str | None = None,
) -> None:
    """Print all that a person must know before they decide, but how to do it; `above` are the runs above this one."""
    out.print(Text(request.question or request.title, style="bold"))
    if request.question is not None and request.options:
        out.print(*(f"  - {option}" for option in request.options))
    out.print("")
    rows = _rows(run, request, now, above)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        out.print(Text.assemble((f"{name:<{width}}", "dim"), value))
    if request.goal:
        out.print("", Text("what the run was asked", style="bold"), f"  {request.goal}")
    if request.evidence:
        out.print("", Text("what it tried and did", style="bold"), *(f"  {line}" for line in request.evidence))
    meanings = _find_meanings(request)
    if meanings is not None:
        out.print("", Text("what can be chosen", style="bold"))
        out.print(*(f"  {choice:<13} {meanings[choice]}" for choice in request.choices))
    if request.tool == RUN_PLAN and (drawn := _draw_plan(arguments)) is not None:
        out.print("", Text("the plan", style="bold"))
        out.print(_indented(drawn))
    if request.tool is not None and request.kind != "question":
        out.print("", Text(f"arguments of {request.tool}", style="bold"))
        out.print(_indented(written(arguments)))
    out.print("", Text("who must agree", style="bold"), *(f"  {line}" for line in _agreement(run, request)))
    if request.decisions:
        out.print("", Text("decided so far", style="bold"))
    for one in request.decisions:
        marks = "".join((", signed" * one.signed, ", with other arguments" * one.edited))
        comment = f": {one.comment}" if one.comment else ""
        out.print(f"  {decisions.format_time(one.at)}  {one.by} chose {one.choice}{marks}{comment}")
    refused = [one for one in run.refused if one.request == request.id]
    if refused:
        out.print("", Text("decisions that did not count", style="bold"))
    for refusal in refused:
        out.print(f"  {decisions.format_time(refusal.at)}  {refusal.by} chose {refusal.choice}: {refusal.reason}")


def _draw_plan(arguments: JsonValue) -> str | None:
    """Return the picture of a plan, if the whole of it is there."""
    from mandate.workflows.rules.plans import diagram, written  # noqa: PLC0415 - only where people see a plan

    try:
        return diagram.draw(written.read_plan(arguments)) if isinstance(arguments, dict) else None
    except ValidationError:
        return None


def _agreement(run: OpenRequests, request: Request) -> list[str]:
    """Describe who must decide, and who never may: it takes four eyes."""
    never = [] if run.requester is None else [f"never {run.requester}, who asked for the run"]
    return [*map(needed, request.needs), *never]


def _rows(run: OpenRequests, request: Request, now: datetime, above: str | None) -> list[tuple[str, str]]:
    asked_by = f", asked for by {run.requester}" if run.requester else ""
    rows = [
        ("request", f"{run.workflow_id}:{request.id}, {_kind(request.kind)}"),
        ("agent", f"{run.agent} version {run.version}, step {request.step}{asked_by}"),
        ("run", f"{run.status}"),
        *([("child of", above)] if above is not None else []),
        ("why", request.reason),
    ]
    if request.effect is not None and request.kind == "approval":
        risk = f", risk {request.risk:g}" if request.risk else ""
        rows.append(("effect", f"{request.effect}{risk}"))
    if request.tainted:
        rows.append(("careful", "the agent has read content from outside, which may have told it what to do"))
    if request.edited is not None:
        rows.append(("changed", f"{request.edited.by} put these arguments in place of the model's"))
    ago = decisions.round_duration(now - request.requested_at)
    rows.append(("asked", f"{ago} ago, {decisions.format_time(request.requested_at)}"))
    until = f"{decisions.format_time(request.expires_at)}, {_left(request, now)}"
    rows.append(("until", f"{until}; then {decisions.describe_expiry(request)}"))
    rows.append(("digest", request.digest))
    return rows


def _left(request: Request, now: datetime) -> str:
    left = remaining(request, now)
    return "which is over" if left == "over" else f"in {left}"


def needed(need: Need) -> str:
    """Describe a need as `1 of finance (rule 'large'): ann@example.com has approved`."""
    who = ", ".join((*need.groups, *need.users)) or "everybody in the file of people"
    rule = f" (rule {need.rule!r})" if need.rule is not None else ""
    signed = ", signed" if need.signature else ""
    many = f"; {need.rejections} rejections reject" if need.rejections > 1 else ""
    told = [
        f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} {word}"
        for names, word in ((need.approved_by, "approved"), (need.rejected_by, "rejected"))
        if names
    ]
    return f"{need.quorum} of {who}{rule}{signed}{many}: {'; '.join(told) or 'nobody has decided'}"


def written(arguments: JsonValue) -> str:
    """Write arguments as YAML, texts of several lines as blocks; nothing is left out."""
    return as_yaml(arguments).rstrip() if arguments else "none"


def headline(workflow_id: str, request: Request) -> str:
    """Describe the matter of a request, in one line."""
    return f"{workflow_id}:{request.id}  {wording.shorten(request.title, 160)}"


def how_to_choose(target: Target, request: Request, *, program: str) -> str:
    """Say with which commands a choice is made, for the request as it was named."""
    named = shlex.quote(target.name) if target.number is None else str(target.number)
    match request.kind:
        case "approval":
            return f"decide with `{program} approve {named}` or `{program} reject {named}`"
        case "question":
            return f'answer with `{program} answer {named} "..."`'
        case "budget":
            raised = f"`{program} decide {named} --raise LIMIT=VALUE`"
            return f"choose with `{program} decide {named} --choice ...`, or raise a limit with {raised}"
        case "escalation" | "outcome":
            return f"choose with `{program} decide {named} --choice ...`"
        case _:
            assert_never(request.kind)


def _kind(kind: str) -> str:
    if kind == "budget":
        return "about a budget"
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def ways(connection: Connection, workflow_id: str, request: Request, *, program: str) -> tuple[commands.Way, ...]:
    """Return the commands that answer `request` from where this one was typed."""
    namespace = connection.client.namespace
    given = f" --namespace {shlex.quote(namespace)}"
    ours, temporals = (text.replace(given, "") for text in (connection.options, connection.temporal_options))
    return tuple(
        dataclasses.replace(way, mandate=way.mandate + ours, temporal=way.temporal + temporals)
        for way in commands.list_ways(workflow_id, request, program=program, namespace=namespace)
    )
