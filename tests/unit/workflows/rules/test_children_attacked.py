"""Attacks on what a run with children tells of itself."""

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.model import Finish, ModelReply
from mandate.workflows.contracts.run import EffectEntry, RunStatus
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import result, state_text

DIGEST = "d" * 43

LOST = EffectEntry(step=1, tool="send", call="send to=" + "ü" * 92, key=DIGEST, reason="r" * 300, run="boss-1/c1")


def state(**given: object) -> RunState:
    agent = AgentPin(
        name="a", digest=DIGEST, models=("openai:m",), tools=(), policy=(), store="s", attempts=3, budget=Budget()
    )
    return RunState.model_validate({"agent": agent, "head": DIGEST, "step": 7, "step_limit": 40, **given})


def test_a_result_is_under_32_kib_whatever_happened_below() -> None:
    answer = ModelReply(head=DIGEST, text="x" * 15_000, finish=Finish.COMPLETE)

    built = result.build_result(state(uncertain_below=(LOST,) * 50), RunStatus.COMPLETED, None, answer)

    assert len(built.model_dump_json().encode()) <= 32 * 1024


def test_the_model_is_told_again_what_may_have_happened_below() -> None:
    """After a cut nothing else tells it."""
    assert "send to=" in state_text.write_state(state(uncertain_below=(LOST,)))
