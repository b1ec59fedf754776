"""Reconciliation of a call whose outcome is unknown: its probe tells it, else a person; never a guess."""

from temporalio.exceptions import ActivityError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.state import Unclear
from mandate.workflows.contracts.tool import Tool, ToolResult
from mandate.workflows.contracts.verification import Probed, ProbePin, ProbeRequest
from mandate.workflows.loop import observations
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.escalation import Escalations
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall, ToolCalls
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import policy, verification
from mandate.workflows.rules.cel.evaluation import Unevaluable

RERUNS = 3
"""Number of times that a call is made again after it was found not to have happened."""


class Reconciliation:
    """Reconciliation of the unknown outcomes of one run."""

    def __init__(self, run: Run, control: Control, escalations: Escalations, tool_calls: ToolCalls) -> None:
        self._run = run
        self._control = control
        self._escalations = escalations
        self._tool_calls = tool_calls

    async def reconcile(self, placed: JudgedCall) -> Attempted | None:
        """Find the outcome of the call, made again where it had not happened; `None` when the run has to halt first."""
        while True:
            unclear = self._run.state.unclear[placed.index]
            said = _not_done("it had not happened") if unclear.is_not_done else await self._find_out(placed, unclear)
            if said is None or said.outcome is Outcome.DONE:
                return said
            if unclear.reruns >= RERUNS or not await self._may_go_on(placed.index):
                if self._is_leaving_it(unclear):
                    return None
                self._tool_calls.settle(placed.index)
                return said
            attempted = await self._tool_calls.make_again(placed, unclear)
            if attempted is None:
                return None
            if attempted.outcome is not Outcome.UNKNOWN:
                return attempted

    async def _may_go_on(self, index: int) -> bool:
        """Return whether a call that has not happened may be made again; what is known of it is kept meanwhile."""
        if not self._run.has(Change.HOLDS_BEFORE_ATTEMPTS):
            return True
        unclear = self._run.state.unclear[index]
        self._tool_calls.keep_unknown(index, unclear.model_copy(update={"is_not_done": True, "request": None}))
        return await self._escalations.go_ahead()

    def _is_leaving_it(self, unclear: Unclear) -> bool:
        """Return whether the run continues as new before the call is made again."""
        return unclear.reruns < RERUNS and not self._control.is_stopping

    async def _find_out(self, placed: JudgedCall, unclear: Unclear) -> Attempted | None:
        said = await self._probe(placed, unclear) if unclear.request is None else ""
        return said if isinstance(said, Attempted) else await self._ask_person(placed, unclear, said)

    async def _probe(self, placed: JudgedCall, unclear: Unclear) -> Attempted | str:
        """Return the finding of the tool's probe, or why it cannot tell; empty when there is none."""
        pin = self._run.state.agent
        probe = pin.probes.get(placed.tool.name)
        tool = pin.tool(probe.tool) if probe is not None else None
        if probe is None or tool is None:
            return ""
        probed = await self._look_up(placed, unclear, probe, tool)
        if isinstance(probed, str):
            self._run.record_step(f"the probe {probe.tool} of {placed.line} {probed}")
            return f"the probe {probe.tool} {probed}"
        self._run.taint(tool)
        self._run.record_step(f"the probe {probe.tool} of {placed.line}: {probed.reason}")
        match probed.outcome:
            case Outcome.DONE:
                self._tool_calls.settle_done(
                    placed.index, unclear.entry.model_copy(update={"reason": f"as {probe.tool} shows"})
                )
                found = probed.result or ToolResult(text="done")
                note = f"the reply was lost; {probe.tool} shows that it was done, this is what it returned"
                answer = found.model_copy(update={"note": note, "stands_in": True})
                return Attempted(Outcome.DONE, answer, key=unclear.entry.key)
            case Outcome.NOT_DONE | Outcome.NOT_SENT:
                return _not_done(probed.reason)
            case _:
                return f"the probe {probe.tool} could not tell: {probed.reason}"

    async def _look_up(self, placed: JudgedCall, unclear: Unclear, probe: ProbePin, tool: Tool) -> Probed | str:
        """Return the probe's finding, or that it could not be asked and why."""
        pin, its = self._run.state.agent, self._run.state
        arguments = verification.compute_arguments(probe.arguments, placed.call.arguments, unclear.entry.key)
        if isinstance(arguments, Unevaluable):
            return f"cannot be called: {arguments.reason}"
        verdict = policy.judge(pin.policy, tool, arguments, self._run.facts, tools=pin.tools)
        if not verdict.allowed:
            return f"may not be called: {verdict.reason}"
        self._run.set_doing(f"looking up whether {placed.line} happened")
        request = ProbeRequest(
            agent=pin.digest,
            head=its.head,
            step=its.step,
            index=placed.index,
            key=unclear.entry.key,
            edited=placed.edit.call.blob if placed.edit is not None else None,
            arguments=arguments,
            requester=self._run.requester_for(tool),
        )
        look_up = observations.Probe(self._run, placed.index, placed.tool.name, probe.tool)
        try:
            with self._run.telemetry.within(look_up.key):
                probed = await steps.probe_call(request, probe, placed.tool.name, verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            look_up.end("unable")
            return "gave no answer"
        look_up.end(probed.outcome.value)
        return probed

    async def _ask_person(self, placed: JudgedCall, unclear: Unclear, seen: str) -> Attempted | None:
        """Ask a person, who is told what the probe has `seen`; return `None` when the run halts instead."""
        if unclear.request is None:
            request = self._escalations.ask_outcome(placed.index, unclear.entry, placed.tool, seen)
            unclear = unclear.model_copy(update={"request": request})
            self._tool_calls.keep_unknown(placed.index, unclear)
        said = await self._escalations.resolution(unclear.request or "")
        if said is None:
            return None
        match said.choice:
            case "happened":
                self._tool_calls.settle_done(placed.index, unclear.entry.model_copy(update={"reason": said.reason}))
                untold = ToolResult(text="done; its reply was lost", note=said.reason, stands_in=True)
                return Attempted(Outcome.DONE, said.answer or untold, key=unclear.entry.key)
            case "not_happened":
                self._tool_calls.keep_unknown(placed.index, unclear.model_copy(update={"request": None}))
                return _not_done(said.reason)
            case _:
                self._tool_calls.settle_unknown(placed.index, unclear.entry)
                if said.choice == "stop":
                    self._escalations.stop(said)
                return None


def _not_done(reason: str) -> Attempted:
    return Attempted(Outcome.NOT_DONE, ToolResult(text=f"not done: {reason}", error=True))
