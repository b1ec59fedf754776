"""Runs as events of AG-UI 1.0, read by the protocol's own models."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from ag_ui.core import Event
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mandate.workers.client.ag_ui import AgUiRun, encode
from mandate.workers.client.streams import StreamEvent
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.request import Need
from mandate.workflows.contracts.run import EffectLog, RunResult, RunStatus
from tests.support.people import bare_request

EVENTS: TypeAdapter[Any] = TypeAdapter(Event)


def told(*events: Any) -> list[dict[str, Any]]:
    """All events of some iterators, each read by the protocol."""
    found = [event for some in events for event in some]
    for event in found:
        assert EVENTS.validate_python(event).type.value == event["type"]
    return found


def piece(kind: Any, offset: int, text: str = "", attempt: int = 1) -> StreamEvent:
    return StreamEvent(offset, kind, "r", 1, attempt, text)


def result(status: RunStatus, reason: str | None = None) -> RunResult:
    return RunResult(
        status=status,
        output="Hi",
        output_digest=None,
        reason=reason,
        usage=Usage(),
        head=None,
        audit_head=None,
        effects=EffectLog(),
        uncertain=(),
    )


def test_answer_is_a_message_whose_text_comes_in_pieces() -> None:
    run = AgUiRun("chat-1", "r")

    events = told(
        run.start(),
        run.say(piece("begin", 1)),
        run.say(piece("text", 2, "Hel")),
        run.say(piece("text", 3, "lo")),
        run.say(piece("end", 4)),
        run.call("c1", "pay", {"order": 1}),
        run.answer("c1", "paid"),
        run.finish(result(RunStatus.COMPLETED)),
    )

    assert [event["type"] for event in events] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "RUN_FINISHED",
    ]
    assert "".join(event.get("delta", "") for event in events[:5]) == "Hello"
    assert events[-1]["result"] == {"status": "completed", "output": "Hi", "output_digest": None, "reason": None}


def test_attempt_that_begins_anew_says_which_message_to_forget() -> None:
    run = AgUiRun("chat-1", "r")

    events = told(
        run.say(piece("begin", 1)),
        run.say(piece("text", 2, "Hel")),
        run.say(piece("restart", 3, attempt=2)),
        run.say(piece("text", 4, "Hello", attempt=2)),
        run.say(piece("end", 5, attempt=2)),
    )

    first, again = (event["messageId"] for event in events if event["type"] == "TEXT_MESSAGE_START")
    (custom,) = (event for event in events if event["type"] == "CUSTOM")
    assert custom == {
        "type": "CUSTOM",
        "name": "mandate.restart",
        "value": {"step": 1, "attempt": 2, "messageId": first},
    }
    assert first != again
    assert [event["type"] for event in events].count("TEXT_MESSAGE_END") == 2


def test_run_that_waits_for_people_is_interrupted() -> None:
    run, need = AgUiRun("chat-1", "r"), Need(rule=None, expires_at=datetime(2026, 11, 3, tzinfo=UTC))
    request = bare_request("approval").model_copy(update={"needs": (need,)})

    (event,) = told(run.pause([request]))

    (interrupt,) = event["outcome"]["interrupts"]
    assert interrupt["id"] == f"chat-1:{request.id}"
    assert interrupt["expiresAt"] == "2026-11-03T00:00:00+00:00"
    assert interrupt["responseSchema"]["properties"]["digest"] == {"const": request.digest}


@pytest.mark.parametrize("status", [RunStatus.STOPPED, RunStatus.DECLINED])
def test_run_without_an_answer_ends_in_an_error(status: RunStatus) -> None:
    (event,) = told(AgUiRun("chat-1", "r").finish(result(status, "somebody stopped it")))

    assert event == {"type": "RUN_ERROR", "message": "somebody stopped it", "code": str(status)}


@given(st.text(max_size=40), st.integers(min_value=1, max_value=10**12))
def test_server_sent_event_is_one_line_of_json_whatever_is_said(text: str, offset: int) -> None:
    event = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": text}

    lines = encode(event, offset=offset).split("\n")

    assert lines[0] == f"id: {offset}"
    assert lines[2:] == ["", ""]
    assert json.loads(lines[1].removeprefix("data: ")) == event
