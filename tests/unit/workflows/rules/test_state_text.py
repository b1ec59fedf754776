"""Words for how a run stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.request import Closed
from mandate.workflows.contracts.run import EffectEntry, EffectLog
from mandate.workflows.contracts.state import PeopleState, RecoveryState, RunState
from mandate.workflows.rules import state_text

DIGEST = "d" * 43


def state(**given: object) -> RunState:
    agent = AgentPin(
        name="a", digest=DIGEST, models=("openai:m",), tools=(), policy=(), store="s", attempts=3, budget=Budget()
    )
    return RunState.model_validate({"agent": agent, "head": DIGEST, "step": 7, "step_limit": 40, **given})


def entry(number: int, **given: object) -> EffectEntry:
    return EffectEntry.model_validate(
        {"step": number, "tool": "pay", "call": f"pay order={number}", "key": "k", **given}
    )


def test_a_run_that_did_nothing_says_where_it_is() -> None:
    assert state_text.write_state(state()) == (
        "Step 7 of at most 40; so far 0 model calls, 0 tokens in, 0 out, $0.0000."
    )


def test_the_state_is_said_from_the_state() -> None:
    closed = Closed(id="r1", kind="approval", digest=DIGEST, outcome="rejected", reason="ann: too much")

    text = state_text.write_state(
        state(
            kept_in_mind=("The order is AX-1.",),
            effects=EffectLog(count=2, digest=DIGEST, last=(entry(1), entry(2, undoes="k1"))),
            uncertain=(entry(3, reason="the line broke"),),
            people=PeopleState(closed=(closed,)),
            recovery=RecoveryState(refused={DIGEST: "ann said no to pay order=9"}),
        )
    )

    assert text == (
        "Keep in mind, as you asked for:\n- The order is AX-1.\n\n"
        "Done so far, and not to be done again:\n- step 1: pay order=1\n"
        "- step 2: pay order=2, which took back an earlier call\n\n"
        "It is unknown whether these happened:\n- step 3: pay order=3 (the line broke)\n\n"
        "Step 7 of at most 40; so far 0 model calls, 0 tokens in, 0 out, $0.0000.\n\n"
        "What people decided lately:\n- r1, approval: rejected; ann: too much\n\n"
        "Refused by people, not to be asked for again:\n- ann said no to pay order=9"
    )


@pytest.mark.parametrize("count", [50, 10_000])
def test_the_state_is_bounded_and_facts_stay_whole(count: int) -> None:
    facts = tuple(f"{number} " + "f" * 490 for number in range(20))
    effects = EffectLog(count=count, digest=DIGEST, last=tuple(entry(n, call="pay " + "x" * 96) for n in range(50)))

    text = state_text.write_state(
        state(kept_in_mind=facts, effects=effects, uncertain=(entry(1, reason="r" * 900),) * 50)
    )

    assert all(fact in text for fact in facts)
    assert f"Done so far: {count} calls that changed the world, the last 20 of them:" in text
    assert len(text) <= state_text.STATE_CHARACTERS + 20 * 503 + 100


@given(st.lists(st.text(min_size=1, max_size=600)))
def test_the_last_facts_are_kept_once_each(texts: list[str]) -> None:
    facts: tuple[str, ...] = ()
    for text in texts:
        facts = state_text.keep_fact(facts, text)

    assert len(facts) <= state_text.FACTS
    assert len(set(facts)) == len(facts)
    assert all(len(fact) <= state_text.FACT_CHARACTERS for fact in facts)


def test_a_fact_that_is_said_again_becomes_the_newest() -> None:
    assert state_text.keep_fact(("a", "b", "c"), "a") == ("b", "c", "a")
