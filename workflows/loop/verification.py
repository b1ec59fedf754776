"""Checks after a call and of the final answer: the first that fails decides."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.contracts.verification import FINAL, CheckPin, CheckRequest, CheckResult
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.escalation import Escalations
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import policy, verification
from mandate.workflows.rules.cel.evaluation import Unevaluable

LOST = CheckResult(finding="unable", reason="what the call returned is not known")


class Verification:
    """Checks that the agent file names, and how they are made."""

    def __init__(self, run: Run, control: Control, escalations: Escalations) -> None:
        self._run = run
        self._control = control
        self._escalations = escalations

    async def verify_after(self, placed: JudgedCall, attempted: Attempted) -> str | None:
        """Return the check that the call does not pass and why; `None` when it passes all that precede a stop."""
        is_new = self._run.has(Change.PROBES_BY_KEY)
        arguments = placed.call.arguments
        request = CheckRequest(
            agent=self._run.state.agent.digest,
            check="",
            head=self._run.state.head,
            step=self._run.state.step,
            index=placed.index,
            result=attempted.answer.model_copy(update={"preview": "", "note": None}),
            edited=placed.edit.call.blob if placed.edit is not None else None,
            key=attempted.key if is_new else None,
        )
        for check in self._due_checks({placed.tool.known_as, placed.tool.name}, placed.tool, arguments, placed.index):
            if is_new and attempted.answer.stands_in and check.kind != "tool":
                found = LOST
                self._run.record_step(f"check {check.name}: {found.finding}, {found.reason}")
            else:
                found = await self._verify(check, request, arguments)
            if (failed := _failure(check, found)) is not None:
                return failed
        return None

    async def verify_final(self) -> str | None:
        """Return the check that the final answer does not pass and why."""
        for check in self._due_checks({FINAL}, None, {}, None):
            now = self._run.state
            request = CheckRequest(agent=now.agent.digest, check="", head=now.head, step=now.step)
            if (failed := _failure(check, await self._verify(check, request, {}))) is not None:
                return failed
        return None

    def _due_checks(
        self, after: AbstractSet[str], tool: Tool | None, arguments: JsonObject, index: int | None
    ) -> Iterator[CheckPin]:
        """Yield the checks whose condition holds, for the run as rules saw it when call `index` was judged."""
        pin = self._run.state.agent
        checks = verification.select_checks(pin.checks, after)
        facts = self._run.facts
        if (
            index is not None
            and self._run.has(Change.CHECKS_BY_FACTS)
            and any(check.when is not None for check in checks)
        ):
            facts = self._run.facts_before(index)
        for check in checks:
            if self._run.has(Change.HOLDS_BEFORE_ATTEMPTS) and self._control.is_stopping:
                return
            if verification.applies(check, tool, arguments, facts, tools=pin.tools) is not False:
                yield check

    async def _verify(self, check: CheckPin, request: CheckRequest, arguments: JsonObject) -> CheckResult:
        asked = self._arguments_of(check, arguments, request.key)
        if isinstance(asked, CheckResult):
            return asked
        tool = self._run.state.agent.tool(check.tool) if check.tool is not None else None
        filled = {"check": check.name, "arguments": asked, "requester": self._run.requester_for(tool)}
        payer = self._run.payer if check.kind == "model" else None
        found = await self._escalations.verify(check, request.model_copy(update={**filled, "payer": payer}))
        if tool is not None and found.finding != "pass":
            # The reason may hold the beginning of what it returned, and is told to the model.
            self._run.taint(tool)
        return found

    def _arguments_of(self, check: CheckPin, arguments: JsonObject, key: str | None) -> CheckResult | JsonObject:
        """Return the arguments of the check's tool, or why it cannot be called: it is a call like any other."""
        pin = self._run.state.agent
        tool = pin.tool(check.tool) if check.tool is not None else None
        if tool is None:
            return {}
        made = verification.compute_arguments(check.arguments, arguments, key)
        if isinstance(made, Unevaluable):
            return CheckResult(finding="unable", reason=made.reason)
        verdict = policy.judge(pin.policy, tool, made, self._run.facts, tools=pin.tools)
        return made if verdict.allowed else CheckResult(finding="unable", reason=verdict.reason)


def _failure(check: CheckPin, found: CheckResult) -> str | None:
    """Return why a check is not passed, in words; `None` when it is, or counts so although it was not made."""
    if found.finding == "pass" or (found.finding == "unable" and check.unable == "pass"):
        return None
    word = "failed" if found.finding == "fail" else "could not be made"
    return f"check {check.name!r} {word}: {found.reason}"
