"""The calls of one turn: judged in order, asked for, made, answered."""

import asyncio
from collections.abc import Sequence

from temporalio import workflow

from workflows.attempts import Placed
from workflows.calls import Calls, Made
from workflows.contracts.base import Digest, JsonObject
from workflows.contracts.failures import Outcome
from workflows.contracts.policy import Rule, RunFacts, Verdict
from workflows.contracts.request import CHOICES, EditedCall, Need, Request, RequestKind
from workflows.contracts.run import Edit, EffectEntry
from workflows.contracts.tool import CallRequest, Effect, Tool, ToolResult
from workflows.control import Control
from workflows.current import Current
from workflows.people import MESSAGES, PeopleGate, Settled
from workflows.rescue import Rescuer
from workflows.rules import asking, decisions, policy, routing, totals, troubles, wording

PARALLEL_READS = 64
"""Reads of one turn that are in flight at once."""

RESCUES = ("escalation", "outcome")
"""Kinds of requests that say how a run goes on."""

ASK_PERSON = "ask_person"

EVENTS = 1500
"""Events after which a run continues as new, so that another worker replays it within a second or two."""

NOTE_CHARACTERS = 2000
NOTES_CHARACTERS = 64 * 1024
"""Of what people say to the calls of one turn, all that the model is told: its results travel together."""


class Turn:
    """What the model asked for last, until each of its calls has an answer."""

    def __init__(self, current: Current, control: Control) -> None:
        self.gate = PeopleGate(current, self)
        self.rescuer = Rescuer(current, control, self.gate, lambda: self.is_leaving)
        self._current = current
        self._control = control
        self._calls = Calls(current, control, self.rescuer)
        self._switched_at: int | None = None

    @property
    def is_answered(self) -> bool:
        return all(answer is not None for answer in self._current.now.answers)

    @property
    def is_leaving(self) -> bool:
        """Whether the run continues as new as soon as nothing is in flight."""
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or info.get_current_history_length() >= EVENTS
            or self.gate.messages >= MESSAGES
        )

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end the run will not see."""
        return self._calls.lost

    def reopen(self) -> None:
        """Go on with a turn that was open when the run continued as new; older runs kept no verdicts."""
        missing = len(self._current.now.calls) - len(self._current.now.verdicts)
        self._current.update(verdicts=(*self._current.now.verdicts, *[None] * missing))

    def open(self, calls: tuple[CallRequest, ...]) -> None:
        """Begin a turn; what does not fit has its answer already."""
        answers = tuple(ToolResult(text=call.misfit, error=True) if call.misfit else None for call in calls)
        self._current.update(
            calls=calls,
            answers=answers,
            verdicts=tuple(None for _ in calls),
            edits={},
            notes={},
            turn_counted=False,
        )
        if not self._current.is_current_loop:
            return
        for index, call in enumerate(calls):
            if call.misfit and self._current.now.agent.tool(call.tool) is not None:
                self._failed(call.tool, f"{call.tool}: {call.misfit}", index=index)

    async def act(self) -> None:
        """Answer the open calls: reads side by side, effects one by one in the model's order.

        Returns early when the run stops, has to continue as new, or does not know what became of an effect.
        """
        self._judge()
        calls, answers = self._current.now.calls, self._current.now.answers
        open_calls = [index for index, answer in enumerate(answers) if answer is None]
        acting = [index for index in open_calls if self._tool(calls[index].tool).effect.changes_world]
        reading = [index for index in open_calls if index not in acting]
        slots = asyncio.Semaphore(PARALLEL_READS)
        if open_calls:
            await asyncio.gather(*(self._read(index, slots) for index in reading), self._act_in_order(acting))

    def _judge(self) -> None:
        """Judge each call that is not judged yet, one after another, and ask people for all that need it at once."""
        asked = []
        for index, call in enumerate(self._current.now.calls):
            if self._current.now.answers[index] is not None or self._current.now.verdicts[index] is not None:
                continue
            tool = self._tool(call.tool)
            verdict = policy.judge(
                self._rules, tool, call.arguments, self._current.facts, tools=self._current.now.agent.tools
            )
            if verdict.kind == "deny" or (verdict.kind == "ask" and not self._current.now.agent.asks):
                self._deny(index, verdict.reason)
                continue
            if (before := self._failed_before(call)) is not None:
                self._repeat(index, call, before)
                continue
            self._set_verdict(index, verdict)
            self._current.update(totals=totals.reserve(self._current.now.totals, tool, call.arguments))
            if verdict.kind == "ask" or _is_question(tool):
                self._set_verdict(index, verdict.model_copy(update={"kind": "ask"}))
                asked.append(self._request(index, call, tool, verdict))
        if asked:
            self._current.stand()
            self._current.refresh()
            self.gate.tell(asked, "asked")

    @property
    def _rules(self) -> Sequence[Rule]:
        return self._current.now.agent.policy

    def _request(self, index: int, call: CallRequest, tool: Tool, verdict: Verdict) -> Request:
        """Open the request that asks people for one call, or that passes on the agent's question."""
        question = str(call.arguments.get("question", "")) if _is_question(tool) else None
        options = call.arguments.get("options")
        kind: RequestKind = "approval" if question is None else "question"
        line = wording.call(call.tool, call.arguments, tool.sensitive)
        request_id = self.gate.next_id()
        request = Request(
            id=request_id,
            kind=kind,
            digest=self._digest(request_id, kind, call.tool, call.digest or call.arguments),
            title=_title(line) if question is None else wording.shorten(question, 160),
            tool=call.tool,
            question=question,
            options=tuple(map(str, options)) if isinstance(options, list) else (),
            reason=verdict.reason if question is None else f"the agent {self._current.now.agent.name!r} asks",
            effect=str(tool.effect),
            risk=tool.risk,
            tainted=self._current.now.tainted,
            step=self._current.now.step,
            head=self._current.now.head,
            index=index,
            choices=CHOICES[kind],
            needs=asking.needs_of(verdict, self._rules, self._current.now.agent.people, workflow.now()),
            requested_at=workflow.now(),
        )
        self.gate.ask(request)
        self._current.recall(f"asks {', '.join(request.waits_for)}: {request.title} ({request_id})")
        return request

    def _digest(self, request: str, kind: RequestKind, tool: str, arguments: Digest | JsonObject) -> Digest:
        run = workflow.info().first_execution_run_id
        agent = self._current.now.agent.digest
        return decisions.request_digest(run, request, kind=kind, tool=tool, arguments=arguments, agent=agent)

    async def _read(self, index: int, slots: asyncio.Semaphore) -> None:
        if await self._is_cleared(index):
            async with slots:
                if await self._may_begin():
                    await self._make(index)

    async def _act_in_order(self, indexes: list[int]) -> None:
        for index in indexes:
            if self._is_halting:
                return
            if await self._is_cleared(index) and await self._may_begin():
                await self._make(index)

    @property
    def _is_halting(self) -> bool:
        return self._control.is_stopping or bool(self._current.now.uncertain) or self.is_leaving

    async def _is_cleared(self, index: int) -> bool:
        """Whether a call may run: at once, or when people have decided; false also when the run has to halt before."""

        def is_decided() -> bool:
            verdict = self._current.now.verdicts[index]
            return self._current.now.answers[index] is not None or verdict is None or verdict.kind != "ask"

        if not is_decided():
            self._wait_for_people()
            await workflow.wait_condition(lambda: is_decided() or self._is_halting)
        verdict = self._current.now.verdicts[index]
        return self._current.now.answers[index] is None and verdict is not None and verdict.allowed

    def _wait_for_people(self) -> None:
        if not self._calls.is_busy:
            names = dict.fromkeys(name for request in self.gate.state.open for name in request.waits_for)
            self._current.show(f"waiting for {', '.join(names)}")

    async def _may_begin(self) -> bool:
        return await self._control.go_ahead(lambda: self.is_leaving) and not self._is_halting

    async def _make(self, index: int) -> None:
        """Make one call that may run, and keep its answer."""
        call, edit = self._current.now.calls[index], self._current.now.edits.get(index)
        tool, verdict = self._tool(call.tool), self._current.now.verdicts[index]
        assert verdict is not None
        if edit is not None:
            call = call.model_copy(update={"arguments": edit.call.arguments, "digest": edit.call.digest})
        if (before := self._spoiled_meanwhile(index, call)) is not None:
            self._give_back(tool, call.arguments)
            self._repeat(index, call, before)
            return
        placed = Placed(index, call, tool, verdict, edit, self._facts_before(index))
        self._current.show(placed.line)
        made = await self._calls.make(placed)
        self._current.update(tainted=self._current.now.tainted or tool.untrusted)
        if made is None:
            return
        if made.outcome in {Outcome.NOT_DONE, Outcome.NOT_SENT}:
            self._give_back(tool, call.arguments)
        answer = self._judged_by_result(placed, made)
        # A result may repeat what the arguments hold.
        told = made.outcome.value.replace("_", " ") if tool.sensitive else wording.result(made.answer)
        self._answer(index, answer)
        self._current.recall(f"{placed.line} → {told}")

    def _judged_by_result(self, placed: Placed, made: Made) -> ToolResult:
        """The answer as the model is told it, its failure counted if it is one."""
        digest = troubles.call_digest(placed.call.tool, placed.call.arguments)
        if made.failed is not None:
            is_effect = placed.tool.effect.changes_world
            line = f"{placed.line}: {made.failed}"
            attempt = self._failed(placed.tool.name, line, call=digest, index=placed.index, spoiled=is_effect)
            note = _joined(made.answer.note, wording.failed_check(made.failed, changed_world=is_effect), attempt)
            return made.answer.model_copy(update={"note": note, "unfit": True})
        if made.answer.error:
            # What was not sent may go through another time, and so may what is busy; a definite no stays one.
            is_final = made.outcome is Outcome.NOT_DONE and not made.is_passing
            line = f"{placed.line}: {made.outcome.value if placed.tool.sensitive else wording.result(made.answer)}"
            attempt = self._failed(placed.tool.name, line, call=digest if is_final else None, index=placed.index)
            return made.answer.model_copy(update={"note": _joined(made.answer.note, attempt)})
        recovery = self._current.now.recovery
        recovery = troubles.succeeded(recovery, placed.tool.name, changed_world=placed.tool.effect.changes_world)
        recovery, times = troubles.seen(recovery, digest, made.answer)
        limit = self._current.now.agent.same_call
        if times >= 2 * limit:
            reason = f"{placed.line}, {times} times with the same result"
            for _ in range(self._current.now.agent.attempts):
                recovery = troubles.failed(recovery, troubles.SAME, reason, index=placed.index)
        self._current.update(recovery=recovery)
        if times != limit:
            return made.answer
        note = f"you have made this call {times} times with the same result; do something else, or give your answer"
        return made.answer.model_copy(update={"note": _joined(made.answer.note, note)})

    def _failed(
        self, tool: str, line: str, *, index: int, call: Digest | None = None, spoiled: bool = False
    ) -> str | None:
        """Counts a failure of a tool; what the model is told of it, if people help once attempts are used up."""
        recovery = troubles.failed(self._current.now.recovery, tool, line, call=call, index=index, spoiled=spoiled)
        self._current.update(recovery=recovery)
        self.try_next_model()
        its = self._current.now.agent
        if not its.recovers or not self._current.is_current_loop:
            return None
        return wording.attempt(recovery.troubles[tool].failures, its.attempts, tool)

    def try_next_model(self) -> None:
        """After a failure the next model of the route goes on, if the agent file wants it; once a step."""
        its = self._current.now
        if its.agent.after_failure == "next_model" and self._switched_at != its.step:
            self._switched_at = its.step
            following = routing.after(its.agent.models, its.model or its.agent.models[0])
            if following is not None:
                self._current.update(model=following)

    async def failed_final_check(self) -> str | None:
        """Which check the final answer does not pass and why; `None` when it passes all."""
        return await self._calls.failed_final_check()

    def count(self) -> None:
        """Once a turn: whether none of its calls has worked, as so many turns in a row as there are attempts."""
        its = self._current.now
        if its.turn_counted or not its.calls or not its.agent.recovers:
            return
        recovery = its.recovery
        if all(answer is not None and (answer.error or answer.unfit) for answer in its.answers):
            lines = "; ".join(map(self._failure_in_words, its.calls, its.answers))
            recovery = troubles.failed(recovery, troubles.TURNS, lines, index=len(its.calls) - 1)
        else:
            recovery = troubles.succeeded(recovery, troubles.TURNS, changed_world=False)
        self._current.update(recovery=recovery, turn_counted=True)

    def _failure_in_words(self, call: CallRequest, answer: ToolResult | None) -> str:
        """Why a call of the turn did not work, without anything sensitive."""
        if answer is None:
            return "no answer"
        tool = self._current.now.agent.tool(call.tool)
        if tool is not None and tool.sensitive and not call.misfit:
            return "failed"
        return wording.shorten(answer.note or "", 200) if answer.unfit else wording.result(answer)

    def supply(self, index: int | None, answer: ToolResult) -> None:
        """Put a person's result in place of what a call of the open turn returned."""
        if index is not None and index < len(self._current.now.answers):
            self._answer(index, answer)

    def _failed_before(self, call: CallRequest) -> str | None:
        """Why the same call is not made again as it is."""
        recovery = self._current.now.recovery
        if not (recovery.failed or recovery.spoiled) or not self._current.now.agent.recovers:
            return None
        return troubles.failed_before(recovery, troubles.call_digest(call.tool, call.arguments))

    def _spoiled_meanwhile(self, index: int, call: CallRequest) -> str | None:
        """Why a call is not made that was judged before the same one of its turn was made, and was done wrongly."""
        if not self._current.is_current_loop or index in self._current.now.unclear:
            return None
        spoiled = self._current.now.recovery.spoiled
        return spoiled.get(troubles.call_digest(call.tool, call.arguments)) if spoiled else None

    def _facts_before(self, index: int) -> RunFacts:
        """What rules saw of the run: without this call, and without those that come after it and are not made yet."""
        its = self._current.now
        before = its.totals
        for other in range(index, len(its.calls)):
            verdict, answer = its.verdicts[other], its.answers[other]
            if answer is None and verdict is not None and verdict.kind != "deny":
                edit = its.edits.get(other)
                arguments = its.calls[other].arguments if edit is None else edit.call.arguments
                before = totals.give_back(before, self._tool(its.calls[other].tool), arguments)
        return self._current.facts.model_copy(update={"totals": before})

    def _repeat(self, index: int, call: CallRequest, before: str) -> None:
        line = wording.call(call.tool, call.arguments, self._tool(call.tool).sensitive)
        text = f"not made again: the same call failed before ({before}); try another way"
        attempt = self._failed(call.tool, f"{line}: repeated", index=index)
        self._answer(index, ToolResult(text=text, error=True, note=attempt))
        self._current.recall(f"not made again: {line}")

    def _deny(self, index: int, reason: str) -> None:
        call = self._current.now.calls[index]
        line = wording.call(call.tool, call.arguments, self._tool(call.tool).sensitive)
        self._answer(index, ToolResult(text=f"refused: {reason}", error=True))
        self._current.recall(f"refused: {line} ({reason})")

    def _answer(self, index: int, answer: ToolResult) -> None:
        note = self._current.now.notes.get(index)
        told = answer if note is None else answer.model_copy(update={"note": _joined(note, answer.note)})
        answers = list(self._current.now.answers)
        answers[index] = told
        self._current.update(answers=tuple(answers))

    def _set_verdict(self, index: int, verdict: Verdict) -> None:
        verdicts = list(self._current.now.verdicts)
        verdicts[index] = verdict
        self._current.update(verdicts=tuple(verdicts))

    def _give_back(self, tool: Tool, arguments: JsonObject) -> None:
        self._current.update(totals=totals.give_back(self._current.now.totals, tool, arguments))

    def _tool(self, name: str) -> Tool:
        tool = self._current.now.agent.tool(name)
        assert tool is not None, name
        return tool

    # What the gate asks of its run.

    def tool_of(self, request: Request) -> Tool | None:
        return self._tool(request.tool) if request.kind == "approval" and request.tool is not None else None

    def judged(self, request: Request, edited: EditedCall) -> tuple[Verdict, Sequence[Need]]:
        """The call with other arguments, as if the one that is open were not there."""
        call, tool = self._current.now.calls[request.index], self._tool(request.tool or "")
        held = request.edited.arguments if request.edited is not None else call.arguments
        before = totals.give_back(self._current.now.totals, tool, held)
        facts = self._current.facts.model_copy(update={"totals": before})
        verdict = policy.judge(self._rules, tool, edited.arguments, facts, tools=self._current.now.agent.tools)
        if verdict.kind == "deny":
            return verdict, ()
        self._current.update(totals=totals.reserve(before, tool, edited.arguments))
        if verdict.kind == "allow":
            return verdict, ()
        return verdict, asking.needs_of(verdict, self._rules, self._current.now.agent.people, workflow.now())

    def digest_of(self, request: Request, edited: EditedCall) -> Digest:
        return self._digest(request.id, request.kind, request.tool or "", edited.digest)

    def title_of(self, request: Request, edited: EditedCall) -> str:
        return _title(wording.call(request.tool or "", edited.arguments, self._tool(request.tool or "").sensitive))

    def view(self, request: Request) -> Request:
        if request.tool is None or request.index >= len(self._current.now.calls):
            return request
        call, tool = self._current.now.calls[request.index], self._tool(request.tool or "")
        edit = self._current.now.edits.get(request.index)
        edited = request.edited or (edit.call if edit is not None else None)
        arguments = edited.arguments if edited is not None else call.arguments
        return request.model_copy(update={"arguments": wording.masked(arguments, tool.sensitive), "edited": edited})

    def settle(self, settled: Settled) -> None:
        """A request is closed: its call may run, or has its answer."""
        if settled.request.kind in RESCUES:
            self.rescuer.resolve(settled)
            self._current.recall(f"{settled.request.id}: {settled.reason}")
            self._current.stand()
            return
        request, index = settled.request, settled.request.index
        call, tool = self._current.now.calls[index], self._tool(settled.request.tool or "")
        said = f" ({self._noted(settled.comment)})" if settled.comment else ""
        match settled.outcome:
            case "approved":
                self._clear(settled)
            case "answered":
                assert settled.answer is not None
                self._answer(index, settled.answer)
            case "withdrawn" | "settled":
                pass
            case "rejected" | "expired":
                held = request.edited.arguments if request.edited is not None else call.arguments
                self._give_back(tool, held)
                self._answer(index, ToolResult(text=f"refused: {settled.reason}{said}", error=True))
        self._current.recall(f"{request.id}: {settled.reason}{said}")
        self._current.stand()

    def _clear(self, settled: Settled) -> None:
        request, index = settled.request, settled.request.index
        notes = [f"{settled.reason}: {self._noted(settled.comment)}"] if settled.comment else []
        if request.edited is not None:
            edits = {**self._current.now.edits, index: Edit(call=request.edited, request=request.id)}
            self._current.update(edits=edits)
            sensitive = self._tool(request.tool or "").sensitive
            ran = self._noted(wording.arguments(request.edited.arguments, sensitive))
            notes.insert(0, f"{request.edited.by} changed this call before it ran; it ran with {ran}")
        if notes:
            self._current.update(notes={**self._current.now.notes, index: "; ".join(notes)})
        rule = request.needs[0].rule
        self._set_verdict(index, Verdict(kind="allow", rule=rule, reason=settled.reason))

    def _noted(self, text: str) -> str:
        """`text` as long as Temporal can carry such a text for each call of the turn."""
        share = min(NOTE_CHARACTERS, NOTES_CHARACTERS // len(self._current.now.calls))
        return text if len(text) <= share else f"{text[: share - 1]}…"


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _title(line: str) -> str:
    return wording.shorten(f"{line}?", 160)


def _is_question(tool: Tool) -> bool:
    return tool.source == "builtin" and tool.name == ASK_PERSON and tool.effect is Effect.READ
