"""A run as events of AG-UI 1.0, the protocol between agents and user interfaces, and as server-sent events.

What is said is told as it comes, from `StreamEvent`s; what is done, from the happenings of the run's history. An id
names the place of a `StreamEvent`, so that who connects again with `Last-Event-ID` goes on after it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from mandate.workers.client.streams import StreamEvent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunResult, RunStatus

CONTENT_TYPE = "text/event-stream"

PREFIX = "mandate."
"""Begins the names of events that the protocol has no word for."""


class AgUiRun:
    """The events of one run in their order; what is open is closed before something else begins."""

    def __init__(self, workflow_id: str, run_id: str) -> None:
        self._thread = workflow_id
        self._run = run_id
        self._message: str | None = None
        """Id of the message whose text comes."""

    def start(self) -> Iterator[JsonObject]:
        """Yield the begin of a run."""
        yield {"type": "RUN_STARTED", "threadId": self._thread, "runId": self._run}

    def say(self, event: StreamEvent) -> Iterator[JsonObject]:
        """Yield what a piece of an answer is: a message for each attempt, and a word on what to forget."""
        name = f"{event.run_id}/{event.step}/{event.attempt}/{event.offset}"
        match event.kind:
            case "begin" | "restart":
                dropped = self._message
                yield from self._end_message()
                if event.kind == "restart":
                    value: JsonObject = {"step": event.step, "attempt": event.attempt, "messageId": dropped}
                    yield {"type": "CUSTOM", "name": f"{PREFIX}restart", "value": value}
                self._message = name
                yield {"type": "TEXT_MESSAGE_START", "messageId": name, "role": "assistant"}
            case "text":
                if self._message is None:
                    self._message = name
                    yield {"type": "TEXT_MESSAGE_START", "messageId": name, "role": "assistant"}
                yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message, "delta": event.text}
            case "end":
                yield from self._end_message()

    def call(self, call_id: str, tool: str, arguments: Mapping[str, Any]) -> Iterator[JsonObject]:
        """Yield a call of a tool; sensitive arguments are hidden by whoever gives them."""
        yield from self._end_message()
        yield {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": tool}
        yield {
            "type": "TOOL_CALL_ARGS",
            "toolCallId": call_id,
            "delta": json.dumps(dict(arguments), ensure_ascii=False),
        }
        yield {"type": "TOOL_CALL_END", "toolCallId": call_id}

    def answer(self, call_id: str, text: str) -> Iterator[JsonObject]:
        """Yield the result of a call."""
        yield {"type": "TOOL_CALL_RESULT", "messageId": f"{call_id}/result", "toolCallId": call_id, "content": text}

    def pause(self, requests: Sequence[Request]) -> Iterator[JsonObject]:
        """Yield that the run waits for people: an interrupt for each request, answered by a decision.

        Once they have decided, `start` begins again.
        """
        yield from self._end_message()
        interrupts: list[JsonValue] = [self._interrupt(request) for request in requests]
        outcome: JsonObject = {"type": "interrupt", "interrupts": interrupts}
        yield {"type": "RUN_FINISHED", "threadId": self._thread, "runId": self._run, "outcome": outcome}

    def finish(self, result: RunResult) -> Iterator[JsonObject]:
        """Yield the end of a run: its result, or why there is none."""
        yield from self._end_message()
        if result.status in {RunStatus.COMPLETED, RunStatus.EXHAUSTED}:
            told = result.model_dump(mode="json", include={"status", "output", "output_digest", "reason"})
            finished: JsonObject = {"type": "RUN_FINISHED", "threadId": self._thread, "runId": self._run}
            yield {**finished, "result": told, "outcome": {"type": "success"}}
        else:
            yield {"type": "RUN_ERROR", "message": result.reason or str(result.status), "code": str(result.status)}

    def fail(self, message: str, code: str = "failed") -> Iterator[JsonObject]:
        """Yield the end of a run that has no result."""
        yield from self._end_message()
        yield {"type": "RUN_ERROR", "message": message, "code": code}

    def _interrupt(self, request: Request) -> JsonObject:
        properties: JsonObject = {
            "choice": {"enum": list(request.choices)},
            "digest": {"const": request.digest},
            "value": {},
            "comment": {"type": "string"},
        }
        schema: JsonObject = {"type": "object", "properties": properties, "required": ["choice", "digest"]}
        return {
            "id": f"{self._thread}:{request.id}",
            "reason": request.kind,
            "message": f"{request.title} ({request.reason})",
            "responseSchema": schema,
            "expiresAt": request.expires_at.isoformat(),
        }

    def _end_message(self) -> Iterator[JsonObject]:
        if self._message is not None:
            yield {"type": "TEXT_MESSAGE_END", "messageId": self._message}
            self._message = None


def encode(event: Mapping[str, Any], *, offset: int | None = None) -> str:
    """Return an event as a server-sent event; with an `offset`, who connects again goes on after it."""
    name = f"id: {offset}\n" if offset is not None else ""
    return f"{name}data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"
