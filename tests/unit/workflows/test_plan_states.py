"""The state of a plan on its way to the next part of its run."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.budget import Ledger
from mandate.workflows.contracts.plan import PlanState
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.loop.plan import DONE, TOLD, pack, unpack

ALLOWED = Verdict(kind="allow", reason="")


def new_state(told: list[bool]) -> RunState:
    return RunState.model_construct(
        calls=tuple(TOLD if one else CallRequest(tool=f"look{index}") for index, one in enumerate(told)),
        answers=tuple(DONE if one else (ToolResult(text="x") if index % 2 else None) for index, one in enumerate(told)),
        verdicts=tuple(None if one else ALLOWED for one in told),
        plan=PlanState(pending=tuple(index for index, one in enumerate(told) if not one)),
        ledger=Ledger(began_at=datetime(2026, 11, 2, tzinfo=UTC)),
    )


@given(st.lists(st.booleans(), max_size=60))
def test_each_call_is_in_its_place_again(told: list[bool]) -> None:
    state, before = new_state(told), new_state(told)

    pack(state)
    assert TOLD not in state.calls
    assert len(state.calls) == len(state.answers) == len(state.verdicts) == told.count(False)
    unpack(state)

    assert (state.calls, state.answers, state.verdicts) == (before.calls, before.answers, before.verdicts)
    assert state.plan == before.plan


def test_calls_that_are_taken_in_take_no_room() -> None:
    state = new_state([True] * 100_000 + [False])

    pack(state)

    assert state.plan is not None
    assert (len(state.calls), state.plan.made, state.plan.kept) == (1, 100_001, (100_000,))
