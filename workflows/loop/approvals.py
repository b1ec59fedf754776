"""Calls that people decide on: the request, other arguments for it, and what becomes of the call."""

from collections.abc import Callable, Sequence

from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import CHOICES, REJECT, EditedCall, Need, Request, RequestKind
from mandate.workflows.contracts.run import Edit
from mandate.workflows.contracts.tool import TURN_LIMIT_BYTES, CallRequest, Effect, SignedApproval, Tool, ToolResult
from mandate.workflows.loop.desk import Settled
from mandate.workflows.loop.open_calls import OpenCalls
from mandate.workflows.loop.people import PeopleGate
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import decisions, needs, policy, redaction, totals, wording
from temporalio import workflow

RESCUES = ("escalation", "outcome")
"""Kinds of requests that say how a run goes on."""

ASK_PERSON = "ask_person"

NOTE_CHARACTERS = 2000
NOTES_CHARACTERS = 64 * 1024
"""Of what people say to the calls of one turn, all that the model is told: its results travel together."""


class Approvals:
    """Answers for the gate about the calls of a turn."""

    def __init__(self, run: Run, calls: OpenCalls, on_rescued: Callable[[Settled], None]) -> None:
        """Take the run; `on_rescued` is told of requests that are about the run as a whole."""
        self._run = run
        self._calls = calls
        self._on_rescued = on_rescued

    def ask(self, gate: PeopleGate, index: int, call: CallRequest, tool: Tool, verdict: Verdict) -> Request:
        """Open the request that asks people for one call, or that passes on the agent's question."""
        question = str(call.arguments.get("question", "")) if is_question(tool) else None
        options = call.arguments.get("options")
        kind: RequestKind = "approval" if question is None else "question"
        line = wording.describe_call(call.tool, call.arguments, tool.sensitive)
        request_id = gate.next_id()
        request = Request(
            id=request_id,
            kind=kind,
            digest=self._digest(request_id, kind, call.tool, call.digest or call.arguments),
            title=_title(line) if question is None else wording.shorten(question, 160),
            tool=call.tool,
            question=question,
            options=tuple(map(str, options)) if isinstance(options, list) else (),
            reason=self._reason(call, verdict)
            if question is None
            else f"the agent {self._run.state.agent.name!r} asks",
            effect=str(tool.effect),
            risk=tool.risk,
            tainted=self._run.state.tainted,
            step=self._run.state.step,
            head=self._run.state.head,
            index=index,
            choices=CHOICES[kind],
            needs=needs.list_needs(verdict, self._calls.rules, self._run.state.agent.people, workflow.now()),
            requested_at=workflow.now(),
        )
        gate.ask(request)
        self._run.record_step(f"asks {', '.join(request.waits_for)}: {request.title} ({request_id})")
        return request

    def _reason(self, call: CallRequest, verdict: Verdict) -> str:
        undone = next((done for done in self._run.state.compensable if done.key == call.undoes), None)
        if undone is None:
            return verdict.reason
        return f"the run was stopped, and this takes back {undone.line}; {verdict.reason}"

    def _digest(self, request: str, kind: RequestKind, tool: str, arguments: Digest | JsonObject) -> Digest:
        run = workflow.info().first_execution_run_id
        agent = self._run.state.agent.digest
        return decisions.compute_digest(run, request, kind=kind, tool=tool, arguments=arguments, agent=agent)

    def tool_of(self, request: Request) -> Tool | None:
        return self._calls.tool(request.tool) if request.kind == "approval" and request.tool is not None else None

    def judged(self, request: Request, edited: EditedCall) -> tuple[Verdict, Sequence[Need]]:
        """Judge the call with other arguments, as if the one that is open were not there."""
        call, tool = self._run.state.calls[request.index], self._calls.tool(request.tool or "")
        held = request.edited.arguments if request.edited is not None else call.arguments
        before = totals.give_back(self._run.state.totals, tool, held)
        facts = self._run.facts.model_copy(update={"totals": before})
        verdict = policy.judge(self._calls.rules, tool, edited.arguments, facts, tools=self._run.state.agent.tools)
        if verdict.kind == "deny":
            return verdict, ()
        if self._run.is_current_loop and self._held(request.id) + _size(edited) > TURN_LIMIT_BYTES // 2:
            reason = f"the changed arguments of this turn's calls would be over {TURN_LIMIT_BYTES // 2} bytes together"
            return Verdict(kind="deny", reason=reason), ()
        self._run.update(totals=totals.reserve(before, tool, edited.arguments))
        if verdict.kind == "allow":
            return verdict, ()
        return verdict, needs.list_needs(verdict, self._calls.rules, self._run.state.agent.people, workflow.now())

    def _held(self, but: str) -> int:
        """Return the bytes that changed arguments take in the state, those of one request left out."""
        asked = [one.edited for one in self._run.state.people.open if one.edited is not None and one.id != but]
        return sum(map(_size, [*asked, *(edit.call for edit in self._run.state.edits.values())]))

    def digest_of(self, request: Request, edited: EditedCall) -> Digest:
        return self._digest(request.id, request.kind, request.tool or "", edited.digest)

    def title_of(self, request: Request, edited: EditedCall) -> str:
        return _title(
            wording.describe_call(request.tool or "", edited.arguments, self._calls.tool(request.tool or "").sensitive)
        )

    def view(self, request: Request) -> Request:
        if request.tool is None or request.index >= len(self._run.state.calls):
            return request
        call, tool = self._run.state.calls[request.index], self._calls.tool(request.tool or "")
        edit = self._run.state.edits.get(request.index)
        edited = request.edited or (edit.call if edit is not None else None)
        arguments = edited.arguments if edited is not None else call.arguments
        return request.model_copy(update={"arguments": redaction.mask(arguments, tool.sensitive), "edited": edited})

    def settle(self, settled: Settled) -> None:
        """Settle a request that is closed: its call may run, or has its answer."""
        if settled.request.kind in RESCUES:
            self._on_rescued(settled)
            self._run.record_step(f"{settled.request.id}: {settled.reason}")
            self._run.publish_status()
            return
        request, index = settled.request, settled.request.index
        call, tool = self._run.state.calls[index], self._calls.tool(settled.request.tool or "")
        said = f" ({self._noted(settled.comment)})" if settled.comment else ""
        match settled.outcome:
            case "approved":
                self._clear(settled)
            case "answered":
                assert settled.answer is not None
                self._calls.answer(index, settled.answer)
            case "withdrawn" | "settled":
                pass
            case "rejected" | "expired":
                held = request.edited.arguments if request.edited is not None else call.arguments
                self._calls.give_back(tool, held)
                self._calls.answer(index, ToolResult(text=f"refused: {settled.reason}{said}", error=True))
        self._run.record_step(f"{request.id}: {settled.reason}{said}")
        self._run.publish_status()

    def _clear(self, settled: Settled) -> None:
        request, index = settled.request, settled.request.index
        notes = [f"{settled.reason}: {self._noted(settled.comment)}"] if settled.comment else []
        if request.edited is not None:
            edits = {**self._run.state.edits, index: Edit(call=request.edited, request=request.id)}
            self._run.update(edits=edits)
            sensitive = self._calls.tool(request.tool or "").sensitive
            ran = self._noted(wording.describe_arguments(request.edited.arguments, sensitive))
            notes.insert(0, f"{request.edited.by} changed this call before it ran; it ran with {ran}")
        if notes:
            self._run.update(notes={**self._run.state.notes, index: "; ".join(notes)})
        if (signed := self._signed(request)) is not None:
            self._run.update(signed={**self._run.state.signed, index: signed})
        rule = request.needs[0].rule
        self._calls.set_verdict(index, Verdict(kind="allow", rule=rule, reason=settled.reason))

    def _signed(self, request: Request) -> SignedApproval | None:
        """Return the signatures that whoever makes the call checks again."""
        rules = tuple(need.rule for need in request.needs if need.signature)
        if not rules:
            return None
        evidence = (recorded.evidence for recorded in decisions.list_counting(request) if recorded.choice != REJECT)
        return SignedApproval(
            run=workflow.info().first_execution_run_id,
            request=request.id,
            rules=rules,
            evidence=tuple(address for address in evidence if address is not None),
        )

    def _noted(self, text: str) -> str:
        """Return `text` as long as Temporal can carry such a text for each call of the turn."""
        share = min(NOTE_CHARACTERS, NOTES_CHARACTERS // len(self._run.state.calls))
        return text if len(text) <= share else f"{text[: share - 1]}…"


def _size(edited: EditedCall) -> int:
    return len(canonical_json(edited.arguments))


def is_question(tool: Tool) -> bool:
    return tool.source == "builtin" and tool.name == ASK_PERSON and tool.effect is Effect.READ


def _title(line: str) -> str:
    return wording.shorten(f"{line}?", 160)
