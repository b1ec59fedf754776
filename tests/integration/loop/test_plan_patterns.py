"""Patterns of many agents, run: what is skipped, made again and handed on, as their plans say."""

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.client.patterns import chain, debate, fan_out, plan_and_execute, reflect, supervise
from mandate.workflows.contracts.plan import PlanResult, PlanSpec
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import REQUESTER, Site, new_site


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def write(site: Site, name: str, *answers: tuple[str, Any]) -> None:
    """An agent that answers by what it is asked: the first whose pattern fits, a text or JSON."""
    site.write(name, [], tools=[])
    played = [
        {"match": match, "turns": [{"say": said if isinstance(said, str) else json.dumps(said)}]}
        for match, said in answers
    ]
    (site.folder / "agents" / f"{name}.script.yaml").write_text(json.dumps({"conversations": played, "strict": False}))


async def run(site: Site, plan: PlanSpec, given: Any = "Do it.") -> PlanResult:
    async with site.serving():
        return await site.agents.run_plan(plan, given, requester=REQUESTER)


def statuses(result: PlanResult) -> dict[str, str]:
    return {step.id: step.status for step in result.steps}


async def test_a_chain_hands_each_answer_to_the_next(site: Site) -> None:
    write(site, "writer", ("Do it.", "a draft"), ("a draft", "a text"))

    result = await run(site, chain("writer", "writer"))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "a text")


async def test_what_joins_a_fan_out_is_told_of_all_that_ended_well(site: Site) -> None:
    write(site, "reader", ("a", "A"), ("c", "C"))
    write(site, "joiner", ('*"results":["A","C"]*', "A and C"))

    result = await run(site, fan_out("reader", ["a", "b", "c"], join="joiner", needs=2))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "A and C")
    (each, _) = result.steps
    assert (each.items, each.completed, each.failed) == (3, 2, 1)


async def test_reflection_ends_with_a_good_review(site: Site) -> None:
    write(site, "writer", ("Do it.", "a draft"), ('*"problems":["short"]*', "a longer draft"))
    write(
        site,
        "critic",
        ('*"a longer draft"*', {"good": True, "problems": []}),
        ('*"a draft"*', {"good": False, "problems": ["short"]}),
    )

    result = await run(site, reflect("writer", "critic", 3))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "a longer draft")
    assert statuses(result) == {
        "draft": "completed", "review_1": "completed", "revision_1": "completed", "review_2": "completed",
        "revision_2": "skipped", "review_3": "skipped", "revision_3": "skipped",
    }  # fmt: skip


async def test_a_planners_tasks_are_each_done_and_joined(site: Site) -> None:
    write(site, "planner", ("*", {"tasks": ["one", "two"]}))
    write(site, "worker", ('*"task":"one"*', "1"), ('*"task":"two"*', "2"))
    write(site, "joiner", ('*"results":["1","2"],"tasks":["one","two"]*', "1 and 2"))

    result = await run(site, plan_and_execute("planner", "worker", "joiner"))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "1 and 2")


async def test_a_rejected_result_is_made_again_and_one_without_evidence_is_not_reviewed(site: Site) -> None:
    accepted, rejected = {"accepted": True, "reason": ""}, {"accepted": False, "reason": "too old"}
    write(
        site,
        "boss",
        ('*"results_of_careful":[{"answer":"new"*"results_of_hasty":[]*', "new"),
        ('*"result":{"answer":"new"*', accepted),
        ('*"result":{"answer":"old"*', rejected),
        ('*"result"*', rejected),
        ("*", {"careful": "look", "hasty": "guess"}),
    )
    write(
        site,
        "careful",
        ('*"rejected":{"answer":"old"*"reason":"too old"*', {"answer": "new", "evidence": ["page 2"]}),
        ("*", {"answer": "old", "evidence": ["page 1"]}),
    )
    write(site, "hasty", ("*", {"answer": "a guess", "evidence": []}))

    result = await run(site, supervise("boss", ["careful", "hasty"], attempts=3))

    assert (result.status, result.output) == (RunStatus.COMPLETED, "new")
    found = statuses(result)
    assert {name: status for name, status in found.items() if name.startswith("careful")} == {
        "careful_work_1": "completed", "careful_review_1": "completed", "careful_work_2": "completed",
        "careful_review_2": "completed", "careful_work_3": "skipped", "careful_review_3": "skipped",
    }  # fmt: skip
    assert {name: status for name, status in found.items() if name.startswith("hasty")} == {
        "hasty_work_1": "failed", "hasty_review_1": "skipped", "hasty_work_2": "failed", "hasty_review_2": "skipped",
        "hasty_work_3": "failed", "hasty_review_3": "skipped",
    }  # fmt: skip


async def test_a_debate_has_its_baseline_beside_it(site: Site) -> None:
    for name in ("ann", "bob"):
        write(
            site, name, ('*"own":*', {"answer": f"{name} again", "reason": ""}), ("*", {"answer": name, "reason": ""})
        )
    write(site, "judge", ('*"ann again"*"bob again"*', {"answer": "bob", "reason": "it is so"}))

    result = await run(site, debate(["ann", "bob"], "judge"))

    assert result.status is RunStatus.COMPLETED
    assert result.output == {
        "answer": {"answer": "bob", "reason": "it is so"},
        "baseline": {"answer": "ann again", "reason": ""},
    }
    assert set(statuses(result).values()) == {"completed"}
