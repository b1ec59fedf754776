"""Observations of a run for telemetry: which facts are noted, when, and below what.

A span has a beginning and an end only where work is done. What waits (a request for people, a child) is two points.
"""

from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelReply, Usage
from mandate.workflows.contracts.plan import AdvanceRequest, PlanMove
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import Decision, Request
from mandate.workflows.contracts.telemetry import (
    CallJudged,
    CheckMade,
    ChildBegun,
    ChildEnded,
    DecisionTaken,
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
from mandate.workflows.contracts.tool import CallRequest, Tool
from mandate.workflows.contracts.verification import CheckPin, CheckRequest, CheckResult
from mandate.workflows.loop.run import Run
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import trace_ids

UNKNOWN = "unknown"
"""Agent of a run that has not begun."""


def note_begin(run: Run, *, is_continued: bool) -> None:
    """Note that the run, or a further part of it, has begun."""
    its = run.state

    def make() -> RunBegun:
        return RunBegun(
            agent=its.agent.name,
            version=its.agent.version,
            is_plan=its.plan is not None or workflow.info().workflow_type == "PlanWorkflow",
            is_child=its.child is not None,
            is_continued=is_continued,
            depth=its.child.depth if its.child is not None else 0,
            open={request.id: _describe_request(run, request) for request in its.people.open},
        )

    run.telemetry.note(trace_ids.ROOT, make, parent="")


def note_end(run: Run, outcome: str) -> None:
    """Note the end of the run, or of a part of it."""
    if not run.is_begun:
        # Its input was refused, or its agent could not be pinned: which one it would have been is what somebody wrote.
        run.telemetry.note(trace_ids.ROOT, lambda: RunBegun(agent=UNKNOWN, version=""), parent="")
        run.telemetry.note("end", lambda: RunEnded(agent=UNKNOWN, version="", outcome=outcome), parent="")
        return

    def make() -> RunEnded:
        its = run.state
        return RunEnded(
            agent=its.agent.name,
            version=its.agent.version,
            outcome=outcome,
            steps=its.step,
            usage=its.usage,
            began_at=its.ledger.began_at,
            uncertain=len(its.uncertain) + len(its.uncertain_below),
            is_plan=its.plan is not None,
        )

    run.telemetry.note("end", make, parent="")


class ModelCall:
    """One call of a model, from before it to its end."""

    def __init__(self, run: Run, model: str) -> None:
        self._run = run
        self._model = model
        self._began = workflow.now()
        self._step = run.state.step + 1
        self.key = run.telemetry.name(f"model:{self._step}")

    def end(self, reply: ModelReply) -> None:
        """Note the answer; what follows from it is below it."""
        its = self._run.state

        def make() -> ModelCalled:
            return ModelCalled(
                agent=its.agent.name,
                step=self._step,
                model=self._model,
                finish=str(reply.finish),
                usage=reply.usage,
                latency=reply.latency,
                lost=reply.lost,
                is_cut=reply.cut,
                is_last=its.ledger.is_answering,
                calls=len(reply.calls),
            )

        self._run.telemetry.note(self.key, make, began=self._began, parent="")
        self._run.telemetry.step_key = self.key

    def fail(self, error: ActivityError) -> None:
        """Note that there was no answer; a request that was not sent, since it is larger than it may be, is no call."""
        its = self._run.state
        if _name_error(error) in {FailureType.NEEDS_MORE, FailureType.NEEDS_STATE}:
            return

        def make() -> ModelCalled:
            return ModelCalled(its.agent.name, self._step, self._model, error=_name_error(error))

        self._run.telemetry.note(self.key, make, began=self._began, parent="")


def note_verdict(run: Run, index: int, verdict: Verdict, *, is_refused: bool = False) -> None:
    """Note the verdict on a call; `is_refused` where no rule refuses it."""
    its, key = run.state, run.telemetry.name(f"verdict:{run.state.step}:{index}")

    def make() -> CallJudged:
        call = its.calls[index]
        return CallJudged(
            agent=its.agent.name,
            step=its.step,
            index=index,
            tool=call.tool,
            verdict="deny" if is_refused else verdict.kind,
            rule=verdict.rule,
            arguments_digest=_digest(run, call),
            is_refused=is_refused,
        )

    run.telemetry.note(key, make)


class ToolCall:
    """One sending of a call: as many attempts as Temporal makes without the run."""

    def __init__(self, run: Run, index: int, tool: Tool) -> None:
        self._run = run
        self._index = index
        self._tool = tool
        self._began = workflow.now()
        self.key = run.telemetry.name(f"tool:{run.state.step}:{index}")

    def end(self, call: CallRequest, attempted: Attempted, key: str | None, *, is_local: bool) -> None:
        """Note how it ended; arguments and result only where the agent file wants that."""
        run, tool, answer = self._run, self._tool, attempted.answer

        def make() -> ToolCalled:
            shown = run.state.agent.records
            viewed = run.view_answer(call, answer) if shown else None
            return ToolCalled(
                agent=run.state.agent.name,
                step=run.state.step,
                index=self._index,
                tool=tool.known_as,
                source=tool.source,
                effect=str(tool.effect),
                outcome="asks" if answer.asking is not None else attempted.outcome.value,
                attempts=attempted.attempts,
                is_error=answer.error and answer.asking is None,
                is_local=is_local,
                is_cached=answer.cached is not None,
                arguments_digest=_digest(run, call),
                result_digest=answer.digest or "",
                result_size=answer.size if answer.size is not None else len((answer.text or "").encode()),
                key=key or "",
                arguments=call.arguments if shown else None,
                result=(viewed.text if viewed.text is not None else viewed.preview) if viewed is not None else None,
            )

        run.telemetry.note(self.key, make, began=self._began)


class Probe:
    """One look-up of a call whose outcome is unknown."""

    def __init__(self, run: Run, index: int, tool: str, probe: str) -> None:
        self._run, self._index, self._tool, self._probe = run, index, tool, probe
        self._began = workflow.now()
        self.key = run.telemetry.name(f"probe:{run.state.step}:{index}")

    def end(self, outcome: str) -> None:
        its = self._run.state
        self._run.telemetry.note(
            self.key,
            lambda: ProbeMade(its.agent.name, its.step, self._index, self._tool, self._probe, outcome),
            began=self._began,
        )


class Check:
    """One check of a result or of the final answer."""

    def __init__(self, run: Run, check: CheckPin, request: CheckRequest) -> None:
        self._run, self._check, self._request = run, check, request
        self._began = workflow.now()
        self.key = run.telemetry.name(f"check:{request.step}:{request.index}:{check.name}")

    def end(self, found: CheckResult) -> None:
        its, check = self._run.state, self._check

        def make() -> CheckMade:
            return CheckMade(
                agent=its.agent.name,
                step=self._request.step,
                check=check.name,
                kind=check.kind,
                after=check.after,
                finding=found.finding,
                usage=found.usage,
                index=self._request.index,
            )

        self._run.telemetry.note(self.key, make, began=self._began)


def note_request(run: Run, request: Request) -> None:
    """Note that people are asked."""
    key = run.telemetry.name(f"request:{request.id}")
    run.telemetry.note(key, lambda: _describe_request(run, request))


def note_closed(run: Run, request: Request, outcome: str) -> None:
    """Note that people are asked no more."""

    def make() -> RequestClosed:
        return RequestClosed(
            run.state.agent.name, request.id, request.kind, outcome, request.requested_at, request.tool
        )

    key = run.telemetry.name(f"closed:{request.id}")
    run.telemetry.note(key, make, parent=f"request:{request.id}")


def note_escalated(run: Run, request: Request) -> None:
    """Note that the next people are asked."""
    key = run.telemetry.name(f"escalated:{request.id}")
    run.telemetry.note(
        key,
        lambda: RequestEscalated(run.state.agent.name, request.id, request.kind),
        parent=f"request:{request.id}",
    )


def note_decision(
    run: Run, decision: Decision, request: Request | None, via: Literal["update", "signal"], *, counts: bool
) -> None:
    """Note a decision; `request` is `None` where it names none that is open."""
    name = request.id if request is not None else "none"
    key = run.telemetry.name(f"decision:{name}")

    def make() -> DecisionTaken:
        return DecisionTaken(
            agent=run.state.agent.name if run.is_begun else "",
            request=name,
            kind=request.kind if request is not None else "",
            choice=decision.choice if request is not None and decision.choice in request.choices else "",
            via=via,
            counts=counts,
            asked_at=request.requested_at if request is not None else None,
        )

    run.telemetry.note(key, make, parent=f"request:{name}" if request is not None else "")


def note_message(run: Run, verb: str) -> None:
    """Note a message of people that is no decision; its words are not part of that."""
    key = run.telemetry.name(f"message:{verb}")
    run.telemetry.note(key, lambda: MessageTaken(run.state.agent.name, verb), parent="")


def note_child(run: Run, index: int, tool: Tool, child: str) -> None:
    """Note that a child begins."""
    key = f"child:{child}"

    def make() -> ChildBegun:
        assert tool.child is not None
        return ChildBegun(
            run.state.agent.name, run.state.step, index, tool.name, child, tool.child.agent, tool.child.is_plan
        )

    run.telemetry.note(key, make)


def note_child_end(run: Run, index: int, child: str, status: str, usage: Usage) -> None:
    """Note that a child has reported."""

    def make() -> ChildEnded:
        tool = run.state.calls[index].tool if index < len(run.state.calls) else ""
        return ChildEnded(run.state.agent.name, run.state.step, index, tool, child, status, usage)

    run.telemetry.note(run.telemetry.name(f"child_end:{child}"), make, parent=f"child:{child}")


class Advance:
    """One advance of a plan."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began = workflow.now()
        self.key = run.telemetry.name(f"plan:{run.state.step + 1}")

    def end(self, request: AdvanceRequest, move: PlanMove) -> None:
        its = self._run.state

        def make() -> PlanAdvanced:
            return PlanAdvanced(
                its.agent.name,
                request.step,
                len(move.calls),
                len(request.ended),
                len(move.asks),
                move.end is not None,
            )

        self._run.telemetry.note(self.key, make, began=self._began, parent="")
        self._run.telemetry.step_key = self.key


def _describe_request(run: Run, request: Request) -> RequestAsked:
    return RequestAsked(
        agent=run.state.agent.name,
        request=request.id,
        kind=request.kind,
        digest=request.digest,
        tool=request.tool,
        step=request.step,
        asked_at=request.requested_at,
        expires_at=request.expires_at,
    )


def _digest(run: Run, call: CallRequest) -> str:
    return call.digest or run.digest_call(call)


def _name_error(error: ActivityError) -> str:
    cause = error.cause
    return (cause.type or "error") if isinstance(cause, ApplicationError) else type(cause).__name__
