"""Questions of MCP servers, asked while a call is made: the request to people, and their answer."""

import json

from pydantic import JsonValue
from temporalio import workflow

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.question import (
    Action,
    AnsweredQuestions,
    GivenAnswer,
    OpenQuestions,
    ServerQuestion,
    ServerQuestions,
)
from mandate.workflows.contracts.request import SERVER_CHOICES, Request
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.loop import approvals
from mandate.workflows.loop.resolutions import ClosedRequest
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import decisions, wording

_BREAK = "\n"


def build_request(
    run: Run, request_id: str, *, index: int, line: str, asked: ServerQuestions, question: ServerQuestion
) -> Request:
    """Return the request that asks people what a server asks in the call that `line` describes."""
    call, now = run.state.calls[index], workflow.now()
    tool = run.tool(call.tool)
    reason = f"the MCP server {asked.server!r} asks, before it goes on with {line}"
    verdict = Verdict(kind="ask", reason=reason)
    contents: JsonObject = {
        "server": asked.server,
        "key": question.key,
        "text": question.text,
        "form": question.form,
        "state": asked.state,
    }
    return Request(
        id=request_id,
        kind="question",
        digest=decisions.compute_digest(
            workflow.info().first_execution_run_id,
            request_id,
            kind="question",
            tool=call.tool,
            arguments=contents,
            agent=run.state.agent.digest,
        ),
        title=wording.shorten(f"{asked.server} asks: {question.text.partition(_BREAK)[0]}", 160),
        tool=call.tool,
        question=question.text,
        server=asked.server,
        form=question.form,
        reason=wording.shorten(reason, 500),
        effect=str(tool.effect),
        risk=tool.risk,
        tainted=run.state.tainted or tool.untrusted,
        step=run.state.step,
        head=run.state.head,
        index=index,
        choices=SERVER_CHOICES,
        # One person's word answers it.
        needs=tuple(need.model_copy(update={"quorum": 1, "rejections": 1}) for need in run.list_needs(verdict)),
        requested_at=now,
    )


def find_tool(run: Run, request: Request) -> Tool | None:
    """Return the tool whose sensitive values must not be in what people answer."""
    if request.server is not None and request.tool is not None:
        return run.tool(request.tool)
    return approvals.find_tool(run, request)


def read_value(request: Request, value: JsonValue) -> JsonValue:
    """Return the answer to a form that was written as a text of JSON."""
    if request.server is None or not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        parsed: JsonValue = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed


def find_answers(run: Run, index: int) -> AnsweredQuestions | None:
    """Return what people answered to the server of a call that goes on."""
    opened = run.state.asked.get(index)
    return None if opened is None else opened.answers


def close(run: Run, closed: ClosedRequest) -> None:
    """Keep the answer to a server's question for its call; an agent's question is a call itself."""
    opened = run.state.asked.get(closed.request.index)
    if closed.request.server is None or opened is None or closed.request.id not in opened.requests:
        approvals.close(run, closed)
        return
    if closed.outcome != "withdrawn":
        _keep(run, closed, opened)
    comment = f" ({wording.shorten(closed.comment, 300)})" if closed.comment else ""
    run.record_step(f"{closed.request.id}: {closed.reason}{comment}")
    run.publish_status()


def _keep(run: Run, closed: ClosedRequest, opened: OpenQuestions) -> None:
    question = opened.asked.questions[opened.requests.index(closed.request.id)]
    action: Action = "cancel"
    if closed.outcome == "answered":
        action = "accept"
    elif closed.outcome == "rejected":
        action = "decline"
    content = closed.answer.digest if closed.answer is not None else None
    given = (*opened.given, GivenAnswer(key=question.key, action=action, content=content))
    run.state.asked = {**run.state.asked, closed.request.index: opened.model_copy(update={"given": given})}
