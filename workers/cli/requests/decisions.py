"""Decisions from the command line: looked up, filled in, signed, sent, told."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from mandate.workers.cli import identity, prompts, tokens
from mandate.workers.cli.connection import Connection, elsewhere
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.requests import edit
from mandate.workers.cli.requests import names as request_names
from mandate.workers.cli.requests import text as request_text
from mandate.workers.client import answers, decisions
from mandate.workers.client.decisions import Found, SentDecision, Target
from mandate.workers.history.record import read_arguments
from mandate.workflows.contracts.base import DIGEST_PATTERN, canonical_json, digest_of
from mandate.workflows.contracts.request import EVERY, REJECT, Decision, OpenRequests, Request
from mandate.workflows.rules import budget, input_size, redaction
from mandate.workflows.rules.commands import PLACEHOLDERS
from mandate.workflows.rules.decisions import WITH_VALUE, explain_no_option, find_option


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """Decision of a person on all the requests that they name."""

    choice: str
    by: str | None = None
    comment: str = ""
    value: JsonValue = None
    settings: Sequence[str] = ()
    """`path=value`, in place of the model's."""
    edit: bool = False
    file: Path | None = None
    """Whole arguments."""
    digest: str | None = None
    """Of the request that was looked at; whatever it is now, if left out."""
    token_command: str | None = None
    yes: bool = False

    @property
    def changes_arguments(self) -> bool:
        return bool(self.settings) or self.edit or self.file is not None


async def act(call: Invocation, connection: Connection, names: Sequence[str], wish: DecisionOptions) -> int:
    """Decide on each of the requests; the exit code.

    Raises:
        CliError: something is asked for wrongly; then nothing was sent.
    """
    _check(names, wish)
    who = identity.person(connection.settings, wish.by)
    identity.announce(call.out, who)
    by = who.name
    targets = await request_names.targets(connection, names, program=call.program)
    found = await look_up(call, connection, targets)
    for one in found:
        if one.request is not None:
            _check_choice(call, one.target, one.request, wish)
            await _check_raise(connection, one, wish)
    await _confirm(
        call, [request_text.headline(one.run.workflow_id, one.request) for one in found if one.request], wish
    )
    sending = [await _prepared(call, connection, one, wish, by) for one in found]
    return await _send(call, connection, by, sending)


async def reject_all(call: Invocation, connection: Connection, runs: Sequence[str], wish: DecisionOptions) -> int:
    """Reject all open requests of each of the runs; the exit code."""
    who = identity.person(connection.settings, wish.by)
    identity.announce(call.out, who)
    by = who.name
    await _confirm(call, [f"{run}: all open requests" for run in runs], wish)
    given = {"request": EVERY, "choice": REJECT, "by": by, "comment": wish.comment}
    sending = [SentDecision(f"{run}:{EVERY}", run, _decision(given)) for run in dict.fromkeys(runs)]
    return await _send(call, connection, by, sending)


def _check(names: Sequence[str], wish: DecisionOptions) -> None:
    if not names:
        raise CliError("give the requests to decide on, for example 'refund-81:r1', or numbers of the last inbox")
    if wish.digest is not None and len(names) > 1:
        raise CliError("--digest is that of one request; decide on them one by one")
    if wish.digest is not None and re.fullmatch(DIGEST_PATTERN, wish.digest) is None:
        raise CliError(
            f"--digest {wish.digest!r} is no digest, 43 letters, digits, '-' and '_' as `show {names[0]} -o json` has "
            "under `digest`; nothing was sent"
        )
    if wish.edit and (wish.file is not None or wish.settings):
        raise CliError("--edit goes without --set and --from: what they say can be written in the editor")
    if wish.changes_arguments and wish.value is not None:
        raise CliError("--value is the whole value; it goes without --set, --edit and --from")
    if isinstance(wish.value, str) and wish.value in PLACEHOLDERS:
        raise CliError(f"--value {wish.value!r} stands for your own words; put them in its place")
    _refuse_large(wish.value)


def _refuse_large(value: JsonValue, kept: Path | None = None) -> None:
    if (excess := input_size.find_value_excess(value)) is not None:
        where = f"; your text is in {kept}" if kept is not None else ""
        raise CliError(f"value: {excess}; nothing was sent{where}")


def _check_choice(call: Invocation, target: Target, request: Request, wish: DecisionOptions) -> None:
    how = request_text.how_to_choose(target, request, program=call.program)
    if wish.choice not in request.choices:
        allowed = ", ".join(request.choices)
        raise CliError(f"{target.shown} takes the choices {allowed}, not {wish.choice!r}; {how}; nothing was sent")
    if wish.changes_arguments and request.kind != "approval":
        raise CliError(f"{target.shown} has no arguments to change; nothing was sent")
    if (fault := _find_value_fault(request, wish)) is not None:
        raise CliError(f"{target.shown}: value: {fault}; {how}; nothing was sent")


def _find_value_fault(request: Request, wish: DecisionOptions) -> str | None:
    """Return what is wrong with a value, or that it is missing, as far as the request tells."""
    choice, value = wish.choice, wish.value
    with_value = ("raise",) if request.kind == "budget" else WITH_VALUE
    if choice not in with_value:
        if value is None:
            return None
        allowed = " or ".join(one for one in request.choices if one in with_value)
        return f"goes with {allowed or 'no choice of this request'}, not with {choice!r}"
    if choice == "raise" or not prompts.needs_value(request, choice) or request.server is not None:
        return None
    if value is None or (isinstance(value, str) and not value.strip()):
        gives = {"answer": "the answer", "supply": "the result"}.get(choice, "the step to go back to")
        return f"is missing; {choice!r} comes with {gives}: --value ..."
    if choice == "answer" and request.options:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if find_option(text, request.options) is None:
            return explain_no_option(text, request.options)
    return None


async def _check_raise(connection: Connection, found: Found, wish: DecisionOptions) -> None:
    """Raise `CliError` for limits that the run would refuse, as far as it tells what its limits are."""
    if found.request is None or found.request.kind != "budget" or wish.choice != "raise":
        return
    limits = await decisions.read_limits(connection.client, found.run.workflow_id)
    if (fault := budget.find_value_fault(limits, wish.value)) is not None:
        raise CliError(f"{found.target.shown}: {fault}; nothing was sent")


async def look_up(call: Invocation, connection: Connection, targets: Sequence[Target]) -> list[Found]:
    """Look up each request as it is now; those that are not open with the reason.

    Raises:
        CliError: there is no such run, or no worker answers for it.
    """
    try:
        return await decisions.look_up(connection.client, targets)
    except decisions.RunUnavailable as error:
        if isinstance(error.cause, answers.Unknown):
            where = f"namespace {connection.client.namespace!r} at {connection.address}{elsewhere(connection)}"
            raise CliError(f"there is no run {error.workflow_id!r} in {where}") from None
        raise CliError(f"{error}{connection.advise_worker(call.program, error.cause.unserved)}") from None


async def _confirm(call: Invocation, headlines: Sequence[str], wish: DecisionOptions) -> None:
    """Let a person who watches look at several requests once more; raise as `prompts.confirm`."""
    if len(headlines) > 1:
        await prompts.confirm(call.out, f"{wish.choice} these {len(headlines)}", headlines, yes=wish.yes)


async def _prepared(
    call: Invocation, connection: Connection, found: Found, wish: DecisionOptions, by: str
) -> SentDecision:
    target = found.target
    if found.request is None:
        look = f"; look at it with `{call.program} show {shlex.quote(target.name)}`" if found.has_changed else ""
        return SentDecision(target.shown, target.workflow_id, None, said=f"{found.error}{look}")
    value, kept = await _value(call, connection, found.run, found.request, wish)
    given: dict[str, Any] = {
        "request": target.request,
        "digest": wish.digest or found.request.digest,
        "choice": wish.choice,
        "by": by,
        "comment": wish.comment,
        "value": value,
    }
    if wish.token_command is not None:
        decision = _decision(given)
        given["token"] = await _token(wish.token_command, target, decision, connection.settings.environment)
    return SentDecision(target.shown, target.workflow_id, _decision(given), kept)


async def _value(
    call: Invocation, connection: Connection, run: OpenRequests, request: Request, wish: DecisionOptions
) -> tuple[JsonValue, Path | None]:
    """Return the value that goes with the choice, and the file in which it was written in an editor.

    What people are not shown is sent as it is shown, `***` or a reference, and the run puts it back in.
    """
    if not wish.changes_arguments:
        _refuse_in_clear(request, wish.value if request.kind == "approval" else None)
        return wish.value, None
    shown, kept = request.arguments, None
    if wish.edit or wish.file is not None:
        known = await read_arguments(connection.settings.store, run.store, request)
        if known.missing is not None:
            call.out.note(f"long texts are shown by their beginning: {known.missing}")
        if wish.file is not None:
            written = edit.from_file(wish.file)
        else:
            comments = _comments(run, request)
            written, kept = edit.edited(known.values, comments, connection.settings.environment)
        value: JsonValue = edit.referenced(written, known.values, shown)
        before, after = known.values, written
    else:
        value = after = edit.with_settings(shown, wish.settings)
        before = shown
    if wish.file is not None and wish.settings:
        value = after = edit.with_settings(after, wish.settings)
    _refuse_in_clear(request, value, kept)
    _refuse_large(value, kept)
    for line in edit.changes(before, after):
        call.out.note(f"{run.workflow_id}:{request.id}  {line}")
    return value, kept


def _refuse_in_clear(request: Request, value: JsonValue, kept: Path | None = None) -> None:
    """Raise `CliError` for a sensitive argument that would be sent as it is: the history keeps what is sent."""
    if (name := redaction.find_revealed(request.arguments, value)) is not None:
        where = f"; your text is in {kept}" if kept is not None else ""
        raise CliError(f"{redaction.explain_in_clear(name)}; nothing was sent{where}")


def _comments(run: OpenRequests, request: Request) -> list[str]:
    lines = [request_text.headline(run.workflow_id, request), request.reason, ""]
    lines.append("Change the arguments, save and leave the editor to approve the call with them.")
    lines.append("Leave them as they are, or delete all, to send nothing. '***' stays the value that it hides.")
    return [" ".join(line.split()) for line in lines]


async def _token(command: str, target: Target, decision: Decision, environment: Mapping[str, str]) -> str:
    """Run `command`, which signs one decision, and return its token.

    Raises:
        CliError: it fails or prints nothing.
    """
    told = {
        "MANDATE_REQUEST": target.name,
        "MANDATE_REQUEST_DIGEST": decision.digest or "",
        "MANDATE_CHOICE": decision.choice,
        "MANDATE_BY": decision.by or "",
        "MANDATE_VALUE_DIGEST": digest_of(canonical_json(decision.value)) if decision.value is not None else "",
    }
    return await tokens.token(command, told, environment, undone="nothing was sent")


def _decision(fields: Mapping[str, Any]) -> Decision:
    try:
        return decisions.build_decision(fields)
    except ValueError as error:
        raise CliError(f"{error}; nothing was sent") from None


async def _send(call: Invocation, connection: Connection, by: str, sending: Sequence[SentDecision]) -> int:
    all_count = await decisions.send(connection.client, sending, on_result=lambda sent: _tell(call, sent))
    if call.out.as_json:
        call.out.json({"by": by, "decisions": [sent.to_json() for sent in sending]})
    return DONE if all_count else ENDED_OTHERWISE


def _tell(call: Invocation, sent: SentDecision) -> None:
    if sent.status is not None:
        call.out.print(f"{sent.name}  {sent.said}")
        if sent.kept is not None:
            sent.kept.unlink(missing_ok=True)
        return
    kept = f" (your text is kept: go on with --from {sent.kept})" if sent.kept is not None else ""
    call.out.refusal(f"{sent.name}: {sent.said}{kept}")
