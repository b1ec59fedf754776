"""The record of a run: what Temporal's history tells, and the conversation from the store."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.client.diagnosis import Diagnosis, diagnose_described, find_retry
from mandate.workers.client.trees import Place, read_place
from mandate.workers.history.children import ChildStatus, read_children
from mandate.workers.history.events import Call, Happening, MessageReceived, RequestOpened
from mandate.workers.history.parts import read_earlier_parts
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import events
from mandate.workers.history.timeline_reader import TimelineReader
from mandate.workers.history.token_use import StepTokens, TokenMeter
from mandate.workers.run_store import StoreUnusable, stored
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import BudgetUse
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, EffectEntry, EffectLog, RunStatus
from mandate.workflows.contracts.tool import Tool, ToolResult
from mandate.workflows.contracts.transcript import (
    CallPart,
    Measured,
    Message,
    OpaquePart,
    RefusalPart,
    ResultPart,
    TextPart,
    UserMessage,
)
from mandate.workflows.rules import redaction, wording
from mandate.workflows.rules.redaction import HIDDEN, mask

if TYPE_CHECKING:
    from mandate.workers.history.plan_steps import PlanReader

Json = dict[str, JsonValue]


class NoSuchRun(Exception):
    """There is no run of this workflow id and run id; the text is one sentence without where it was looked for."""


class NoAgentRun(Exception):
    """The workflow of this id is not the run of an agent; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Told:
    """A question to people, or their word, in one line."""

    step: int | None
    """`None` before the run last continued as new."""
    line: str


@dataclass(frozen=True, slots=True)
class Record:
    """One run, without its conversation."""

    workflow_id: str
    run_id: str
    status: str
    """`running`, `waiting` for people, `paused`, or how it ended; see `events.RunEnded`."""
    history: RunHistory
    people: tuple[Told, ...]
    """Questions to people and their words, oldest first."""
    budget: BudgetUse | None = None
    """`None` for runs that began before budgets were kept."""
    diagnosis: Diagnosis | None = None
    """Reason why it does not go on, where its workflow task is tried again and again."""
    retrying: str | None = None
    """The activity that is tried again, and why its last attempt failed."""
    place: Place = field(default_factory=Place)
    children: tuple[ChildStatus, ...] = ()
    """The last that have reported, and the first that have not."""
    stored_output: JsonValue = None
    """The answer of a child whose result has only the address of it."""

    @property
    def output(self) -> JsonValue:
        """The run's answer once it has one: its model's, or a person's in its place."""
        ended = self.history.ended
        if self.stored_output is not None:
            return self.stored_output
        return ended.result.output if ended is not None and ended.result is not None else None

    def to_json(self) -> Json:
        """Return the stable part of `mandate show -o json`."""
        its = self.history
        return {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "parent": self.place.parent,
            "root": self.place.root,
            "status": self.status,
            "reason": its.ended.reason if its.ended is not None else None,
            "output": self.output,
            "agent": its.agent,
            "version": its.pin.version if its.pin is not None else None,
            "step": its.step,
            "head": its.head,
            "usage": its.sum_usage().model_dump(mode="json"),
            "budget": self.budget.model_dump(mode="json") if self.budget is not None else None,
            "effects": its.effects.model_dump(mode="json"),
            "uncertain": [entry.model_dump(mode="json") for entry in its.list_uncertain()],
            "children": [child.to_json() for child in self.children],
            "people": [{"step": told.step, "line": told.line} for told in self.people],
            "workflow_task": {**self.diagnosis.to_json()} if self.diagnosis is not None else None,
            "retrying": self.retrying,
        }


async def exists(client: Client, workflow_id: str) -> bool:
    """Tell whether there is any workflow of this id."""
    try:
        await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status not in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
            raise
        return False
    return True


async def read_record(
    client: Client, workflow_id: str, run_id: str | None, *, reader: TimelineReader | None = None
) -> Record:
    """Read the run as its history tells it, and with it all its parts into `reader`; needs no worker.

    Raises:
        NoSuchRun: there is no such run.
        NoAgentRun: it is another workflow.
    """
    try:
        described = await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
    except RPCError as error:
        if error.status not in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
            raise
        which = f"run {workflow_id!r}" + (f" with run id {run_id!r}" if run_id else "")
        raise NoSuchRun(f"there is no {which}") from None
    if described.workflow_type not in (AGENT_WORKFLOW, PLAN_WORKFLOW):
        raise NoAgentRun(f"{workflow_id!r} is a {described.workflow_type!r} and not the run of an agent")
    if reader is not None:
        await read_earlier_parts(client, described, reader)
    history = RunHistory(client.data_converter)
    people: list[Told] = []
    async for event in events(client, workflow_id, described.run_id, wait=False):
        people += _told(await (reader.take(event, history) if reader is not None else history.add(event)))
    if reader is not None:
        reader.note_pending(described.raw_description)
    if described.status is WorkflowExecutionStatus.CANCELED:
        _take_memo(history, await described.memo())
    status = find_status(history, described.status)
    earlier = [Told(None, f"{closed.id} is {closed.outcome}: {closed.reason}") for closed in history.parked.earlier]
    diagnosis = await diagnose_described(client, described.raw_description)
    retry = find_retry(described.raw_description)
    retrying = retry.describe() if retry is not None else None
    return Record(
        workflow_id,
        described.run_id,
        status,
        history,
        people=(*earlier, *people),
        budget=history.measure_budget(datetime.now(UTC)),
        diagnosis=diagnosis,
        retrying=retrying,
        place=read_place(described.raw_info),
        children=await read_children(client, history.children),
    )


def find_status(history: RunHistory, status: WorkflowExecutionStatus | None) -> str:
    """Return how a run ended, or how it stands; of one whose end cannot be read, what Temporal says: its `status`."""
    if history.ended is not None:
        return history.ended.status
    if status in {None, WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW}:
        return history.parked.status
    return "cancelled" if status is WorkflowExecutionStatus.CANCELED else status.name.lower()


def _told(happened: Sequence[Happening]) -> Iterator[Told]:
    for happening in happened:
        if isinstance(happening, RequestOpened | MessageReceived):
            yield Told(happening.step, happening.line)


def _take_memo(history: RunHistory, memo: Mapping[str, object]) -> None:
    """Return what a cancelled run left instead of a result."""
    told = memo.get("mandate")
    if isinstance(told, dict):
        history.effects = EffectLog.model_validate(told.get("effects") or {})
        history.uncertain = tuple(EffectEntry.model_validate(entry) for entry in told.get("uncertain") or ())


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the conversation, ready to be shown."""

    role: str
    model: str | None
    step: int
    """The model call that it came from, or that it is for."""
    segment: str
    parts: tuple[Json, ...]
    measured: Measured | None = None
    """Of an answer: its model, and the tokens of it and its request."""

    def to_json(self) -> Json:
        its: Json = {"role": self.role, "step": self.step, "segment": self.segment}
        if self.model is not None:
            its["model"] = self.model
        return {**its, "parts": list(self.parts)}


class Conversation:
    """The messages of a run, from the store of this process."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._agents = PinnedAgents(blobs)
        self._transcript = TranscriptLog(blobs)
        self._given: dict[str, Json] = {}
        """Arguments of the calls so far, by the provider's id."""
        self._sensitive: list[tuple[Tool, Json]] = []
        """Calls so far that had sensitive arguments."""

    async def messages(self, head: str, *, full: bool = False) -> AsyncIterator[Said]:
        """Oldest first; sensitive arguments are hidden. With `full`, whole results and not what the model was shown."""
        step = 1
        async for digest, segment in self._transcript.segments(head):
            agent = await self._agents.get(segment.agent)
            for message in segment.messages:
                said = await self._said(message, agent, step, digest, full=full)
                if isinstance(message, UserMessage):
                    yield said
                    continue
                yield replace(said, measured=segment.measured)
                step += 1

    def read_plan(self) -> "PlanReader":
        """Return a reader of the steps of the plan that this is the conversation of."""
        # Here: it takes long to import, and runs of agents do without it.
        from mandate.workers.history.plan_steps import PlanReader  # noqa: PLC0415 - only for plans

        return PlanReader(self._blobs)

    async def token_use(self, head: str) -> AsyncIterator[StepTokens]:
        """Yield the tokens of each step's request, oldest first."""
        meter = TokenMeter()
        async for _, segment in self._transcript.segments(head):
            for step in meter.read(segment, await self._agents.get(segment.agent)):
                yield step

    async def _said(self, message: Message, agent: PinnedAgent, step: int, segment: str, *, full: bool) -> Said:
        for part in message.parts:
            definition = agent.definition(part.tool) if isinstance(part, CallPart) else None
            if isinstance(part, CallPart) and definition is not None and definition.tool.sensitive:
                self._sensitive.append((definition.tool, _read(part.arguments)))
        parts = [await self._part(part, agent, full=full) for part in message.parts]
        model = None if isinstance(message, UserMessage) else message.model
        return Said(message.role, model, step, segment, tuple(parts))

    async def _part(
        self, part: TextPart | ResultPart | CallPart | RefusalPart | OpaquePart, agent: PinnedAgent, *, full: bool
    ) -> Json:
        if isinstance(part, CallPart):
            self._given[part.call_id] = _read(part.arguments)
            arguments = _arguments(part, agent)
            return {"kind": "call", "call_id": part.call_id, "tool": part.tool, "arguments": arguments}
        if isinstance(part, ResultPart):
            text = part.text
            if full and part.digest is not None:
                text = (await results.load_content(self._blobs, part)).decode(errors="replace")
            definition = agent.definition(part.tool)
            if definition is not None and definition.tool.sensitive:
                text = strike_sensitive(text, definition.tool, self._given.get(part.call_id, {}))
            return {**part.model_dump(mode="json"), "text": text}
        if isinstance(part, TextPart):
            return {**part.model_dump(mode="json"), "text": self.strike(part.text)}
        return part.model_dump(mode="json")

    def strike(self, text: str) -> str:
        """Return `text` without the sensitive arguments of the calls that were read, which models may repeat."""
        for tool, arguments in self._sensitive:
            text = strike_sensitive(text, tool, arguments)
        return text

    async def fill_output(self, record: Record) -> Record:
        """Return the record with the whole answer, where its result has only the address of one."""
        ended = record.history.ended
        result = ended.result if ended is not None else None
        if result is None or result.output is not None or result.output_digest is None:
            return record
        stored = ToolResult(digest=result.output_digest, size=result.output_size)
        text = (await results.load_content(self._blobs, stored)).decode(errors="replace")
        pin = record.history.pin
        is_json = pin is not None and pin.structured and result.status is RunStatus.COMPLETED
        return replace(record, stored_output=_read_json(text) if is_json else text)

    async def pending(self, record: Record) -> list[Json]:
        """Calls of the last turn whose results the model was not told; none of a plan, which has no turns."""
        calls = record.history.calls if not record.history.is_plan else []
        return [await self._pending(call, record) for call in calls]

    async def _pending(self, call: Call, record: Record) -> Json:
        pin = record.history.pin
        tool = pin.tool(call.request.tool) if pin is not None else None
        hidden = tool.sensitive if tool is not None else ()
        arguments: Json = mask(call.request.arguments, hidden)
        its: Json = {"tool": call.request.tool, "arguments": arguments, "line": call.line, "state": call.state}
        if call.result is not None:
            text = call.result.text if call.result.text is not None else call.result.preview
            if call.result.digest is not None:
                text = (await results.load_content(self._blobs, call.result)).decode(errors="replace")
            if tool is not None and tool.sensitive:
                # The history has references, which say nothing of what is to be struck out.
                unknown = sensitive_arguments.has_hidden(call.request.arguments)
                text = HIDDEN if unknown else strike_sensitive(text, tool, call.request.arguments)
            its["result"] = {**call.result.model_dump(mode="json", exclude={"preview"}), "text": text}
        return its


def _read(arguments: str) -> Json:
    """Return the arguments that the model wrote, if they are some."""
    try:
        read = json.loads(arguments)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _read_json(text: str) -> JsonValue:
    """Return a text as JSON, or as it is where it is none."""
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return text
    return found


def _arguments(part: CallPart, agent: PinnedAgent) -> JsonValue:
    """Return what the model wrote, as JSON where they are some; sensitive ones hidden."""
    definition = agent.definition(part.tool)
    hidden = definition.tool.sensitive if definition is not None else ()
    try:
        arguments: JsonValue = json.loads(part.arguments)
    except ValueError:
        return HIDDEN if hidden else part.arguments
    if not isinstance(arguments, dict):
        return HIDDEN if hidden else arguments
    return mask(arguments, hidden)


@asynccontextmanager
async def conversation(store: str, record: Record) -> AsyncIterator[Conversation]:
    """Open the conversation of `record`, from the store at `store`. Raises as `stored`."""
    pin = record.history.pin
    async with stored(store, pin.store if pin is not None else None) as blobs:
        yield Conversation(blobs)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of the call that a request is about; sensitive ones are `***`."""

    values: Json
    missing: str | None = None
    """Reason why long texts are shown by their beginning only; `None` when they are whole."""


async def read_arguments(store: str, identity: str | None, request: Request) -> Arguments:
    """Read all arguments in full, as far as the store at `store` can be read; the run's store has the id `identity`."""
    if not redaction.has_references(request.arguments):
        return Arguments(request.arguments)
    try:
        async with stored(store, identity) as blobs:
            arguments = await _whole_arguments(blobs, request)
    except (StoreUnusable, BlobCorrupted) as error:
        return Arguments(request.arguments, str(error))
    except (OSError, ValidationError, ValueError) as error:
        return Arguments(request.arguments, f"the store cannot be read: {wording.shorten(str(error), 200)}")
    return Arguments(arguments)


async def _whole_arguments(blobs: Blobs, request: Request) -> Json:
    chain = await TranscriptLog(blobs).load(request.head)
    if request.edited is not None:
        found = json.loads(await blobs.get(request.edited.blob))
    else:
        call = chain.conversation.find_call(request.index)
        if call is None:
            raise ValueError(f"the conversation at {request.head} has no call {request.index}")
        found = json.loads(call.arguments)
    if not isinstance(found, dict):
        raise ValueError("its arguments are no object")
    definition = (await PinnedAgents(blobs).get(chain.segment.agent)).definition(request.tool or "")
    return redaction.mask(found, definition.tool.sensitive if definition is not None else ())
