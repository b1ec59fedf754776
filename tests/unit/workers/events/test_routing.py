"""What an event starts: the first trigger that matches counts, and nothing is made up."""

import json
from typing import Any

import pytest

from mandate.workers.events.cloud_event import STRUCTURED, CloudEvent, read_event
from mandate.workers.events.routing import Ignored, Speak, Start, StartPlan, Unusable, find_route
from mandate.workers.events.triggers import Trigger

START = {"agent": "refunds", "input": "'Refund ' + string(int(event.data.order))"}
SAY = {"agent": "support", "session": "event.data.chat", "text": "event.data.text"}


def event(**members: Any) -> CloudEvent:
    told = {"id": "7", "source": "/orders", "type": "returned", "specversion": "1.0", **members}
    return read_event(STRUCTURED, {}, json.dumps(told).encode())


def trigger(**keys: Any) -> Trigger:
    name = {} if "requester_from" in keys or "ignore" in keys else {"requester": "orders@example.com"}
    return Trigger.model_validate({"id": "t", "match": "event.type == 'returned'", **name, **keys})


def test_a_run_is_started_in_the_name_that_the_trigger_says() -> None:
    route = find_route([trigger(start=START)], event(data={"order": 81, "requester": "ceo@example.com"}))

    assert isinstance(route, Start)
    assert (route.agent, route.input, route.requester) == ("refunds", "Refund 81", "orders@example.com")


def test_the_first_trigger_that_matches_counts() -> None:
    first, second = trigger(id="a", ignore=True), trigger(id="b", start=START)

    assert find_route([first, second], event(data={"order": 81})) == Ignored(first)


def test_a_match_that_cannot_be_evaluated_does_not_match() -> None:
    unfit = trigger(id="a", match="event.data.amount > 5.0", start=START)

    route = find_route([unfit, trigger(id="b", start=START)], event(data={"order": 81}))

    assert isinstance(route, Start)
    assert route.trigger.id == "b"
    assert find_route([unfit], event(data={"order": 81})) == Unusable(
        "no trigger matches the event (trigger 'a': match: the key 'amount' is missing)"
    )


def test_a_plan_is_asked_any_value() -> None:
    plan = trigger(plan={"name": "release", "input": "event.data.files"})

    assert find_route([plan], event(data={"files": ["a", "b"]})) == StartPlan(
        plan, "release", ["a", "b"], "orders@example.com"
    )
    bare = trigger(plan={"name": "release"})
    assert find_route([bare], event()) == StartPlan(bare, "release", None, "orders@example.com")


def test_sessions_are_named_after_trigger_and_text() -> None:
    """An event cannot name the session of another trigger, nor any other run."""
    speak = [
        find_route([trigger(id=name, say=SAY)], event(data={"chat": chat, "text": "Hello."}))
        for name, chat in (("a", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("a", "../b-1"), ("a", "b-1"))
    ]

    ids = [one.workflow_id for one in speak if isinstance(one, Speak)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert all(len(name) <= 138 and name.startswith(("a-", "b-")) for name in ids)


def test_an_event_names_who_asks_only_where_the_trigger_lets_it() -> None:
    named = trigger(start=START, requester_from="event.data.by")

    route = find_route([named], event(data={"order": 81, "by": "ann@example.com"}))

    assert isinstance(route, Start)
    assert route.requester == "ann@example.com"


@pytest.mark.parametrize(
    ("keys", "data", "reason"),
    [
        ({"start": START}, {}, "trigger 't': start.input: the key 'order' is missing"),
        (
            {"start": {"agent": "a", "input": "event.data.order"}},
            {"order": 81},
            "trigger 't': start.input: comes to neither a text nor an object",
        ),
        ({"say": SAY}, {"chat": "1", "text": " "}, "trigger 't': say.text: comes to no text, or to an empty one"),
        (
            {"start": {"agent": "a", "input": "'x'"}, "requester_from": "event.data.by"},
            {"by": "a\u202eb"},
            "trigger 't': requester_from: comes to no name of 1 to 200 characters that can all be seen",
        ),
        ({"start": {"agent": "a", "input": "event.data.big"}}, {"big": 2**70}, None),
    ],
)
def test_what_cannot_be_computed_is_told_without_values(keys: dict[str, Any], data: Any, reason: str | None) -> None:
    route = find_route([trigger(**keys)], event(data=data))

    assert isinstance(route, Unusable)
    assert reason in {None, route.reason}
