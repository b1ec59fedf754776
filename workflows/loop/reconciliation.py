"""What became of a call whose outcome is unknown: its probe says it, else a person; never a guess."""

from mandate.workflows import steps
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import Unclear
from mandate.workflows.contracts.tool import Tool, ToolResult
from mandate.workflows.contracts.verification import Probed, ProbePin, ProbeRequest
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.escalation import Rescuer
from mandate.workflows.loop.run import Current
from mandate.workflows.loop.tool_calls import Attempts, Placed
from mandate.workflows.rules import policy, verification
from mandate.workflows.rules.cel.evaluate import Unevaluable
from temporalio.exceptions import ActivityError, is_cancelled_exception

RERUNS = 3
"""How often a call is made again after it was found not to have happened."""


class Doubts:
    """Clears up the unknown outcomes of one run."""

    def __init__(self, current: Current, control: Control, rescuer: Rescuer, attempts: Attempts) -> None:
        self._current = current
        self._control = control
        self._rescuer = rescuer
        self._attempts = attempts

    async def cleared_up(self, placed: Placed) -> steps.Attempted | None:
        """What became of the call, made again where it had not happened; `None` when the run has to halt before."""
        while True:
            unclear = self._current.now.unclear[placed.index]
            said = _not_done("it had not happened") if unclear.is_not_done else await self._found_out(placed, unclear)
            if said is None or said.outcome is Outcome.DONE:
                return said
            if unclear.reruns >= RERUNS or not await self._may_go_on(placed.index):
                if self._is_leaving_it(unclear):
                    return None
                self._attempts.settle(placed.index)
                return said
            attempted = await self._attempts.again(placed, unclear)
            if attempted.outcome is not Outcome.UNKNOWN:
                return attempted

    async def _may_go_on(self, index: int) -> bool:
        """Whether a call that has not happened may be made again now; what is known of it is kept meanwhile."""
        if not self._current.is_current_loop:
            return True
        unclear = self._current.now.unclear[index]
        self._attempts.doubt(index, unclear.model_copy(update={"is_not_done": True, "request": None}))
        return await self._rescuer.go_ahead()

    def _is_leaving_it(self, unclear: Unclear) -> bool:
        """Whether the run continues as new before the call is made again."""
        return unclear.reruns < RERUNS and not self._control.is_stopping

    async def _found_out(self, placed: Placed, unclear: Unclear) -> steps.Attempted | None:
        said = await self._probed(placed, unclear) if unclear.request is None else ""
        return said if isinstance(said, steps.Attempted) else await self._asked(placed, unclear, said)

    async def _probed(self, placed: Placed, unclear: Unclear) -> steps.Attempted | str:
        """What the tool's probe says, or why it cannot tell; empty when there is none."""
        pin = self._current.now.agent
        probe = pin.probes.get(placed.tool.name)
        tool = pin.tool(probe.tool) if probe is not None else None
        if probe is None or tool is None:
            return ""
        probed = await self._looked_up(placed, unclear, probe, tool)
        if isinstance(probed, str):
            self._current.recall(f"the probe {probe.tool} of {placed.line} {probed}")
            return f"the probe {probe.tool} {probed}"
        self._current.taint(tool)
        self._current.recall(f"the probe {probe.tool} of {placed.line}: {probed.reason}")
        match probed.outcome:
            case Outcome.DONE:
                self._attempts.happened(
                    placed.index, unclear.entry.model_copy(update={"reason": f"as {probe.tool} shows"})
                )
                found = probed.result or ToolResult(text="done")
                note = f"the reply was lost; {probe.tool} shows that it was done, this is what it returned"
                answer = found.model_copy(update={"note": note, "stands_in": True})
                return steps.Attempted(Outcome.DONE, answer, key=unclear.entry.key)
            case Outcome.NOT_DONE | Outcome.NOT_SENT:
                return _not_done(probed.reason)
            case _:
                return f"the probe {probe.tool} could not tell: {probed.reason}"

    async def _looked_up(self, placed: Placed, unclear: Unclear, probe: ProbePin, tool: Tool) -> Probed | str:
        """What the probe saw, or that it could not be asked and why."""
        pin, its = self._current.now.agent, self._current.now
        arguments = verification.arguments_of(probe.arguments, placed.call.arguments, unclear.entry.key)
        if isinstance(arguments, Unevaluable):
            return f"cannot be called: {arguments.reason}"
        verdict = policy.judge(pin.policy, tool, arguments, self._current.facts, tools=pin.tools)
        if not verdict.allowed:
            return f"may not be called: {verdict.reason}"
        self._current.show(f"looking up whether {placed.line} happened")
        request = ProbeRequest(
            agent=pin.digest,
            head=its.head,
            step=its.step,
            index=placed.index,
            key=unclear.entry.key,
            edited=placed.edit.call.blob if placed.edit is not None else None,
            arguments=arguments,
        )
        try:
            return await steps.probe_call(request, probe, placed.tool.name, verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return "gave no answer"

    async def _asked(self, placed: Placed, unclear: Unclear, seen: str) -> steps.Attempted | None:
        """What a person says, who is told what the probe has `seen`; `None` when the run halts instead."""
        if unclear.request is None:
            request = self._rescuer.ask_outcome(placed.index, unclear.entry, placed.tool, seen)
            unclear = unclear.model_copy(update={"request": request})
            self._attempts.doubt(placed.index, unclear)
        said = await self._rescuer.resolution(unclear.request or "")
        if said is None:
            return None
        match said.choice:
            case "happened":
                self._attempts.happened(placed.index, unclear.entry.model_copy(update={"reason": said.reason}))
                untold = ToolResult(text="done; its reply was lost", note=said.reason, stands_in=True)
                return steps.Attempted(Outcome.DONE, said.answer or untold, key=unclear.entry.key)
            case "not_happened":
                self._attempts.doubt(placed.index, unclear.model_copy(update={"request": None}))
                return _not_done(said.reason)
            case _:
                self._attempts.uncertain(placed.index, unclear.entry)
                if said.choice == "stop":
                    self._rescuer.stop(said)
                return None


def _not_done(reason: str) -> steps.Attempted:
    return steps.Attempted(Outcome.NOT_DONE, ToolResult(text=f"not done: {reason}", error=True))
