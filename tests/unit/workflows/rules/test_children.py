"""Shares of children: nothing is lent beyond what is left, and what a child tells is told to the model."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, Ledger
from mandate.workflows.contracts.children import ChildReport
from mandate.workflows.contracts.model import Finish, ModelReply, Usage
from mandate.workflows.contracts.plan import PlanResult, StepResult
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import ChildAgent
from mandate.workflows.rules import budget, children, state_text
from mandate.workflows.rules import result as results

amounts = st.builds(
    Amount,
    model_calls=st.integers(0, 20),
    tokens=st.integers(0, 2000),
    cost_usd=st.decimals(0, 5, places=6),
    tool_calls=st.integers(0, 20),
)
some = st.integers(1, 30)
money = st.decimals("0.000001", 5, places=6)
limits = st.builds(
    Budget,
    model_calls=st.none() | some,
    tokens=st.none() | st.integers(1, 3000),
    cost_usd=st.none() | money,
    tool_calls=st.none() | some,
)
shares = st.builds(
    BudgetRequest,
    model_calls=st.none() | some,
    tokens=st.none() | st.integers(1, 3000),
    cost_usd=st.none() | money,
    tool_calls=st.none() | some,
)


def worker(share: BudgetRequest | None = None) -> ChildAgent:
    return ChildAgent(agent="worker", digest="d" * 43, share=share or BudgetRequest())


@given(limits, st.lists(shares, max_size=6), amounts, amounts, st.lists(st.integers(0, 100), max_size=6))
def test_shares_never_pass_what_is_left_beside_what_is_kept(
    limit: Budget, asked: list[BudgetRequest], spent: Amount, kept: Amount, used: list[int]
) -> None:
    ledger, kept = Ledger(spent=spent), kept.model_copy(update={"tool_calls": 0})
    for number, share in enumerate(asked):
        found = children.find_share(ledger, limit, worker(share), kept, time_left=None)
        if isinstance(found, str):
            assert found.startswith("not started: a child takes ")
            continue
        ledger = budget.reserve(ledger, f"child {number}", found.amount)
        assert budget.find_left(ledger, limit).holds(Amount())
        assert all(
            (left := getattr(budget.find_left(ledger, limit), name)) is None or left >= getattr(kept, name)
            for name in ("model_calls", "tokens", "cost_usd")
        )
        # Whatever the run limits, its child is limited in, to what is held for it.
        for name in ("model_calls", "tokens", "cost_usd", "tool_calls"):
            if getattr(limit, name) is not None:
                assert getattr(found.limits, name) == getattr(found.amount, name)
        BudgetRequest.model_validate_json(found.limits.model_dump_json(exclude_none=True))
        if number < len(used):
            part = Decimal(used[number]) / 100
            taken = Amount(cost_usd=found.amount.cost_usd * part, tokens=int(found.amount.tokens * part))
            ledger = budget.settle(ledger, f"child {number}", taken)


@pytest.mark.parametrize(
    ("limit", "share", "kept", "told"),
    [
        ({"cost_usd": "1.00"}, {"cost_usd": "2.00"}, {}, "a child takes $2.00, the run has $1.00 left"),
        ({"cost_usd": "0.0000001"}, {"cost_usd": "1.00"}, {}, "a child takes $1.00, the run has $0.0000001 left"),
        (
            {"cost_usd": "1.00"},
            {"cost_usd": "0.90"},
            {"cost_usd": Decimal("0.20")},
            "a child takes $0.90, the run has $1.00 left, and keeps $0.20 back for its last answer",
        ),
        ({"model_calls": 3}, {"model_calls": 4}, {}, "a child takes 4 model calls, the run has 3 model calls left"),
        ({"tool_calls": 1}, {"tool_calls": 4}, {}, "a child takes 4 tool calls, the run has 1 tool call left"),
    ],
)
def test_a_share_that_does_not_fit_is_refused_with_what_is_missing(
    limit: dict[str, Any], share: dict[str, Any], kept: dict[str, Any], told: str
) -> None:
    found = children.find_share(
        Ledger(),
        Budget.model_validate(limit),
        worker(BudgetRequest.model_validate(share)),
        Amount(**kept),
        time_left=None,
    )

    assert found == f"not started: {told}"


def test_what_the_run_limits_and_the_child_does_not_is_all_that_is_left() -> None:
    limit = Budget.model_validate({"cost_usd": "1.00", "wall_time": "10m", "depth": 2})
    spent = Ledger(spent=Amount(cost_usd=Decimal("0.25")))

    found = children.find_share(
        spent, limit, worker(), Amount(cost_usd=Decimal("0.05")), time_left=timedelta(minutes=4)
    )

    assert isinstance(found, children.Share)
    assert (found.limits.cost_usd, found.limits.wall_time, found.limits.depth) == (
        Decimal("0.70"),
        timedelta(minutes=4),
        1,
    )
    assert children.find_lowered(found.limits, BudgetRequest()) == found.limits
    assert children.find_lowered(BudgetRequest(tokens=5), BudgetRequest(tokens=5)) is None


@pytest.mark.parametrize(
    ("limit", "depth", "made", "told"),
    [
        ({}, 0, 0, None),
        ({"depth": 0}, 0, 0, "not started: agents may work at no level below this one (limit 'depth')"),
        ({"depth": 1}, 0, 0, None),
        ({}, 20, 0, "not started: agents may work at no level below this one (limit 'depth')"),
        ({"children": 1}, 0, 1, "not started: the limit of 1 child is used up"),
        ({}, 0, 1000, "not started: the limit of 1,000 children is used up"),
    ],
)
def test_depth_and_children_are_limited(limit: dict[str, Any], depth: int, made: int, told: str | None) -> None:
    assert children.find_limit(Budget.model_validate(limit), depth=depth, made=made) == told


def result(**changes: Any) -> ChildReport:
    return ChildReport(status=RunStatus.COMPLETED, output="found", usage=Usage(model_calls=1)).model_copy(
        update=changes
    )


LOST = EffectEntry(step=1, tool="send", call="send to=ann", key="k", reason="the line broke")


@pytest.mark.parametrize(
    ("ended", "text", "note", "error", "cause"),
    [
        (result(), "found", "c1: completed, $0.0000", False, None),
        (result(output={"b": 1, "a": 2}), '{"a":2,"b":1}', "c1: completed, $0.0000", False, None),
        (
            result(status=RunStatus.EXHAUSTED, reason="the limit of 3 steps is used up"),
            "found",
            "c1: exhausted, $0.0000; the limit of 3 steps is used up",
            False,
            None,
        ),
        (
            result(status=RunStatus.DECLINED, output=None, reason="nobody helped"),
            "c1: declined, $0.0000; nobody helped",
            None,
            True,
            None,
        ),
        (
            result(status=RunStatus.STOPPED, output=None, reason="stopped by ann"),
            "c1: stopped, $0.0000; stopped by ann",
            None,
            True,
            "people",
        ),
        (
            result(uncertain=(LOST,)),
            "found",
            "c1: completed, $0.0000; it is unknown whether this happened: send to=ann (the line broke)",
            False,
            None,
        ),
    ],
)
def test_the_model_is_told_output_status_cost_and_what_is_not_known(
    ended: ChildReport, text: str, note: str | None, error: bool, cause: str | None
) -> None:
    told = children.write_answer("boss/c1", ended)

    assert (told.text, told.note, told.error, told.cause) == (text, note, error, cause)


def test_a_long_answer_is_told_by_reference() -> None:
    told = children.write_answer("boss/c1", result(output=None, output_digest="d" * 43, output_size=900))

    assert (told.digest, told.size, told.text, told.note) == ("d" * 43, 900, None, "c1: completed, $0.0000")


def test_effects_of_a_child_are_one_entry_and_its_uncertain_calls_keep_who_made_them() -> None:
    child = EffectEntry(step=3, tool="worker", call="worker task=a", key="boss/c1", run="boss/c1", reason="?")
    entry = children.stand_for(child, result(effects=EffectLog(count=4, digest="d" * 43)))

    assert entry is not None
    assert (entry.count, entry.digest, entry.reason, entry.run) == (4, "d" * 43, None, "boss/c1")
    assert children.stand_for(child, result()) is None
    deeper = LOST.model_copy(update={"run": "boss/c1/c2"})
    assert [one.run for one in children.name_uncertain("boss/c1", (LOST, deeper))] == ["boss/c1", "boss/c1/c2"]


def test_ids_are_those_of_the_run_first() -> None:
    ids = children.list_ids("boss", "01a22c1e-cb23", 3, is_taken=False)

    assert ids[:3] == ("boss/c3", "boss/01a22c1e/c3", "boss/01a22c1e/c3-2")
    assert children.list_ids("boss", "01a22c1e-cb23", 3, is_taken=True) == ids[1:]
    assert len(set(ids)) == len(ids)


def test_what_nobody_can_tell_is_not_told() -> None:
    unknown = children.build_unknown("boss/c1", "nobody could tell")

    assert not children.is_told("boss/c1", unknown)
    assert children.is_told("boss/c1", result(uncertain=(LOST,)))
    assert unknown.tainted


DIGEST = "d" * 43

LONG = EffectEntry(step=1, tool="send", call="send to=" + "ü" * 92, key=DIGEST, reason="r" * 300, run="boss-1/c1")


def run_state(**given: object) -> RunState:
    agent = AgentPin(
        name="a", digest=DIGEST, models=("openai:m",), tools=(), policy=(), store="s", attempts=3, budget=Budget()
    )
    return RunState.model_validate({"agent": agent, "head": DIGEST, "step": 7, "step_limit": 40, **given})


def test_a_result_is_under_32_kib_whatever_happened_below() -> None:
    answer = ModelReply(head=DIGEST, text="x" * 15_000, finish=Finish.COMPLETE)

    built = results.build_result(run_state(uncertain_below=(LONG,) * 50), RunStatus.COMPLETED, None, answer)

    assert len(built.model_dump_json().encode()) <= 32 * 1024


def test_the_model_is_told_again_what_may_have_happened_below() -> None:
    """After a cut nothing else tells it."""
    assert "send to=" in state_text.write_state(run_state(uncertain_below=(LONG,)))


def test_a_report_of_a_plan_names_the_steps_that_did_not_end_well() -> None:
    steps = (
        StepResult(id="a", status="completed", output="x" * 500),
        StepResult(id="b", status="failed", reason="no " + "r" * 400),
        StepResult(id="c", status="skipped", reason="b failed"),
    )
    result = PlanResult(status=RunStatus.COMPLETED, output="x", head="h" * 43, steps=steps)

    report = children.build_report(result, {"d" * 43: "ann rejected it"})

    assert isinstance(report, ChildReport)
    assert [(step.id, step.output) for step in report.steps] == [("b", None), ("c", None)]
    assert len(report.steps[0].reason or "") <= children.STEP_CHARACTERS
    assert (report.head, report.refused) == (None, {"d" * 43: "ann rejected it"})
    note = children.write_answer("boss/c1", report).note or ""
    assert note.startswith("c1: completed, $0.0000; step b failed: no r")
    assert note.endswith("step c skipped: b failed")


def test_a_report_of_an_agent_is_its_result_and_no_more() -> None:
    result = RunResult(status=RunStatus.COMPLETED, output="x", head="h" * 43)

    assert children.build_report(result, {}) == result.model_copy(update={"head": None})
