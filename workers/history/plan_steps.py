"""The steps of a plan as they begin and end, read from the conversation of its run."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from pydantic import JsonValue

from mandate.activities.plan import describe_step
from mandate.activities.plan_calls import CallsRead, PlanCallReader, read_given
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.history.step_events import AttemptFailed, ItemEnded, StepBegun, StepEnded, StepEvent
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.plan import PlanSpec, PlanStep, StepResult
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Message, ResultPart, UserMessage
from mandate.workflows.rules import wording
from mandate.workflows.rules.plans.order import map_needs
from mandate.workflows.rules.plans.progress import Label, Move, Progress, Standing

UNANSWERED = "the run ended while it was under way"

OUTPUT_KEPT = 200
"""Characters of an output that are kept for its line."""


class PlanReader:
    """Reads a plan's conversation further each time, and only what is new of it."""

    def __init__(self, blobs: Blobs) -> None:
        self._agents = PinnedAgents(blobs)
        self._transcript = TranscriptLog(blobs)
        self._reader = PlanCallReader(blobs)
        self._steps: _Steps | None = None
        self._position = 0
        self.head: Digest | None = None
        """The end of what is read."""
        self.given: JsonValue = None
        """What the plan was asked."""

    async def read(self, head: Digest) -> AsyncIterator[list[StepEvent]]:
        """Yield what each move has brought up to `head`, oldest first; nothing where that is read.

        Raises:
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
            ValueError: it is the conversation of no plan.
        """
        if head == self.head:
            return
        for digest, segment in await self._transcript.read_back(head, self._position):
            agent = await self._agents.get(segment.agent)
            if agent.plan is None:
                raise ValueError("it is the conversation of an agent, which has no steps")
            steps, events = self._steps, list[StepEvent]()
            if steps is None:
                self.given = read_given(segment.messages[0])
                self._steps = _Steps(agent, agent.plan, self.given)
            else:
                read = await self._reader.read(agent.plan, segment.messages)
                events = steps.take(segment.messages, read)
            self.head, self._position = digest, segment.position + 1
            yield events

    @property
    def plan(self) -> PlanSpec | None:
        """The plan, once something is read."""
        return self._steps.plan if self._steps is not None else None

    def close(self) -> list[StepEvent]:
        """Return what has ended with the run: nothing of it begins any more."""
        return self._steps.close() if self._steps is not None else []

    def list_results(self) -> list[StepResult]:
        """Return how each step stands, in their order in the plan; nothing before something is read."""
        return self._steps.list_results() if self._steps is not None else []


class _Steps:
    """The steps of one plan after the messages so far."""

    def __init__(self, agent: PinnedAgent, plan: PlanSpec, given: JsonValue) -> None:
        self._agent = agent
        self.plan = plan
        self._known = {step.id: step for step in plan.steps}
        self._places = {step.id: place for place, step in enumerate(plan.steps)}
        self._progress = Progress(plan, map_needs(plan), given, {})
        self._move: Move | None = None
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._outputs: dict[str, str] = {}
        """Of the last calls of steps, by these."""
        self._sensitive: dict[str, tuple[Tool, JsonObject]] = {}
        """Calls under way that have sensitive arguments."""

    def take(self, messages: tuple[Message, ...], read: CallsRead) -> list[StepEvent]:
        """Take in messages and the calls in them; return what is new."""
        calls = read.calls
        texts = {label: text for message in messages for label, text in self._read_texts(message)}
        failed = {
            label: replace(ended, failure=texts.get(label, ended.failure))
            for label, ended in calls.items()
            if ended is not None and ended.failure
        }
        self._progress.take({**calls, **failed}, read.settled)
        move = self._move = self._progress.advance()
        ended_calls = [label for label, ended in calls.items() if ended is not None]
        for label in ended_calls:
            self._outputs[label.step] = texts.get(label, "")
        for label, said in read.settled.items():
            # What was accepted is not told: its text may hold sensitive arguments.
            value = said.value if said.choice == "supply" else None
            self._outputs[label.step] = wording.shorten(_write(value), OUTPUT_KEPT)
        return [
            *self._list_items(move, ended_calls, texts),
            *self._list_ended(move),
            *self._list_begun(move, [label for label, ended in calls.items() if ended is None]),
        ]

    def close(self) -> list[StepEvent]:
        """Return the steps that have ended with the run; one that was under way has no answer any more."""
        self._progress.stop()
        move = self._move = self._progress.advance()
        under_way = [name for name, standing in move.standings.items() if not standing.has_ended]
        for name in under_way:
            move.standings[name].status, move.standings[name].reason = "stopped", UNANSWERED
        return list(self._list_ended(replace(move, changed=(*move.changed, *under_way))))

    def list_results(self) -> list[StepResult]:
        """Return how each step stands."""
        move = self._move if self._move is not None else self._progress.advance()
        return [describe_step(step, move.standings[step.id]) for step in self.plan.steps]

    def _read_texts(self, message: Message) -> Iterator[tuple[Label, str]]:
        """Yield the results of calls as they may be shown: short, and without sensitive arguments."""
        if isinstance(message, AssistantMessage):
            for call in message.calls:
                self._keep_sensitive(call)
        if isinstance(message, UserMessage):
            for part in message.parts:
                if isinstance(part, ResultPart):
                    text = part.text
                    if (hidden := self._sensitive.pop(part.call_id, None)) is not None:
                        text = strike_sensitive(text, *hidden)
                    yield Label.parse(part.call_id), text if part.error else wording.shorten(text, OUTPUT_KEPT)

    def _keep_sensitive(self, call: CallPart) -> None:
        definition = self._agent.definition(call.tool)
        if definition is not None and definition.tool.sensitive:
            self._sensitive[call.call_id] = (definition.tool, _read_arguments(call))

    def _list_items(self, move: Move, ended: list[Label], texts: Mapping[Label, str]) -> Iterator[StepEvent]:
        sums: dict[str, tuple[Decimal, int, int]] = {}
        for label in ended:
            step, standing = self._known[label.step], move.standings[label.step]
            if label.index < 0 or label.index >= len(standing.items):
                continue
            item = standing.items[label.index]
            if item.status not in {"completed", "failed"}:
                continue
            if step.id not in sums:
                sums[step.id] = standing.cost_usd, standing.completed, standing.failed
            cost, completed, failed = sums[step.id]
            reason = item.reason or "it failed" if item.status == "failed" else None
            yield ItemEnded(
                step, label.index, reason, texts.get(label, ""), cost, len(standing.items), completed, failed
            )

    def _list_ended(self, move: Move) -> Iterator[StepEvent]:
        """Yield the steps that have ended, in their order in the plan where several have."""
        for name in sorted({*move.changed}, key=self._places.__getitem__):
            if move.standings[name].has_ended and name not in self._ended:
                self._ended.add(name)
                yield self._describe_end(self._known[name], move.standings[name])

    def _describe_end(self, step: PlanStep, standing: Standing) -> StepEnded:
        is_many = step.for_each is not None and standing.values is not None
        return StepEnded(
            step,
            standing.status,
            standing.reason,
            self._outputs.pop(step.id, "") if standing.status == "completed" and step.for_each is None else "",
            standing.cost_usd,
            sum(item.attempts for item in standing.items),
            len(standing.items) if is_many else None,
            standing.completed,
            standing.failed,
        )

    def _list_begun(self, move: Move, begun: list[Label]) -> Iterator[StepEvent]:
        for label in begun:
            step, standing = self._known[label.step], move.standings[label.step]
            if label.step not in self._begun:
                self._begun.add(label.step)
                yield StepBegun(step, len(standing.items) if step.for_each is not None else None)
            if label.attempt > 1:
                item = standing.items[max(label.index, 0)]
                index = label.index if label.index >= 0 else None
                yield AttemptFailed(step, index, label.attempt - 1, item.reason or "it failed")


def _write(output: JsonValue) -> str:
    return "" if output is None else output if isinstance(output, str) else canonical_json(output).decode()


def _read_arguments(call: CallPart) -> JsonObject:
    """Return the arguments of a call, if they are some."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}
