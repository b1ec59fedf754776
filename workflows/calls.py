"""One call: made, looked up when its outcome is unknown, checked."""

from dataclasses import dataclass, replace

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows import steps
from workflows.contracts.base import JsonObject
from workflows.contracts.failures import Outcome
from workflows.contracts.policy import Verdict
from workflows.contracts.run import Edit, EffectEntry, Resolution, Unclear
from workflows.contracts.tool import TURN_LIMIT_BYTES, CallRequest, Effect, Tool, ToolRequest, ToolResult
from workflows.contracts.verification import FINAL, CheckPin, CheckRequest, CheckResult, ProbeRequest
from workflows.control import Control
from workflows.current import Current
from workflows.rescue import Rescuer
from workflows.rules import checking, effects, policy, wording
from workflows.rules.cel import Unevaluable

RERUNS = 3
"""How often a call is made again after it was found not to have happened."""


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a call, its checks included."""

    outcome: Outcome
    answer: ToolResult
    failed: str | None = None
    """Which check failed and why, for a call that was made."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A call of the open turn that may run."""

    index: int
    call: CallRequest
    """With the arguments that a person gave, if one did."""
    tool: Tool
    verdict: Verdict
    edit: Edit | None

    @property
    def line(self) -> str:
        return wording.call(self.call.tool, self.call.arguments, self.tool.sensitive)


class Calls:
    """Makes the calls of one run."""

    def __init__(self, current: Current, control: Control, rescuer: Rescuer) -> None:
        self._current = current
        self._control = control
        self._rescuer = rescuer
        self._in_flight: dict[int, EffectEntry] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a call that changes the world is in flight."""
        return bool(self._in_flight)

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end is not known."""
        unclear = (one.entry for one in self._current.now.unclear.values())
        return (*self._in_flight.values(), *unclear)

    async def make(self, placed: Placed) -> Made | None:
        """`None` when the run has to halt before it is known what became of the call."""
        if placed.index in self._current.now.unclear:
            attempted = await self._cleared_up(placed)
        else:
            attempted = await self._attempt(placed, self._entry(placed))
            if attempted.outcome is Outcome.UNKNOWN and self._is_cleared_up(placed.tool):
                attempted = await self._cleared_up(placed)
        if attempted is None:
            return None
        if attempted.outcome is not Outcome.DONE or attempted.answer.error:
            return Made(attempted.outcome, attempted.answer)
        return await self._checked(placed, attempted)

    def _is_cleared_up(self, tool: Tool) -> bool:
        return tool.effect.changes_world and self._current.now.agent.recovers

    async def _attempt(
        self, placed: Placed, entry: EffectEntry | None, instead_of: str | None = None
    ) -> steps.Attempted:
        key = entry.key if entry is not None else None
        if entry is not None:
            self._in_flight[placed.index] = entry
        if placed.tool.remote is not None:
            sent = await steps.call_remote_activity(placed.tool.remote, placed.call, placed.tool, key, placed.verdict)
            attempted = self._carried(sent)
        else:
            request = ToolRequest(
                agent=self._current.now.agent.digest,
                head=self._current.now.head,
                index=placed.index,
                key=key,
                instead_of=instead_of if instead_of != key else None,
                edited=placed.edit.call.blob if placed.edit is not None else None,
                step=self._current.now.step,
            )
            attempted = await steps.run_tool(request, placed.call, placed.tool, placed.verdict)
        if entry is not None:
            del self._in_flight[placed.index]
            self._account(placed, entry, attempted)
        return attempted

    def _account(self, placed: Placed, entry: EffectEntry, attempted: steps.Attempted) -> None:
        counted = entry.model_copy(update={"attempts": attempted.attempts})
        if attempted.outcome is Outcome.DONE:
            self._happened(placed.index, counted)
        elif attempted.outcome is Outcome.UNKNOWN:
            unclear = counted.model_copy(update={"reason": attempted.answer.text})
            if self._is_cleared_up(placed.tool):
                before = self._current.now.unclear.get(placed.index)
                self._doubt(placed.index, Unclear(entry=unclear, reruns=before.reruns if before else 0))
            else:
                self._current.update(uncertain=(*self._current.now.uncertain, unclear))
        else:
            self._settle(placed.index)

    def _entry(self, placed: Placed, rerun: str = "") -> EffectEntry | None:
        if not placed.tool.effect.changes_world:
            return None
        assert placed.call.digest is not None
        run = workflow.info().first_execution_run_id
        repeat: int | str = placed.call.repeat if placed.edit is None else placed.edit.request
        return EffectEntry(
            step=self._current.now.step,
            tool=placed.tool.name,
            call=placed.line,
            key=effects.idempotency_key(run, placed.call.digest, f"{repeat}/{rerun}" if rerun else repeat),
        )

    def _carried(self, attempted: steps.Attempted) -> steps.Attempted:
        """`attempted`, without its result if Temporal could not carry all inline results of the turn together."""
        size = len(attempted.answer.text or "")
        held = sum(len(answer.text or "") for answer in self._current.now.answers if answer is not None)
        if held + size <= TURN_LIMIT_BYTES // 2:
            return attempted
        text = f"done, but its result of {size} characters is more than one turn can return; ask for fewer at once"
        return replace(attempted, answer=ToolResult(text=text))

    async def _cleared_up(self, placed: Placed) -> steps.Attempted | None:
        """What became of a call whose outcome was unknown, as its probe or a person says; never a guess."""
        while True:
            unclear = self._current.now.unclear[placed.index]
            said = await self._probed(placed, unclear) if unclear.request is None else None
            if said is None:
                said = await self._asked(placed, unclear)
            if said is None or said.outcome is Outcome.DONE:
                return said
            if unclear.reruns >= RERUNS:
                self._settle(placed.index)
                return said
            entry = self._rerun_entry(placed, unclear)
            self._doubt(placed.index, Unclear(entry=entry, reruns=unclear.reruns + 1))
            attempted = await self._attempt(placed, entry, instead_of=unclear.entry.key)
            if attempted.outcome is not Outcome.UNKNOWN:
                return attempted

    def _rerun_entry(self, placed: Placed, unclear: Unclear) -> EffectEntry:
        """The same key where the other side knows keys for ever; else one of its own, which was never sent."""
        if placed.tool.effect is not Effect.ONCE and placed.tool.key_valid is None:
            return unclear.entry.model_copy(update={"reason": None})
        entry = self._entry(placed, rerun=f"{unclear.reruns + 1}")
        assert entry is not None
        return entry

    async def _probed(self, placed: Placed, unclear: Unclear) -> steps.Attempted | None:
        """What the tool's probe says; `None` when there is none or it cannot tell."""
        pin, its = self._current.now.agent, self._current.now
        probe = pin.probes.get(placed.tool.name)
        tool = pin.tool(probe.tool) if probe is not None else None
        if probe is None or tool is None:
            return None
        arguments = checking.arguments_of(probe.arguments, placed.call.arguments, unclear.entry.key)
        if isinstance(arguments, Unevaluable):
            self._current.recall(f"the probe {probe.tool} of {placed.line} cannot be called: {arguments.reason}")
            return None
        verdict = policy.judge(pin.policy, tool, arguments, self._current.facts, tools=pin.tools)
        if not verdict.allowed:
            self._current.recall(f"the probe {probe.tool} of {placed.line} may not be called: {verdict.reason}")
            return None
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
            probed = await steps.probe_call(request, probe, placed.tool.name, verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._current.recall(f"the probe {probe.tool} of {placed.line} gave no answer")
            return None
        self._current.recall(f"the probe {probe.tool} of {placed.line}: {probed.reason}")
        match probed.outcome:
            case Outcome.DONE:
                self._happened(placed.index, unclear.entry.model_copy(update={"reason": f"as {probe.tool} shows"}))
                found = probed.result or ToolResult(text="done")
                note = f"the reply was lost; {probe.tool} shows that it was done, this is what it returned"
                return steps.Attempted(Outcome.DONE, found.model_copy(update={"note": note}))
            case Outcome.NOT_DONE | Outcome.NOT_SENT:
                return steps.Attempted(Outcome.NOT_DONE, ToolResult(text=f"not done: {probed.reason}", error=True))
            case _:
                return None

    async def _asked(self, placed: Placed, unclear: Unclear) -> steps.Attempted | None:
        """What a person says; `None` when the run halts instead."""
        if unclear.request is None:
            request = self._rescuer.ask_outcome(placed.index, unclear.entry, placed.tool)
            unclear = unclear.model_copy(update={"request": request})
            self._doubt(placed.index, unclear)
        said = await self._rescuer.resolution(unclear.request or "")
        if said is None:
            return None
        match said.choice:
            case "happened":
                self._happened(placed.index, unclear.entry.model_copy(update={"reason": said.reason}))
                answer = said.answer or ToolResult(text="done; its reply was lost", note=said.reason)
                return steps.Attempted(Outcome.DONE, answer)
            case "not_happened":
                self._doubt(placed.index, unclear.model_copy(update={"request": None}))
                return steps.Attempted(Outcome.NOT_DONE, ToolResult(text=f"not done: {said.reason}", error=True))
            case _:
                self._uncertain(placed, unclear, said)
                return None

    def _uncertain(self, placed: Placed, unclear: Unclear, said: Resolution) -> None:
        """Nobody could say: the call stays uncertain, and the run ends."""
        self._settle(placed.index)
        self._current.update(uncertain=(*self._current.now.uncertain, unclear.entry))
        if said.choice == "stop":
            self._rescuer.stop(said)

    async def _checked(self, placed: Placed, attempted: steps.Attempted) -> Made:
        """The call with what its checks say; the first that fails decides."""
        pin = self._current.now.agent
        for check in checking.checks_after(pin.checks, placed.tool.name):
            arguments, facts = placed.call.arguments, self._current.facts
            if checking.applies(check, placed.tool, arguments, facts, tools=pin.tools) is False:
                continue
            request = CheckRequest(
                agent=pin.digest,
                check=check.name,
                head=self._current.now.head,
                step=self._current.now.step,
                index=placed.index,
                result=attempted.answer.model_copy(update={"preview": "", "note": None}),
                edited=placed.edit.call.blob if placed.edit is not None else None,
            )
            if (failed := await self._verified(check, request, arguments)) is not None:
                return Made(attempted.outcome, attempted.answer, failed)
        return Made(attempted.outcome, attempted.answer)

    async def failed_final_check(self) -> str | None:
        """Which check the final answer does not pass and why; `None` when it passes all."""
        pin = self._current.now.agent
        for check in checking.checks_after(pin.checks, FINAL):
            if checking.applies(check, None, {}, self._current.facts, tools=pin.tools) is False:
                continue
            now = self._current.now
            request = CheckRequest(agent=pin.digest, check=check.name, head=now.head, step=now.step)
            if (failed := await self._verified(check, request, {})) is not None:
                return failed
        return None

    async def _verified(self, check: CheckPin, request: CheckRequest, arguments: JsonObject) -> str | None:
        """Why a check is not passed, in words; `None` when it is, or counts so although it could not be made."""
        found = self._unaskable(check, arguments)
        if isinstance(found, dict):
            found = await self._rescuer.verify(check, request.model_copy(update={"arguments": found}))
        if found.finding == "pass" or (found.finding == "unable" and check.unable == "pass"):
            return None
        word = "failed" if found.finding == "fail" else "could not be made"
        return f"check {check.name!r} {word}: {found.reason}"

    def _unaskable(self, check: CheckPin, arguments: JsonObject) -> CheckResult | JsonObject:
        """The arguments of the check's tool, or why it cannot be called: it is a call like any other."""
        pin = self._current.now.agent
        tool = pin.tool(check.tool) if check.tool is not None else None
        if tool is None:
            return {}
        made = checking.arguments_of(check.arguments, arguments, None)
        if isinstance(made, Unevaluable):
            return CheckResult(finding="unable", reason=made.reason)
        verdict = policy.judge(pin.policy, tool, made, self._current.facts, tools=pin.tools)
        return made if verdict.allowed else CheckResult(finding="unable", reason=verdict.reason)

    def _happened(self, index: int, entry: EffectEntry) -> None:
        self._current.update(effects=effects.logged(self._current.now.effects, entry))
        self._settle(index)

    def _doubt(self, index: int, unclear: Unclear) -> None:
        self._current.update(unclear={**self._current.now.unclear, index: unclear})

    def _settle(self, index: int) -> None:
        if index in self._current.now.unclear:
            left = {other: one for other, one in self._current.now.unclear.items() if other != index}
            self._current.update(unclear=left)
