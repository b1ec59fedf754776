"""The calls of the open turn as they stand in the state: verdicts, answers, shares of totals."""

from collections.abc import Sequence

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.policy import Rule, RunFacts, Verdict
from mandate.workflows.contracts.tool import CallRequest, Tool, ToolResult
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import redaction, totals, wording


class OpenCalls:
    """Reader and writer of them; decides nothing."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def rules(self) -> Sequence[Rule]:
        return self._run.state.agent.policy

    def tool(self, name: str) -> Tool:
        tool = self._run.state.agent.tool(name)
        assert tool is not None, name
        return tool

    def answer(self, index: int, answer: ToolResult) -> None:
        """Keep the answer to a call, beside what people said of it."""
        note = self._run.state.notes.get(index)
        told = answer if note is None else answer.model_copy(update={"note": wording.join_notes(note, answer.note)})
        answers = list(self._run.state.answers)
        answers[index] = told
        self._run.update(answers=tuple(answers))

    def shown(self, call: CallRequest, answer: ToolResult | None) -> ToolResult | None:
        """Return an answer as people may see it: what a tool returns may repeat what it was given."""
        tool = self._run.state.agent.tool(call.tool)
        if answer is None or answer.text is None or call.misfit or tool is None or not tool.sensitive:
            return answer
        return answer.model_copy(update={"text": redaction.HIDDEN})

    def deny(self, index: int, reason: str) -> None:
        call = self._run.state.calls[index]
        line = wording.describe_call(call.tool, call.arguments, self.tool(call.tool).sensitive)
        self.answer(index, ToolResult(text=f"refused: {reason}", error=True))
        self._run.record_step(f"refused: {line} ({reason})")

    def set_verdict(self, index: int, verdict: Verdict) -> None:
        verdicts = list(self._run.state.verdicts)
        verdicts[index] = verdict
        self._run.update(verdicts=tuple(verdicts))

    def reserve(self, tool: Tool, arguments: JsonObject) -> None:
        self._run.update(totals=totals.reserve(self._run.state.totals, tool, arguments))

    def give_back(self, tool: Tool, arguments: JsonObject) -> None:
        """Take out of the totals what `reserve` put in for this call."""
        self._run.update(totals=totals.give_back(self._run.state.totals, tool, arguments))

    def drop(self) -> None:
        """Drop calls that have no answer yet: they are not made, and their share goes back."""
        its = self._run.state
        for index, call in enumerate(its.calls):
            verdict = its.verdicts[index]
            if its.answers[index] is None and verdict is not None and verdict.kind != "deny":
                edit = its.edits.get(index)
                self.give_back(self.tool(call.tool), call.arguments if edit is None else edit.call.arguments)

    def facts_before(self, index: int) -> RunFacts:
        """Return the facts that rules saw of the run: without this call, and without later ones not made yet."""
        its = self._run.state
        before = its.totals
        for other in range(index, len(its.calls)):
            verdict, answer = its.verdicts[other], its.answers[other]
            if answer is None and verdict is not None and verdict.kind != "deny":
                edit = its.edits.get(other)
                arguments = its.calls[other].arguments if edit is None else edit.call.arguments
                before = totals.give_back(before, self.tool(its.calls[other].tool), arguments)
        return self._run.facts.model_copy(update={"totals": before})
