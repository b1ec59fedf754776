"""Failures of a turn, counted: what the model is told of them, and which calls are not made again."""

from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import CallRequest, Tool, ToolResult
from mandate.workflows.loop.model_route import ModelRoute
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import CallOutcome, JudgedCall
from mandate.workflows.rules import patience as rules_patience
from mandate.workflows.rules import recovery as rules_recovery
from mandate.workflows.rules import wording
from mandate.workflows.rules.plain_text import REASON_CHARACTERS


class AttemptLimits:
    """Failures of one run, counted."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._switched_at: int | None = None

    def count_outcome(self, placed: JudgedCall, made: CallOutcome) -> ToolResult:
        """Return the answer as the model is told it; count its failure if it is one."""
        digest = self._run.digest_call(placed.call)
        if made.failed is not None:
            is_effect, is_new = placed.tool.effect.changes_world, self._run.has(Change.KEEPS_SPOILED)
            attempt = self.count_failure(
                placed.tool.name,
                made.failed,
                of=placed.line,
                call=digest,
                index=placed.index,
                spoiled=is_effect and is_new,
                has_result=True,
            )
            note = wording.join_notes(
                made.answer.note, wording.describe_failed_check(made.failed, changed_world=is_effect), attempt
            )
            return made.answer.model_copy(update={"note": note, "unfit": is_new})
        if made.answer.error and made.answer.cause is not None:
            return made.answer
        if made.answer.error and made.is_passing and self._run.has(Change.EXCUSES_AGENT):
            return made.answer.model_copy(update={"cause": "other_side"})
        if made.answer.error:
            # What was not sent may go through another time, and so may what is busy; a definite no stays one.
            is_final = made.outcome is Outcome.NOT_DONE and not made.is_passing
            outcome = made.outcome.value if placed.tool.sensitive else wording.describe_error(made.answer)
            attempt = self.count_failure(
                placed.tool.name,
                outcome,
                of=placed.line,
                call=digest if is_final else None,
                index=placed.index,
                doubted=self._is_doubted(placed.tool, digest),
            )
            return made.answer.model_copy(update={"note": wording.join_notes(made.answer.note, attempt)})
        recovery = self._run.state.recovery
        recovery = rules_recovery.count_success(
            recovery, placed.tool.name, changed_world=placed.tool.effect.changes_world
        )
        recovery, times = rules_recovery.count_result(recovery, digest, made.answer)
        limit = self._run.state.agent.same_call
        if times >= 2 * limit:
            reason = f"{placed.line}, {times} times with the same result"
            for _ in range(self._run.state.agent.attempts):
                recovery = rules_recovery.count_failure(recovery, rules_recovery.SAME, reason, index=placed.index)
        self._run.state.recovery = recovery
        if times != limit:
            return made.answer
        note = f"you have made this call {times} times with the same result; do something else, or give your answer"
        return made.answer.model_copy(update={"note": wording.join_notes(made.answer.note, note)})

    def count_failure(
        self,
        tool: str,
        line: str,
        *,
        index: int,
        of: str = "",
        call: Digest | None = None,
        spoiled: bool = False,
        doubted: bool = False,
        has_result: bool = False,
    ) -> str | None:
        """Count a failure of a tool; return the words for the model if people help once attempts are used up."""
        recovery = rules_recovery.count_failure(
            self._run.state.recovery,
            tool,
            line,
            of=of,
            call=call,
            index=index,
            spoiled=spoiled,
            doubted=doubted,
            has_result=has_result,
        )
        self._run.state.recovery = recovery
        self.try_next_model()
        its = self._run.state.agent
        if not self._run.has(Change.ESCALATES) or not self._run.has(Change.TELLS_ATTEMPTS):
            return None
        return wording.describe_attempt(recovery.troubles[tool].failures, its.attempts, tool)

    def _is_doubted(self, tool: Tool, call: Digest) -> bool:
        """Return whether a failure may be gone when the agent makes the call once more; that time it is believed."""
        is_first = call not in self._run.state.recovery.doubted
        may_pass = rules_patience.find_second_patience(tool) is not None
        return is_first and may_pass and self._run.has(Change.REPEATS_TOLD_FAILURES)

    def try_next_model(self) -> None:
        """Count a failure, and choose the next model of the route if the agent file wants it; once a step."""
        its = self._run.state
        its.failures = its.failures + 1
        if its.agent.after_failure == "next_model" and self._switched_at != its.step:
            self._switched_at = its.step
            ModelRoute(self._run).leave_failed()

    def count_turn(self) -> None:
        """Count a turn, once, if none of its calls has worked: of so many in a row as there are attempts."""
        its = self._run.state
        if its.turn_counted or not its.calls or not self._run.has(Change.ESCALATES):
            return
        if self._run.has(Change.EXCUSES_AGENT) and self._excuse_turn():
            self._run.state.turn_counted = True
            return
        recovery = its.recovery
        if all(answer is not None and (answer.error or answer.unfit) for answer in its.answers):
            lines = "; ".join(map(self._failure_in_words, its.calls, its.answers))
            recovery = rules_recovery.count_failure(
                recovery,
                rules_recovery.TURNS,
                lines,
                index=len(its.calls) - 1,
                has_result=any(answer is not None and answer.unfit for answer in its.answers),
            )
        else:
            recovery = rules_recovery.count_success(recovery, rules_recovery.TURNS, changed_world=False)
        self._run.state.recovery = recovery
        self._run.state.turn_counted = True

    def _excuse_turn(self) -> bool:
        """Return whether no call of the turn worked and none of that is the agent's doing; tell the model so."""
        causes = [
            answer.cause if answer is not None and answer.error else "agent" for answer in self._run.state.answers
        ]
        if set(causes) == {"people"}:
            self._run.state.note = wording.ALL_REFUSED
        return None not in causes and "agent" not in causes

    def _failure_in_words(self, call: CallRequest, answer: ToolResult | None) -> str:
        """Return why a call of the turn did not work, without anything sensitive."""
        if answer is None:
            return "no answer"
        tool = self._run.state.agent.tool(call.tool)
        if tool is not None and tool.sensitive and not call.misfit:
            return "failed"
        return wording.shorten(answer.note or "", REASON_CHARACTERS) if answer.unfit else wording.describe_error(answer)

    def find_earlier_failure(self, call: CallRequest) -> str | None:
        """Return why the same call is not made again as it is."""
        recovery = self._run.state.recovery
        if not (recovery.failed or recovery.spoiled) or not self._run.has(Change.REFUSES_REPEATED):
            return None
        return rules_recovery.find_failure(recovery, self._run.digest_call(call))

    def find_refusal(self, call: CallRequest) -> str | None:
        """Return why the same call is not asked for again: a person has rejected it."""
        refused = self._run.state.recovery.refused
        if not refused or call.undoes is not None or not self._run.has(Change.EXCUSES_AGENT):
            return None
        return refused.get(self._run.digest_call(call))

    def refuse_again(self, index: int, call: CallRequest, before: str) -> None:
        """Refuse a call that a person has rejected before."""
        line = wording.describe_call(call.tool, call.arguments, self._run.tool(call.tool).sensitive)
        text = f"refused: people have rejected the same call before ({before}); nobody is asked again"
        attempt = self.count_failure(call.tool, f"{line}: asked for again after it was rejected", index=index)
        self._run.answer(index, ToolResult(text=text, error=True, note=attempt))
        self._run.record_step(f"not asked for again: {line}")

    def keep_failed(self, placed: JudgedCall, reason: str) -> None:
        """Keep an effect that was done wrongly: it is never made again as it is."""
        if placed.tool.effect.changes_world:
            digest = self._run.digest_call(placed.call)
            self._run.state.recovery = rules_recovery.keep_spoiled(self._run.state.recovery, digest, reason)

    def find_spoiled(self, index: int, call: CallRequest) -> str | None:
        """Return why a call is not made that was judged before the same one of its turn was done wrongly."""
        if not self._run.has(Change.KEEPS_SPOILED) or index in self._run.state.unclear or call.undoes is not None:
            return None
        spoiled = self._run.state.recovery.spoiled
        return spoiled.get(self._run.digest_call(call)) if spoiled else None

    def refuse(self, index: int, call: CallRequest, before: str) -> None:
        line = wording.describe_call(call.tool, call.arguments, self._run.tool(call.tool).sensitive)
        text = f"not made again: the same call failed before ({before}); try another way"
        was_done = self._run.digest_call(call) in self._run.state.recovery.spoiled
        attempt = self.count_failure(call.tool, f"{line}: repeated", index=index, has_result=was_done)
        self._run.answer(index, ToolResult(text=text, error=True, note=attempt))
        self._run.record_step(f"not made again: {line}")
