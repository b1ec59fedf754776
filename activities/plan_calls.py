"""Calls of a plan, as its conversation holds them: which have begun, and how those went that have ended."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

from mandate.activities.checks.findings import parse_value
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import is_planned
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.plan import PlanSpec, PlanStep, StepSettled
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    Message,
    ResultPart,
    StoredResult,
    TextPart,
    UserMessage,
)
from mandate.workflows.rules.plans import progress as plan_progress
from mandate.workflows.rules.plans.order import map_needs
from mandate.workflows.rules.plans.progress import Ended, Label, Settled

VALUES_KEPT, VALUES_BYTES = 8192, 64 << 20
"""Outputs that a process keeps, by address."""

ACCOUNT, SETTLED = "account", "settled"
"""Keys of what the calls of a message have cost, beside their results; and of what people said of failed steps."""


REJECTED, KEPT = "rejected", {"text", "digest", "size"}
"""Key of an output that did not pass its checks, and what is kept of it."""


@dataclass(frozen=True, slots=True)
class CallsRead:
    """Calls of a plan, with their ends, and what people said of failed ones."""

    calls: dict[Label, Ended | None] = field(default_factory=dict)
    settled: dict[Label, Settled] = field(default_factory=dict)


class PlanCallReader:
    """Reads the calls of plans; outputs that were read stay loaded."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._values: OrderedDict[tuple[Digest, bool], JsonValue] = OrderedDict()
        self._bytes = 0
        self._last: tuple[PlanSpec, dict[str, PlanStep]] | None = None
        """The plan read last, and those of its steps whose outputs anything reads."""

    async def read(self, plan: PlanSpec, messages: Iterable[Message]) -> CallsRead:
        """Return the calls that messages begin or answer, and what people said of failed ones.

        Raises:
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        if self._last is None or self._last[0] is not plan:
            wanted = _find_read_steps(plan)
            self._last = (plan, {step.id: step for step in plan.steps if step.id in wanted})
        steps = self._last[1]
        read = CallsRead()
        for message in messages:
            if isinstance(message, AssistantMessage):
                read.calls.update({Label.parse(call.call_id): None for call in message.calls if is_planned(message)})
                continue
            told = _read_told(message)
            account: dict[str, dict[str, Any]] = told.get(ACCOUNT, {})
            for part in message.parts:
                if isinstance(part, ResultPart) and part.call_id in account:
                    label, of_call = Label.parse(part.call_id), account[part.call_id]
                    rejected = of_call.get(REJECTED)
                    output = ToolResult.model_validate(rejected) if rejected else part if not part.error else None
                    step = steps.get(label.step)
                    value = await self._find_value(step, output) if step is not None and output is not None else None
                    read.calls[label] = Ended(
                        value,
                        failure=part.text if part.error else None,
                        cost_usd=Decimal(of_call["cost_usd"]),
                        has_value=output is not None,
                        is_stopped=part.error and of_call["people"],
                    )
            for name, one in told.get(SETTLED, {}).items():
                said, label = StepSettled.model_validate({**one, "call": name}), Label.parse(name)
                step = steps.get(label.step)
                value = None
                if said.answer is not None and step is not None:
                    value = await self._find_value(step, said.answer)
                read.settled[label] = Settled(said.choice, said.text, value)
        return read

    async def _find_value(self, step: PlanStep, part: ResultPart | ToolResult) -> JsonValue:
        """Return the output that a result is: JSON of tools, and of agents that answer with it; else its text."""
        is_text = step.tool is None and step.output_schema is None
        if part.digest is None:
            return part.text if is_text else parse_value(part.text or "")
        key = (part.digest, is_text)
        if key not in self._values:
            stored = StoredResult(digest=part.digest, size=part.size or 0)
            content = await results.load_content(self._blobs, stored)
            text = content.decode(errors="replace")
            self._values[key] = text if is_text else parse_value(text)
            self._bytes += len(content)
            while len(self._values) > VALUES_KEPT or (self._bytes > VALUES_BYTES and len(self._values) > 1):
                self._values.popitem(last=False)
                self._bytes = self._bytes * len(self._values) // (len(self._values) + 1)
        self._values.move_to_end(key)
        return self._values[key]


def read_given(first: Message) -> JsonValue:
    """Return the input of a plan, which is the first message of its conversation."""
    return parse_value(first.parts[0].text) if isinstance(first.parts[0], TextPart) else None


def _find_read_steps(plan: PlanSpec) -> set[str]:
    """Return the steps whose outputs anything reads."""
    if plan.output is None:
        needs = map_needs(plan)
        read = {*plan_progress.list_last(plan, needs), *(name for names in needs.values() for name in names)}
    else:
        read = {step.id for step in plan.steps}
    return read | {step.id for step in plan.steps if step.success is not None}


def _read_told(message: UserMessage) -> dict[str, Any]:
    """Return what the calls of a message have cost, and whether people ended them; and what people said of steps."""
    for part in message.parts:
        if isinstance(part, TextPart) and part.text.startswith(f'{{"{ACCOUNT}"'):
            told: dict[str, Any] = json.loads(part.text)
            return told
    return {}
