"""Calls that people decide on: the request, other arguments for the call, and what becomes of it."""

from collections.abc import Sequence

from temporalio import workflow

from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import CHOICES, REJECT, EditedCall, Need, Request, RequestKind
from mandate.workflows.contracts.state import Edit
from mandate.workflows.contracts.tool import TURN_LIMIT_BYTES, CallRequest, Effect, SignedApproval, Tool, ToolResult
from mandate.workflows.loop.resolutions import ClosedRequest
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import decisions, effects, policy, recovery, redaction, totals, wording
from mandate.workflows.rules.plain_text import cut

ASK_PERSON = "ask_person"

NOTE_CHARACTERS = 2000
NOTES_CHARACTERS = 64 * 1024
"""Of what people say to the calls of one turn, all that the model is told: its results travel together."""


def build_request(run: Run, request_id: str, index: int, verdict: Verdict) -> Request:
    """Return the request that asks people for one call, or that passes on the agent's question."""
    call = run.state.calls[index]
    tool = run.tool(call.tool)
    question = str(call.arguments.get("question", "")) if is_question(tool) else None
    options = call.arguments.get("options")
    kind: RequestKind = "approval" if question is None else "question"
    line = wording.describe_call(call.tool, call.arguments, tool.sensitive)
    return Request(
        id=request_id,
        kind=kind,
        digest=_digest(run, request_id, kind, call.tool, call.digest or call.arguments),
        title=_title(line) if question is None else wording.shorten(question, 160),
        tool=call.tool,
        question=question,
        options=tuple(map(str, options)) if isinstance(options, list) else (),
        reason=_reason(run, call, verdict) if question is None else f"the agent {run.state.agent.name!r} asks",
        effect=str(effects.find_effect(tool, call.arguments, run.state.agent.tool)),
        risk=tool.risk,
        tainted=run.state.tainted,
        step=run.state.step,
        head=run.state.head,
        index=index,
        choices=CHOICES[kind],
        needs=run.list_needs(verdict),
        requested_at=workflow.now(),
    )


def is_question(tool: Tool) -> bool:
    """Tell whether `tool` is the built-in one that asks people a question."""
    return tool.source == "builtin" and tool.name == ASK_PERSON and tool.effect is Effect.READ


def find_tool(run: Run, request: Request) -> Tool | None:
    """Return the tool that an approval is about."""
    return run.tool(request.tool) if request.kind == "approval" and request.tool is not None else None


def view(run: Run, request: Request) -> Request:
    """Return `request` with its arguments as people may see them, which the state does not hold a second time."""
    if request.tool is None or request.index >= len(run.state.calls):
        return request
    call, tool = run.state.calls[request.index], run.tool(request.tool or "")
    edit = run.state.edits.get(request.index)
    edited = request.edited or (edit.call if edit is not None else None)
    arguments = edited.arguments if edited is not None else call.arguments
    return request.model_copy(update={"arguments": redaction.mask(arguments, tool.sensitive), "edited": edited})


def judge_edit(run: Run, request: Request, edited: EditedCall) -> tuple[Verdict, Sequence[Need]]:
    """Return the verdict on other arguments and what it then needs, as if the open call were not there."""
    call, tool = run.state.calls[request.index], run.tool(request.tool or "")
    held = request.edited.arguments if request.edited is not None else call.arguments
    before = totals.give_back(run.state.totals, tool, held)
    facts = run.facts.model_copy(update={"totals": before})
    verdict = policy.judge(run.rules, tool, edited.arguments, facts, tools=run.state.agent.tools)
    if verdict.kind == "deny":
        return verdict, ()
    if run.has(Change.LIMITS_EDITS) and _edited_bytes(run, request.id) + _size(edited) > TURN_LIMIT_BYTES // 2:
        reason = f"the changed arguments of this turn's calls would be over {TURN_LIMIT_BYTES // 2} bytes together"
        return Verdict(kind="deny", reason=reason), ()
    run.state.totals = totals.reserve(before, tool, edited.arguments)
    if verdict.kind == "allow":
        return verdict, ()
    return verdict, run.list_needs(verdict)


def edit_digest(run: Run, request: Request, edited: EditedCall) -> Digest:
    """Return the digest of `request` about these other arguments."""
    return _digest(run, request.id, request.kind, request.tool or "", edited.digest)


def edit_title(run: Run, request: Request, edited: EditedCall) -> str:
    """Return the title of `request` about these other arguments."""
    tool = request.tool or ""
    return _title(wording.describe_call(tool, edited.arguments, run.tool(tool).sensitive))


def close(run: Run, closed: ClosedRequest) -> None:
    """Let the call of a closed request run, or give it its answer."""
    request, index = closed.request, closed.request.index
    call, tool = run.state.calls[index], run.tool(closed.request.tool or "")
    comment = f" ({_shortened(run, closed.comment)})" if closed.comment else ""
    match closed.outcome:
        case "approved":
            _allow(run, closed)
        case "answered":
            assert closed.answer is not None
            run.answer(index, closed.answer)
        case "withdrawn" | "settled":
            pass
        case "rejected" | "expired":
            held = request.edited.arguments if request.edited is not None else call.arguments
            run.release(tool, held)
            is_excused = run.has(Change.EXCUSES_AGENT)
            text = f"refused: {closed.reason}{comment}"
            run.answer(index, ToolResult(text=text, error=True, cause="people" if is_excused else None))
            if is_excused and closed.outcome == "rejected" and request.kind == "approval":
                digest = run.digest_call(call)
                run.state.recovery = recovery.keep_refusal(run.state.recovery, digest, f"{closed.reason}{comment}")
    run.record_step(f"{request.id}: {closed.reason}{comment}")
    run.publish_status()


def _allow(run: Run, closed: ClosedRequest) -> None:
    request, index = closed.request, closed.request.index
    notes = [f"{closed.reason}: {_shortened(run, closed.comment)}"] if closed.comment else []
    if request.edited is not None:
        run.state.edits = {**run.state.edits, index: Edit(call=request.edited, request=request.id)}
        sensitive = run.tool(request.tool or "").sensitive
        ran = _shortened(run, wording.describe_arguments(request.edited.arguments, sensitive))
        notes.insert(0, f"{request.edited.by} changed this call before it ran; it ran with {ran}")
    if notes:
        run.state.notes = {**run.state.notes, index: "; ".join(notes)}
    if (signed := _signed(request)) is not None:
        run.state.signed = {**run.state.signed, index: signed}
    run.set_verdict(index, Verdict(kind="allow", rule=request.needs[0].rule, reason=closed.reason))


def _signed(request: Request) -> SignedApproval | None:
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


def _reason(run: Run, call: CallRequest, verdict: Verdict) -> str:
    undone = next((done for done in run.state.compensable if done.key == call.undoes), None)
    if undone is None:
        return verdict.reason
    return f"the run was stopped, and this takes back {undone.line}; {verdict.reason}"


def _digest(run: Run, request: str, kind: RequestKind, tool: str, arguments: Digest | JsonObject) -> Digest:
    execution, agent = workflow.info().first_execution_run_id, run.state.agent.digest
    return decisions.compute_digest(execution, request, kind=kind, tool=tool, arguments=arguments, agent=agent)


def _edited_bytes(run: Run, but: str) -> int:
    """Return the bytes that changed arguments take in the state, those of request `but` left out."""
    asked = [one.edited for one in run.state.people.open if one.edited is not None and one.id != but]
    return sum(map(_size, [*asked, *(edit.call for edit in run.state.edits.values())]))


def _shortened(run: Run, text: str) -> str:
    """Return `text` as long as Temporal can carry such a text for each call of the turn."""
    return cut(text, min(NOTE_CHARACTERS, NOTES_CHARACTERS // len(run.state.calls)))


def _size(edited: EditedCall) -> int:
    return len(canonical_json(edited.arguments))


def _title(line: str) -> str:
    return wording.shorten(f"{line}?", 160)
