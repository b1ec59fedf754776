"""The judge of the crash suite: what it calls lost, doubled, out of order, silent and declined without need."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from tests.support.fault_judge import Ran, judge
from tests.support.fault_log import Executed, Hit
from tests.support.fault_model import Told
from tests.support.fault_plan import EFFECTS, SOURCES, Call, Point, Task

PAY, SEND, SET, LOOK = Call("pay_http", "a"), Call("send_http", "b"), Call("set_http", "c"), Call("look_http", "d")
TASK = Task("run", ((PAY, LOOK), (SEND, SET)))
REPLY_LOST = Hit(0.0, "run", "b", Point.LOSE_REPLY, None)
"""Of the call of `SEND`."""


def result(*done: Call, unclear: tuple[Call, ...] = (), status: str = "completed") -> RunResult:
    return RunResult(
        status=RunStatus(status),
        output="All done.",
        output_digest=None,
        reason=None,
        usage=Usage(cost_usd=Decimal(0)),
        head=None,
        audit_head=None,
        effects=EffectLog(count=len(done), last=tuple(map(entry, done))),
        uncertain=tuple(map(entry, unclear)),
    )


def entry(call: Call) -> EffectEntry:
    return EffectEntry(step=1, tool=call.tool, call=f"{call.tool} task=run item={call.item}", key="k")


def log(*calls: Call, keys: str = "") -> list[Executed]:
    return [
        Executed(number, 0.0, "run", call.tool, call.item, keys[number - 1] if keys else f"{call.item}")
        for number, call in enumerate(calls, start=1)
    ]


@pytest.mark.parametrize(
    ("calls", "its", "faults"),
    [
        ((PAY, LOOK, SEND, SET), result(PAY, SEND, SET), {}),
        ((PAY, LOOK, LOOK, SEND, SET, SET), result(PAY, SEND, SET), {"repeated": 1}),
        ((PAY, LOOK, SEND, SET), None, {"unfinished": ["run"]}),
        ((PAY, LOOK, SET), result(PAY, SET), {"lost": 1, "silent": ["run: send_http b"]}),
        ((LOOK,), result(status="declined"), {"declined": ["run: declined, None"]}),
        ((LOOK,), result(PAY, status="declined"), {"lost": 1, "silent": ["run: pay_http a"], "declined": 1}),
        ((LOOK,), result(PAY, unclear=(PAY,), status="declined"), {"lost": 1, "declined": 1}),
        ((PAY, PAY, LOOK, SEND, SET), result(PAY, SEND, SET), {"doubled": 1, "silent": ["run: pay_http a"]}),
        ((PAY, LOOK, SEND, SEND), result(PAY, unclear=(SEND,), status="declined"), {"doubled": 1}),
        ((PAY, LOOK, SEND), result(PAY, unclear=(SEND,), status="declined"), {}),
        ((SEND, PAY, LOOK, SET), result(PAY, SEND, SET), {"out_of_order": 1}),
        ((PAY, LOOK, SEND, SET, SEND), result(PAY, SEND, SET), {"doubled": 1, "out_of_order": 1, "silent": 1}),
    ],
)  # fmt: skip
def test_faults_of_one_run(calls: tuple[Call, ...], its: RunResult | None, faults: dict[str, Any]) -> None:
    found = judge([Ran(TASK, its, TASK.calls)], log(*calls), [REPLY_LOST])

    shown = {name: value for name, value in vars(found).items() if value}
    assert {name: value if isinstance(faults.get(name), list) else _size(value) for name, value in shown.items()} == (
        faults
    )
    assert found.is_good == (set(faults) <= {"repeated"})


def _size(value: object) -> object:
    return len(value) if isinstance(value, list) else value


LATER = 100.0
"""Seconds: nothing that dies then takes anything with it that was done at 0."""


def test_once_call_that_was_hurt_is_for_people() -> None:
    its = result(PAY, unclear=(SEND,), status="declined")

    assert judge([Ran(TASK, its, TASK.calls)], log(PAY, LOOK, SEND), [REPLY_LOST]).is_good


@pytest.mark.parametrize(
    ("its", "hits"),
    [
        # Nothing was hurt, or not this call.
        (result(PAY, unclear=(SEND,), status="declined"), []),
        (result(PAY, unclear=(SEND,), status="declined"), [Hit(0.0, "run", "a", Point.LOSE_REPLY, None)]),
        (result(PAY, unclear=(SEND,), status="declined"), [Hit(0.0, "other", "b", Point.LOSE_REPLY, None)]),
        # Only the model of the run was hurt: none of its calls was on its way.
        (result(PAY, unclear=(SEND,), status="declined"), [Hit(0.0, "run", "turn 3", Point.MODEL_BEFORE, 7)]),
        (result(PAY, status="declined"), [Hit(0.0, "run", "turn 3", Point.MODEL_BEFORE, 7)]),
        # Long after it, a worker died for the sake of another run.
        (result(PAY, unclear=(SEND,), status="declined"), [Hit(LATER, "other", "b", Point.KILL_BEFORE, 7)]),
        # What has a key, and what may be repeated, can be made until it has an answer.
        (result(unclear=(PAY,), status="declined"), [Hit(0.0, "run", "a", Point.LOSE_REPLY, None)]),
        (result(unclear=(SET,), status="declined"), [Hit(0.0, "run", "c", Point.KILL_COMMITTED, 7)]),
        (result(PAY, unclear=(SEND, PAY), status="declined"), [REPLY_LOST]),
        # Not how a run ends that could not go on.
        (result(PAY, unclear=(SEND,), status="stopped"), [REPLY_LOST]),
        (result(PAY, status="exhausted"), [REPLY_LOST]),
    ],
)  # fmt: skip
def test_run_that_could_have_gone_on_is_no_good(its: RunResult, hits: list[Hit]) -> None:
    found = judge([Ran(TASK, its, TASK.calls)], log(PAY, LOOK, SEND, SET, keys="adkc"), hits)

    assert found.declined == [f"run: {its.status}, None"]
    assert not found.is_good


@pytest.mark.parametrize("point", [point for point in Point if point.kills])
@pytest.mark.parametrize("calls", [(PAY, LOOK, SEND), (PAY, LOOK)], ids=["done", "not done"])
def test_once_call_that_died_with_others_is_for_people(calls: tuple[Call, ...], point: Point) -> None:
    its = result(PAY, unclear=(SEND,), status="declined")
    assert judge([Ran(TASK, its, TASK.calls)], log(*calls, keys="adk"), [Hit(2.0, "other", "b", point, 7)]).is_good


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("naive", [False, True])
def test_nobody_is_asked_because_a_server_was_busy(effect: str, source: str, naive: bool) -> None:
    """The call can be made again, by whatever source and with whatever effect."""
    call = Call(f"{effect}_{source}", "b")
    task = Task("run", ((call,),), {"b": (Point.REFUSE,)})

    ran = Ran(task, result(status="declined"), task.calls, [Told(call, "ERROR: busy, nothing was done")])

    assert judge([ran], [], naive_mcp=naive).declined == ["run: declined, None"]


@pytest.mark.parametrize(
    ("call", "points", "naive", "is_good"),
    [
        (Call("set_mcp", "c"), (Point.REFUSE,), False, True),
        (SET, (Point.REFUSE,), False, False),
        (SET, (Point.LOSE_REPLY,), False, False),
        # Only tools that are believed: of an MCP server, and none whose repetition does harm.
        (SET, (Point.LOSE_REPLY,), True, False),
        (Call("set_mcp", "c"), (Point.LOSE_REPLY,), True, True),
        (Call("set_mcp", "c"), (Point.LOSE_REPLY,), False, False),
        (Call("set_mcp", "c"), (Point.KILL_COMMITTED,), True, False),
        (Call("pay_mcp", "c"), (Point.LOSE_REPLY,), True, False),
        (Call("pay_mcp", "c"), (Point.REFUSE,), False, False),
    ],
)
def test_idempotent_call_that_was_refused_after_it_was_begun_is_for_people(
    call: Call, points: tuple[Point, ...], naive: bool, is_good: bool
) -> None:
    task = Task("run", ((call,),), {"c": points})
    hits = [Hit(0.0, "run", "c", point, None) for point in points]

    ran = Ran(task, result(unclear=(call,), status="declined"), task.calls)

    found = judge([ran], log(call), hits, naive_mcp=naive)

    assert found.is_good == is_good


def test_everything_declined_is_no_good() -> None:
    """Nothing is lost or doubled by a runtime that never acts."""
    tasks = [replace(TASK, name=f"run-{number}") for number in range(3)]

    found = judge([Ran(task, result(status="declined")) for task in tasks], [], [REPLY_LOST])

    assert len(found.declined) == 3
    assert (found.lost, found.doubled, found.silent) == ([], [], [])
    assert not found.is_good


def test_what_the_model_was_told_is_done_must_be_in_the_log() -> None:
    told = [Told(PAY, '{"receipt": 1}'), Told(SEND, "ERROR: refused")]

    found = judge([Ran(TASK, result(status="declined"), TASK.calls, told)], log())

    assert found.lost == ["run: pay_http a: 0 in the log, 1 said or meant to be done"]


def test_call_that_is_intended_twice_is_carried_out_twice() -> None:
    task = Task("run", ((PAY, SEND, PAY),))

    ran = Ran(task, result(PAY, SEND, PAY), task.calls)

    twice = judge([ran], log(PAY, SEND, PAY, keys="xyz"))
    once = judge([ran], log(PAY, SEND))
    again = judge([ran], log(PAY, SEND, PAY, keys="xyx"))

    assert twice.is_good
    assert once.lost == ["run: pay_http a: 1 in the log, 2 said or meant to be done"]
    assert again.out_of_order == ["run: pay_http a, send_http b, pay_http a"]


def test_call_that_was_said_not_to_be_done_may_come_later() -> None:
    asked = (PAY, LOOK, SEND, SET, SEND)

    found = judge([Ran(TASK, result(PAY, SET, SEND), asked)], log(PAY, LOOK, SET, SEND))

    assert found.is_good


def test_repetition_without_a_key_stands_where_the_first_did() -> None:
    asked = (PAY, SET, SEND)

    ran = Ran(Task("run", (asked,)), result(PAY, SET, SEND), asked)

    at_once = judge([ran], [replace(one, key=None) for one in log(PAY, SET, SET, SEND)])
    late = judge([ran], [replace(one, key=None) for one in log(PAY, SET, SEND, SET)])

    assert at_once.is_good
    assert len(late.out_of_order) == 1
