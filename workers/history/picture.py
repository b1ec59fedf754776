"""A run as a picture: its record, its time line and its conversation, in bounded size."""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import JsonValue, ValidationError

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.workers.history.models import ModelTable
from mandate.workers.history.record import Conversation, Json, Record, Said, conversation
from mandate.workers.history.timeline import Bar, Timeline
from mandate.workers.run_store import StoreUnusable
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.plan import StepResult
from mandate.workflows.rules import wording
from mandate.workflows.rules.plans.progress import Label

FIRST_MESSAGES = 50
LAST_MESSAGES = 150
"""Messages that a picture has unless all are wanted: the first and the last ones."""


@dataclass(slots=True)
class Picture:
    """All that a page of a run shows."""

    record: Record
    timeline: Timeline
    read_at: datetime
    messages: list[Said] = field(default_factory=list)
    left_out: int = 0
    """Messages after the first `FIRST_MESSAGES` that are not here."""
    pending: list[Json] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    """Of a plan."""
    models: ModelTable | None = None
    answer: str | None = None
    """The run's answer, without what is sensitive in it."""
    answer_missing: str | None = None
    """Reason why an answer that there is is not here; `None` when it is."""
    store_missing: str | None = None
    """Reason why the conversation is not here, as one sentence; `None` when it is."""

    def list_step_usage(self) -> list[tuple[int, str, Usage]]:
        """Return each step's models and what their answers took, oldest first."""
        found: dict[int, tuple[list[str], Usage]] = {}
        for bar in self.timeline.bars:
            if bar.kind == "model" and bar.usage is not None:
                models, usage = found.get(bar.step, ([], Usage()))
                found[bar.step] = ([*models, bar.name], usage + bar.usage)
        return [(step, ", ".join(dict.fromkeys(models)), usage) for step, (models, usage) in sorted(found.items())]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the stable part of `mandate show --timeline -o json`."""
        line, record = self.timeline, self.record
        return {
            "workflow_id": record.workflow_id,
            "run_id": record.run_id,
            "status": record.status,
            "begun_at": line.begun_at.isoformat() if line.begun_at is not None else None,
            "ended_at": line.ended_at.isoformat() if line.ended_at is not None else None,
            "missing": line.missing,
            "unreadable": line.unreadable,
            "parts": [part.to_json() for part in line.parts],
            "people": [word.to_json() for word in line.words],
            "bars": [bar.to_json() for bar in line.bars],
        }


async def read_picture(
    store: str, record: Record, timeline: Timeline, read_at: datetime, *, has_messages: bool, full: bool = False
) -> Picture:
    """Return the picture of a run; where the store at `store` cannot be read, without what is there, and with why."""
    picture = Picture(record, timeline, read_at)
    head, pin = record.history.head, record.history.pin
    if head is None or not (has_messages or record.history.is_plan):
        return picture
    try:
        async with conversation(store, record) as stored:
            await _read(stored, head, picture, full=full)
    except (StoreUnusable, StoreUnavailable, BlobCorrupted, BlobMissing) as error:
        picture.store_missing = str(error)
    except (OSError, ValidationError, ValueError, KeyError) as error:
        picture.store_missing = f"the store cannot be read: {wording.shorten(str(error), 200)}"
    if picture.store_missing is not None and record.output is not None:
        if pin is not None and any(tool.sensitive for tool in pin.tools):
            picture.answer_missing = "it may repeat sensitive arguments, which only the conversation tells"
        else:
            picture.answer = _write(record.output)
    return picture


async def _read(stored: Conversation, head: Digest, picture: Picture, *, full: bool) -> None:
    history = picture.record.history
    models = ModelTable(_sum_up(picture.timeline.bars), history.beside, picture.timeline.usage_below)
    labels: list[str] = []
    last: deque[Said] = deque(maxlen=None if full else LAST_MESSAGES)
    count = 0
    async for message in stored.messages(head):
        if message.measured is not None:
            models.add(message.step, message.measured)
        if history.is_plan:
            labels += (str(part["call_id"]) for part in message.parts if part["kind"] == "call")
        count += 1
        if count <= FIRST_MESSAGES:
            picture.messages.append(message)
        else:
            last.append(message)
    picture.left_out = count - len(picture.messages) - len(last)
    picture.messages += last
    picture.models = models
    if history.is_plan:
        await _read_steps(stored, head, picture, labels)
    picture.pending = await stored.pending(picture.record)
    picture.record = await stored.fill_output(picture.record)
    if picture.record.output is not None:
        picture.answer = stored.strike(_write(picture.record.output))


async def _read_steps(stored: Conversation, head: Digest, picture: Picture, labels: Iterable[str]) -> None:
    reader = stored.read_plan()
    async for _ in reader.read(head):
        pass
    if (ended := picture.record.history.ended) is not None and ended.continued_as is None:
        reader.close()
    picture.steps = reader.list_results()
    steps = {position: Label.parse(label).step for position, label in enumerate(labels)}
    picture.timeline.name_plan_steps(steps, picture.steps)


def _sum_up(bars: Iterable[Bar]) -> Mapping[int, Usage]:
    """Return the usage of answers by step, over all parts."""
    usages: dict[int, Usage] = {}
    for bar in bars:
        if bar.kind == "model" and bar.usage is not None:
            usages[bar.step] = bar.usage
    return usages


def _write(output: JsonValue) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)


def shorten_message(message: Said, limit: int) -> Said:
    """Return a message whose texts have at most `limit` characters, and say how many are left out."""
    return replace(message, parts=tuple(_shorten(part, limit) for part in message.parts))


def _shorten(part: Json, limit: int) -> Json:
    text = part.get("text")
    if not isinstance(text, str) or len(text) <= limit:
        return part
    return {**part, "text": text[:limit], "left_out": len(text) - limit}
