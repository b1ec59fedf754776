"""Calls of a plan, as its conversation holds them: which have begun, and how those went that have ended."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from decimal import Decimal

from pydantic import JsonValue

from mandate.activities.checks.findings import parse_value
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import is_planned
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, TextPart, UserMessage
from mandate.workflows.rules.plans import progress as plan_progress
from mandate.workflows.rules.plans.order import map_needs
from mandate.workflows.rules.plans.progress import Ended, Label

VALUES_KEPT, VALUES_BYTES = 8192, 64 << 20
"""Outputs that a process keeps, by address."""

ACCOUNT = "account"
"""Key of what the calls of a message have cost, beside their results."""


class PlanCallReader:
    """Reads the calls of plans; outputs that were read stay loaded."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._values: OrderedDict[Digest, JsonValue] = OrderedDict()
        self._bytes = 0
        self._last: tuple[PlanSpec, dict[str, PlanStep]] | None = None
        """The plan read last, and those of its steps whose outputs anything reads."""

    async def read(self, plan: PlanSpec, messages: Iterable[Message]) -> dict[Label, Ended | None]:
        """Return the calls that messages begin or answer, the latter with their ends.

        Raises:
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        if self._last is None or self._last[0] is not plan:
            wanted = _find_read_steps(plan)
            self._last = (plan, {step.id: step for step in plan.steps if step.id in wanted})
        steps = self._last[1]
        calls: dict[Label, Ended | None] = {}
        for message in messages:
            if isinstance(message, AssistantMessage):
                calls |= {Label.parse(call.call_id): None for call in message.calls if is_planned(message)}
                continue
            account = _read_account(message)
            for part in message.parts:
                if isinstance(part, ResultPart) and part.call_id in account:
                    label = Label.parse(part.call_id)
                    cost, is_stopped = account[part.call_id]
                    if part.error:
                        calls[label] = Ended(None, failure=part.text, cost_usd=cost, is_stopped=is_stopped)
                        continue
                    step = steps.get(label.step)
                    value = await self._find_value(step, part) if step is not None else None
                    calls[label] = Ended(value, cost_usd=cost)
        return calls

    async def _find_value(self, step: PlanStep, part: ResultPart) -> JsonValue:
        """Return the output that a result is: JSON of tools, and of agents that answer with it; else its text."""
        is_text = step.tool is None and step.output_schema is None
        if part.digest is None:
            return part.text if is_text else parse_value(part.text)
        if part.digest not in self._values:
            content = await results.load_content(self._blobs, part)
            text = content.decode(errors="replace")
            self._values[part.digest] = text if is_text else parse_value(text)
            self._bytes += len(content)
            while len(self._values) > VALUES_KEPT or (self._bytes > VALUES_BYTES and len(self._values) > 1):
                self._values.popitem(last=False)
                self._bytes = self._bytes * len(self._values) // (len(self._values) + 1)
        self._values.move_to_end(part.digest)
        return self._values[part.digest]


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


def _read_account(message: UserMessage) -> dict[str, tuple[Decimal, bool]]:
    """Return what the calls of a message have cost, and whether people ended them, by their ids."""
    for part in message.parts:
        if isinstance(part, TextPart) and part.text.startswith(f'{{"{ACCOUNT}"'):
            account = json.loads(part.text)[ACCOUNT]
            return {name: (Decimal(one["cost_usd"]), one["people"]) for name, one in account.items()}
    return {}
