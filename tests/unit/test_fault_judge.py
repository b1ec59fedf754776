"""The judge of the crash suite: what it calls lost, doubled, out of order and silent."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.support.fault_judge import Ran, judge
from tests.support.fault_log import Executed
from tests.support.fault_model import Told
from tests.support.fault_plan import Call, Task
from workflows.contracts.model import Usage
from workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus

PAY, SEND, SET, LOOK = Call("pay_http", "a"), Call("send_http", "b"), Call("set_http", "c"), Call("look_http", "d")
TASK = Task("run", ((PAY, LOOK), (SEND, SET)))


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
        ((LOOK,), result(status="declined"), {}),
        ((LOOK,), result(PAY, status="declined"), {"lost": 1, "silent": ["run: pay_http a"]}),
        ((LOOK,), result(PAY, unclear=(PAY,), status="declined"), {"lost": 1}),
        ((PAY, PAY, LOOK, SEND, SET), result(PAY, SEND, SET), {"doubled": 1, "silent": ["run: pay_http a"]}),
        ((PAY, LOOK, SEND, SEND), result(PAY, unclear=(SEND,), status="declined"), {"doubled": 1}),
        ((PAY, LOOK, SEND), result(PAY, unclear=(SEND,), status="declined"), {}),
        ((SEND, PAY, LOOK, SET), result(PAY, SEND, SET), {"out_of_order": 1}),
        ((PAY, LOOK, SEND, SET, SEND), result(PAY, SEND, SET), {"doubled": 1, "out_of_order": 1, "silent": 1}),
    ],
)  # fmt: skip
def test_faults_of_one_run(calls: tuple[Call, ...], its: RunResult | None, faults: dict[str, Any]) -> None:
    found = judge([Ran(TASK, its, TASK.calls)], log(*calls))

    shown = {name: value for name, value in vars(found).items() if value}
    assert {name: value if isinstance(faults.get(name), list) else _size(value) for name, value in shown.items()} == (
        faults
    )
    assert found.is_good == (set(faults) <= {"repeated"})


def _size(value: object) -> object:
    return len(value) if isinstance(value, list) else value


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
