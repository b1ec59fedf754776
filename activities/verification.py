"""Checks of what was done, and probes of what may have been done."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import failures, heartbeat
from mandate.activities.checks import functions, model_judge
from mandate.activities.checks.findings import Unable, check_condition, parse_value, read_json, report, report_failure
from mandate.activities.checks.lookup import Question, ReadTools, Unaskable
from mandate.activities.checks.probe import ProbeFinding, Prober
from mandate.activities.checks.subject import Work, load_call, load_work, shows_results
from mandate.activities.context.calibration import Calibration
from mandate.activities.context.estimate import measure_text
from mandate.activities.heartbeat import Stopwatch
from mandate.activities.own_files import PATIENCE, OwnFiles
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.providers.base import GetProvider
from mandate.activities.purse import Purse
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox import schema
from mandate.activities.toolbox.base import CallContext, Toolbox
from mandate.activities.toolbox.python import make_context
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.toolbox.signature import InvalidTool
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import FailureType, Outcome
from mandate.workflows.contracts.tool import ToolDefinition, ToolResult
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, CheckSpec, Probed, ProbeRequest
from mandate.workflows.rules import plain_text, quantities

log = structlog.stdlib.get_logger(__name__)

REQUEST_TOKENS = 64
"""Tokens around the text of a request to a model that judges."""

LONGEST_WAIT = timedelta(minutes=2)
"""Before another attempt, also where a provider asks for more."""


class VerificationActivities:
    """The toolboxes of `run_tool` for reads, and the providers of `call_model`."""

    def __init__(
        self,
        toolboxes: Mapping[str, Toolbox],
        agents: PinnedAgents,
        transcript: TranscriptLog,
        provider: GetProvider,
        own: OwnFiles | None = None,
        *,
        budgets: PeriodBudgets | None = None,
    ) -> None:
        """Take the means of checking; `own` is what the worker's files name, `None` for all that runs ask for.

        `budgets` are those beyond one run.
        """
        self._budgets = budgets
        self._own = own
        self._tools = ReadTools(toolboxes)
        self._agents = agents
        self._transcript = transcript
        self._provider = provider

    @activity.defn
    async def verify_result(self, request: CheckRequest) -> CheckResult:
        """Make one check; its last attempt finds `unable` where those before it fail.

        Raises:
            ApplicationError: `CheckUnable`, retried after a while; a store failure before the check is known, retried.
        """
        structlog.contextvars.bind_contextvars(step=request.step, call=request.index, check=request.check)
        purse, stopwatch = Purse.read(request.grant, self._budgets), Stopwatch()
        check: CheckSpec | None = None
        try:
            async with heartbeat.send_heartbeats(purse.describe):
                with failures.translate_store_errors():
                    agent = await self._agents.get(request.agent)
                check = next((one for one in agent.checks if one.name == request.check), None)
                if check is None:
                    raise Unable(f"the agent has no check {request.check!r}", lasting=True)
                async with asyncio.timeout(_find_timeout().total_seconds()):
                    if check.kind == "model":
                        await _enter(purse, agent, request)
                    finding = await self._find(agent, check, request, purse)
        except TimeoutError:
            return _report_unable(
                check, Unable(f"it took longer than {quantities.write_seconds(_find_timeout())}"), purse
            )
        except Unable as unable:
            return _report_unable(check, unable, purse)
        except BaseException:
            purse.leave()
            raise
        log.info("result_checked", finding=finding.finding)
        return _tell_spent(finding, check, purse).model_copy(update={"quick": stopwatch.is_quick})

    @activity.defn
    async def probe_call(self, request: ProbeRequest) -> Probed:
        """Look if a call has happened, as far as the probe of its tool can tell, and for its last result.

        Raises:
            ApplicationError: a store failure, retried.
        """
        structlog.contextvars.bind_contextvars(step=request.step, call=request.index)
        async with heartbeat.send_heartbeats():
            with failures.translate_store_errors():
                agent = await self._agents.get(request.agent)
                chain = await self._transcript.load(request.head)
                try:
                    definition, args = await load_call(self._transcript, agent, chain, request.index, request.edited)
                except Unable as unable:
                    return Probed(outcome=Outcome.UNKNOWN, reason=plain_text.shorten(unable.reason))
            probe = agent.probes.get(definition.tool.name)
            if probe is None:
                return Probed(outcome=Outcome.UNKNOWN, reason=f"{definition.tool.name!r} has no probe")
            shown = shows_results(definition) and shows_results(agent.definition(probe.tool))
            about = ("probe", request.head, str(request.index), request.key)
            salt = sensitive_arguments.find_salt(chain.conversation)
            given = _fill_values(request.arguments, definition, args, salt)
            question = Question(probe.tool, given, about, request.step, request.requester)
            prober = Prober(self._tools, agent, probe, question, args, shown)
            seen = await prober.look_until(_find_rest(probe.patience), _find_timeout())
            log.info("call_probed", tool=definition.tool.name, probe=probe.tool, outcome=str(seen.outcome))
            hidden = [(definition, args), (agent.definition(probe.tool), given)]
            return await self._probe(
                seen, _clean_reason(seen.reason, hidden), shown=shown, salt=None if shown else salt
            )

    async def _probe(self, seen: ProbeFinding, reason: str, *, shown: bool, salt: bytes | None) -> Probed:
        result: ToolResult | None = None
        if seen.text is not None:
            with failures.translate_store_errors():
                result = await results.store(self._transcript.blobs, seen.text, salt=salt)
            result = result if shown else result.model_copy(update={"preview": ""})
        return Probed(outcome=seen.outcome, reason=reason, result=result)

    async def _find(self, agent: PinnedAgent, check: CheckSpec, request: CheckRequest, purse: Purse) -> CheckResult:
        """Make one attempt of a check; nothing sensitive is in its reason."""
        try:
            work = await load_work(self._transcript, agent, request)
        except failures.STORE_ERRORS as error:
            raise Unable(str(error)) from None
        salt = sensitive_arguments.find_salt(work.conversation)
        given = _fill_values(request.arguments, work.definition, work.args, salt)
        hidden = [(work.definition, work.args), (agent.definition(check.tool or ""), given)]
        try:
            finding = await self._check(check, request.model_copy(update={"arguments": given}), work, purse)
        except Unable as unable:
            unable.reason = _clean_reason(unable.reason, hidden)
            raise
        return finding.model_copy(update={"reason": _clean_reason(finding.reason, hidden)})

    async def _check(self, check: CheckSpec, request: CheckRequest, work: Work, purse: Purse) -> CheckResult:
        match check.kind:
            case "python":
                if self._own is not None and check.python not in self._own.checks:
                    reason = f"the files of this worker do not name the check {check.python!r}"
                    raise Unable(reason, retry_after=PATIENCE)
                return await _check_by_python(check, request, work)
            case "tool":
                return await self._check_by_tool(check, request, work)
            case "expect":
                assert check.expect is not None
                return check_condition(check.expect, work.text, work.args, shown=work.is_shown, lasting=True)
            case "schema":
                return _check_by_schema(check, work)
            case "model":
                assert check.rubric is not None
                if work.is_cut and work.definition is None:
                    work = await self._read_whole(work, request)
                return await model_judge.judge(
                    check.route,
                    check.rubric,
                    work,
                    provider=self._provider,
                    within=_find_timeout(),
                    purse=purse,
                    measure=_measure,
                )

    async def _read_whole(self, work: Work, request: CheckRequest) -> Work:
        """Return the work with all that the run did, for evidence of what an answer rests on."""
        try:
            return replace(work, conversation=await self._transcript.load_whole(request.head))
        except failures.STORE_ERRORS as error:
            raise Unable(str(error)) from None

    async def _check_by_tool(self, check: CheckSpec, request: CheckRequest, work: Work) -> CheckResult:
        assert check.tool is not None
        assert check.expect is not None
        about = ("check", request.check, request.head, str(request.index))
        question = Question(check.tool, request.arguments, about, request.step, request.requester)
        try:
            text = await self._tools.ask(work.agent, question, within=_find_timeout())
        except ToolError as error:
            raise Unable(error.reason, lasting=isinstance(error, Unaskable), retry_after=error.retry_after) from None
        shown = work.is_shown and shows_results(work.agent.definition(check.tool))
        return check_condition(check.expect, text, work.args, shown=shown)


async def _check_by_python(check: CheckSpec, request: CheckRequest, work: Work) -> CheckResult:
    assert check.python is not None
    info, cancellation = activity.info(), threading.Event()
    call = CallContext(
        workflow_id=info.workflow_id or "",
        run_id=info.workflow_run_id or "",
        step=request.step,
        idempotency_key=request.key or "",
        attempt=info.attempt,
        timeout=_find_timeout(),
    )
    value = parse_value(work.text)
    structured = work.agent.output_schema is not None
    given = {
        "result": value,
        "args": work.args,
        "answer": value if structured else work.text,
        "context": make_context(call, cancellation),
    }
    try:
        function = functions.load_check(check.python, check.after)
    except InvalidTool as error:
        raise Unable(f"this worker cannot load the check: {error}") from None
    return await functions.run_check(function, given, cancellation)


def _check_by_schema(check: CheckSpec, work: Work) -> CheckResult:
    assert check.result_schema is not None
    try:
        value = read_json(work.text)
    except ValueError as error:
        return report_failure(f"the result is not JSON: {error}")
    fault = schema.find_misfit(check.result_schema, value)
    if fault is not None and not work.is_shown:
        fault = "it does not fit its schema"
    return report(fault is None, f"the result: {fault}" if fault else "the result fits its schema")


def _fill_values(
    arguments: JsonObject, definition: ToolDefinition | None, args: JsonObject, salt: bytes | None
) -> JsonObject:
    """Return `arguments` with the values of sensitive arguments of the call in place of their references."""
    known = (
        sensitive_arguments.resolve_references(args, definition.tool.sensitive, salt) if definition is not None else {}
    )
    return {name: sensitive_arguments.fill_references(value, known) for name, value in arguments.items()}


def _clean_reason(reason: str, calls: Sequence[tuple[ToolDefinition | None, JsonObject]]) -> str:
    """Return `reason` in one short sentence, without the sensitive arguments of `calls`."""
    for definition, args in calls:
        reason = reason if definition is None else strike_sensitive(reason, definition.tool, args)
    return plain_text.shorten(reason)


def _tell_spent(finding: CheckResult, check: CheckSpec | None, purse: Purse) -> CheckResult:
    """Return the finding with what its models took, and may have taken; others have none."""
    if check is None or check.kind != "model":
        return finding
    return finding.model_copy(update={"usage": purse.usage, "lost": purse.lost})


def _report_unable(check: CheckSpec | None, unable: Unable, purse: Purse) -> CheckResult:
    """Return the finding `unable` after the last attempt.

    Raises:
        ApplicationError: `CheckUnable`, while there is another attempt; what this one cost is kept for it.
    """
    attempt = activity.info().attempt
    log.warning("check_unable", reason=unable.reason, attempt=attempt)
    if check is None or unable.lasting or attempt > check.retries:
        found = CheckResult(finding="unable", reason=unable.reason, needed=unable.needed)
        return _tell_spent(found, check, purse)
    purse.leave()
    wait = unable.retry_after if unable.retry_after is not None else 2.0 ** min(attempt - 1, 5)
    raise ApplicationError(
        unable.reason,
        type=FailureType.CHECK_UNABLE,
        category=failures.EXPECTED,
        next_retry_delay=min(timedelta(seconds=wait), LONGEST_WAIT),
    ) from None


async def _enter(purse: Purse, agent: PinnedAgent, request: CheckRequest) -> None:
    try:
        await purse.enter(agent, request.payer)
    except ApplicationError as error:
        raise Unable(error.message) from None


def _measure(model: str, text: str) -> int:
    """Return the tokens of a request to a model that judges, at most."""
    return Calibration.of(model).estimate(measure_text(text)) + REQUEST_TOKENS


def _find_timeout() -> timedelta:
    """Return the time that the work of one attempt may take, so that it can say itself why it ended."""
    whole = activity.info().start_to_close_timeout or timedelta(minutes=10)
    return whole - min(whole / 10, timedelta(seconds=2))


def _find_rest(patience: timedelta) -> timedelta:
    """Return the rest of the time after earlier attempts; both times are the server's: clocks may differ."""
    info = activity.info()
    return patience - (info.started_time - info.scheduled_time)
