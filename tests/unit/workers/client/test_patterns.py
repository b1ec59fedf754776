"""Patterns of many agents: their plans have no faults, for any number of agents, and cost what they say."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workers.client import patterns
from mandate.workers.client.patterns import chain, debate, fan_out, plan_and_execute, reflect, supervise
from mandate.workflows.contracts.budget import Budget, BudgetRequest
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules.cel.evaluation import Facts
from mandate.workflows.rules.plans import faults, order
from mandate.workflows.rules.plans.targets import Target
from tests.support.examples import examples

NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}", fullmatch=True) | st.sampled_from(
    ["in", "true", "a", "a_2", "a-2"]
)
SOME = st.lists(NAMES, min_size=1, max_size=8)


def find(made: PlanSpec) -> list[Any]:
    """Faults and warnings where all agents answer with texts."""
    agents = {step.agent: Target() for step in made.steps if step.agent is not None}
    known: dict[str, Any] = {"agents": agents, "tools": {}, "plans": {}}
    return [*faults.find_faults(made, **known), *faults.find_warnings(made, **known)]


def levels(made: PlanSpec) -> list[list[str]]:
    return [list(level) for level in order.list_levels(made)]


def evaluate(text: str, outputs: dict[str, Any], value: Any = None) -> Any:
    return Facts({"input": value, "steps": {name: {"output": output} for name, output in outputs.items()}}).value(text)


@given(SOME)
def test_chain_is_one_run_an_agent_in_their_order(agents: list[str]) -> None:
    made = chain(*agents)

    assert find(made) == []
    assert [step.agent for step in made.steps] == agents
    assert levels(made) == [[step.id] for step in made.steps]


def test_chain_hands_answers_on() -> None:
    made = chain("in", "my-writer", "my-writer")

    assert [(step.id, step.input) for step in made.steps] == [
        ("in", None), ("my_writer", "steps['in'].output"), ("my_writer_2", "steps.my_writer.output"),
    ]  # fmt: skip


def test_long_chains_are_plans() -> None:
    made = chain(*["writer"] * 2000)

    assert len(levels(made)) == 2000


@given(NAMES, NAMES, st.integers(0, 2000), st.integers(1, 500))
def test_fan_out_is_one_run_an_item_and_one_to_join(agent: str, join: str, needs: int, most: int) -> None:
    made = fan_out(agent, "input.companies", join=join, needs=needs, max_parallel=most)

    assert find(made) == []
    assert levels(made) == [["each"], ["join"]]
    assert (made.steps[0].needs, made.steps[0].max_parallel) == (needs, most)
    assert len(fan_out(agent).steps) == 1


def test_what_joins_is_not_told_of_what_failed() -> None:
    asked = fan_out("a", join="b").steps[1].input

    assert isinstance(asked, dict)
    assert evaluate(asked["results"], {"each": ["x", None, "y"]}) == ["x", "y"]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=5))
def test_items_may_be_written_into_the_plan(items: list[Any]) -> None:
    made = fan_out("a", items, join="b")

    assert find(made) == []
    listed = made.steps[0].for_each
    assert listed is not None
    assert evaluate(listed, {}) == items


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (["x" * 4000],
         ("the items take 4,004 characters, and an expression has at most 4,000; give them to the plan as its input, "
          "and write 'input' here")),
        ([float("nan")], "holds NaN or an infinity, which JSON has no form for"),
        (["\ud800"], "holds half of a surrogate pair, which is no text"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_written_are_refused(items: list[Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        fan_out("a", items)


@given(NAMES, NAMES, st.integers(1, patterns.MOST_ROUNDS))
def test_reflect_is_two_runs_a_round_after_the_draft(writer: str, critic: str, rounds: int) -> None:
    made = reflect(writer, critic, rounds)

    assert find(made) == []
    assert len(made.steps) == 1 + 2 * rounds
    assert len(levels(made)) == 1 + 2 * rounds


def test_reflect_ends_after_a_good_review_with_the_last_draft() -> None:
    made = reflect("writer", "critic", 2)
    good, bad = {"good": True, "problems": []}, {"good": False, "problems": ["x"]}
    when = {step.id: step.when for step in made.steps if step.when is not None}
    assert made.output is not None

    first: dict[str, Any] = {"draft": "a", "review_1": good, "revision_1": None, "review_2": None, "revision_2": None}
    assert {name: evaluate(text, first) for name, text in when.items()} == {
        "revision_1": False, "review_2": False, "revision_2": False,
    }  # fmt: skip
    assert evaluate(made.output, first) == "a"
    second = {**first, "review_1": bad, "revision_1": "b", "review_2": good}
    assert {name: evaluate(text, second) for name, text in when.items()} == {
        "revision_1": True, "review_2": True, "revision_2": False,
    }  # fmt: skip
    assert evaluate(made.output, second) == "b"
    third = {**second, "review_2": bad, "revision_2": "c"}
    assert evaluate(when["revision_2"], third) is True
    assert evaluate(made.output, third) == "c"
    unreviewed = {**first, "review_1": None}
    assert evaluate(when["revision_1"], unreviewed) is False


@given(NAMES, NAMES, NAMES, st.integers(1, 2000))
def test_plan_and_execute_goes_through_the_tasks(planner: str, worker: str, joiner: str, most: int) -> None:
    made = plan_and_execute(planner, worker, joiner, most_tasks=most)

    assert find(made) == []
    assert levels(made) == [["plan"], ["work"], ["join"]]
    assert made.steps[1].for_each == "steps.plan.output.tasks"


@given(NAMES, SOME, st.integers(1, patterns.MOST_ROUNDS))
@examples(30)
def test_supervise_is_a_result_and_a_review_an_attempt(manager: str, workers: list[str], attempts: int) -> None:
    made = supervise(manager, workers, attempts=attempts)

    assert find(made) == []
    assert len(made.steps) == 2 + 2 * len(workers) * attempts
    assert len(levels(made)) == 2 + 2 * attempts


def test_a_rejected_result_is_made_again_and_only_accepted_ones_are_handed_on() -> None:
    made = supervise("boss", ["a"], attempts=3)
    yes, no = {"accepted": True, "reason": ""}, {"accepted": False, "reason": "no source"}
    steps = {step.id: step for step in made.steps}
    conclude, again = steps["conclude"].input, steps["a_work_3"]
    assert isinstance(conclude, dict)
    assert isinstance(again.input, dict)
    assert again.when is not None

    result = {"answer": "x", "evidence": ["y"]}
    works = {"a_work_1": {"answer": "w", "evidence": ["v"]}, "a_work_2": result, "a_work_3": None}
    accepted = {**works, "a_review_1": no, "a_review_2": yes, "a_review_3": None}
    assert evaluate(again.when, accepted) is False
    assert evaluate(conclude["results_of_a"], accepted) == [result]
    rejected = {**works, "a_review_1": no, "a_review_2": no, "a_review_3": None}
    assert evaluate(again.when, rejected) is True
    assert evaluate(again.input["rejected"], rejected) == result
    assert evaluate(again.input["review"], rejected) == no
    assert evaluate(conclude["results_of_a"], rejected) == []
    failed = {**works, "a_work_1": None, "a_work_2": None, "a_review_1": None, "a_review_2": None, "a_review_3": None}
    assert evaluate(again.when, failed) is True
    assert steps["a_work_1"].success is not None
    assert Facts({"output": {"answer": "x", "evidence": []}}).value(steps["a_work_1"].success) is False


@given(st.lists(NAMES, min_size=3, max_size=9, unique=True), st.integers(1, patterns.MOST_ROUNDS))
def test_half_of_a_debates_runs_are_its_baseline(names: list[str], rounds: int) -> None:
    judge, *agents = names
    made = debate(agents, judge, rounds=rounds)

    assert find(made) == []
    alone = [step for step in made.steps if step.id.startswith("alone_")]
    assert len(made.steps) == 2 * (len(agents) * rounds + 1) == 2 * len(alone)
    assert {step.agent for step in alone} == {agents[0]}


def test_votes_are_hidden_in_the_first_round_and_nameless_in_the_next() -> None:
    made = debate(["x", "y", "z"], "judge")
    steps = {step.id: step for step in made.steps}

    assert [steps[f"vote_{place}_1"].input for place in (1, 2, 3)] == [{"task": "input"}] * 3
    second = steps["vote_2_2"].input
    assert isinstance(second, dict)
    cast = {"vote_1_1": {"answer": "a"}, "vote_2_1": {"answer": "b"}, "vote_3_1": None}
    assert evaluate(second["own"], cast) == {"answer": "b"}
    assert evaluate(second["others"], cast) == [{"answer": "a"}]
    assert made.output == "{'answer': steps.judge.output, 'baseline': steps.alone_7.output}"
    assert order.list_needs(steps["alone_2"]) == {"alone_1"}
    assert levels(made)[0] == ["alone_1", "vote_1_1", "vote_2_1", "vote_3_1"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (chain, "agents: 0 are not between 1 and 2,000"),
        (lambda: reflect("a", "b", 0), "rounds: 0 are not between 1 and 10"),
        (lambda: reflect("a", "b", 11), "rounds: 11 are not between 1 and 10"),
        (lambda: supervise("a", []), "workers: 0 are not between 1 and 499"),
        (lambda: supervise("a", ["b"] * 500), "workers: 500 are not between 1 and 499"),
        (lambda: supervise("a", ["b"], attempts=0), "attempts: 0 are not between 1 and 10"),
        (lambda: plan_and_execute("a", "b", "c", most_tasks=0), "most_tasks: 0 are not between 1 and 2,000"),
        (lambda: debate(["a"], "b"), "agents: 1 are not between 2 and 50"),
        (lambda: debate(["a", "a"], "b"),
         "agent 'a' is given twice; a debate needs different agents, and a judge beside them"),
        (lambda: debate(["a", "b"], "b"),
         "agent 'b' is given twice; a debate needs different agents, and a judge beside them"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_pattern_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda **keys: chain("a", "b", **keys),
        lambda **keys: fan_out("a", join="b", **keys),
        lambda **keys: reflect("a", "b", **keys),
        lambda **keys: plan_and_execute("a", "b", "c", **keys),
        lambda **keys: supervise("a", ["b"], **keys),
        lambda **keys: debate(["a", "b"], "c", **keys),
    ],
)
def test_each_run_has_its_share_and_the_plan_its_budget(make: Any) -> None:
    share, budget = BudgetRequest(cost_usd=Decimal("0.10")), Budget(cost_usd=Decimal(9))

    made: PlanSpec = make(share=share, budget=budget, name="mine")

    assert (made.name, made.budget) == ("mine", budget)
    assert {step.budget.cost_usd for step in made.steps} == {Decimal("0.10")}
    assert find(made) == []
    assert PlanSpec.model_validate_json(made.model_dump_json()) == made


def test_shares_of_all_runs_count_against_the_budget() -> None:
    made = debate(["a", "b"], "c", share=BudgetRequest(model_calls=5), budget=Budget(model_calls=49))

    assert [message for _, message in find(made)] == [
        (
            "the shares of its steps come to 50, more than the plan's 49: alone_1 5, alone_2 5, alone_3 5, alone_4 5, "
            "alone_5 5, judge 5 and 4 more"
        )
    ]
