"""Budgets of one run on a real server: reserved first, raised by people, and with an answer at their end."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, texts_told
from tests.support.people import asked, decide, decision, refusal_of, write_people

LOOK: dict[str, Any] = {"repeat": 100, "call": [{"look": {"what": "x"}}]}
LAST = "This is all that I have."


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def priced(**more: Any) -> list[dict[str, Any]]:
    return [{"model": "", "price": {"input": "1", "output": "10"}, "max_output_tokens": 1000, **more}]


def write(site: Site, name: str, turns: list[Any], *, usage: dict[str, Any] | None = None, **keys: Any) -> None:
    """An agent whose model has a price and reports `usage` for each call."""
    site.write(name, [{**turn, **({"usage": usage} if usage else {})} for turn in turns], **keys)
    path = site.folder / "agents" / f"{name}.yaml"
    path.write_text(path.read_text().replace('"model": ""', f'"model": "scripted:{name}.script.yaml"'))


async def test_the_last_step_is_an_answer(site: Site) -> None:
    site.write("steps", [LOOK], budget={"steps": 4})

    result, _ = await site.run("steps")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert result.reason == "the limit of 4 steps is used up"
    assert result.usage.model_calls == 4


async def test_the_only_step_may_answer_as_it_likes(site: Site) -> None:
    site.write("only", [{"say": "done"}], budget={"steps": 1})

    result, _ = await site.run("only")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")


async def test_a_limit_of_model_calls_leaves_one_for_the_answer(site: Site) -> None:
    site.write("calls", [LOOK], budget={"model_calls": 3})

    result, _ = await site.run("calls")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert result.reason == "the limit of 3 model calls is used up"
    assert result.usage.model_calls == 3


async def until(handle: WorkflowHandle[Any, Any], holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until something holds of a run's progress; a run that has not begun has none."""
    while True:
        with suppress(WorkflowQueryFailedError):
            if holds(await handle.query("progress")):
                return
        await asyncio.sleep(0.05)


async def test_calls_of_tools_are_not_made_beyond_their_limit(site: Site) -> None:
    site.write("tools", [LOOK], budget={"tool_calls": 2})

    result, _ = await site.run("tools")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert await texts_told(site, result.head) == [
        "looked at x",
        "looked at x",
        "not made: the limit of 2 tool calls is used up",
    ]


async def test_money_is_never_spent_beyond_the_limit(site: Site) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 200}
    write(site, "money", [LOOK], usage=usage, models=priced(), budget={"cost_usd": "0.10"})

    result, _ = await site.run("money")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert result.reason == "the limit of $0.10 is used up"
    assert 0.05 < float(result.usage.cost_usd) <= 0.10


async def test_tokens_are_never_used_beyond_the_limit(site: Site) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 500}
    site.write("tokens", [{**LOOK, "usage": usage}], max_output_tokens=600, budget={"tokens": 20_000})

    result, _ = await site.run("tokens")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert 10_000 < result.usage.input_tokens + result.usage.output_tokens <= 20_000


async def test_nothing_is_asked_that_does_not_fit(site: Site) -> None:
    site.write("small", [{"say": "done"}], budget={"tokens": 100})

    result, _ = await site.run("small")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, None)
    assert result.reason == "the limit of 100 tokens is used up; nothing is left for a last answer"
    assert result.usage.model_calls == 0


async def test_a_start_request_lowers_and_never_raises(site: Site) -> None:
    site.write("lower", [LOOK], budget={"steps": 6})

    lower, _ = await site.run("lower", budget={"steps": 3})
    higher, _ = await site.run("lower", budget={"steps": 60})

    assert (lower.usage.model_calls, higher.usage.model_calls) == (3, 6)


@pytest.mark.parametrize("limit", ["model_calls", "steps"])
async def test_stop_ends_without_an_answer_once_the_limit_is_used_up(site: Site, limit: str) -> None:
    site.write("stops", [LOOK], budget={limit: 3, "when_used_up": "stop"})

    result, _ = await site.run("stops")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, None)
    assert result.usage.model_calls == 3


async def test_stop_keeps_back_what_the_checks_of_an_answer_need(site: Site) -> None:
    check = {"name": "judged", "after": "final", "rubric": "It is brief.", "model": "scripted:judge.script.yaml"}
    site.write("judge", [{"say": '{"verdict": "pass", "reason": "it is"}'}])
    budget = {"model_calls": 3, "when_used_up": "stop"}
    site.write("judged", [{"call": [{"look": {"what": "x"}}]}, {"say": "done"}], budget=budget, checks=[check])

    result, _ = await site.run("judged")

    assert (result.status, result.output, result.usage.model_calls) == (RunStatus.COMPLETED, "done", 3)


async def test_the_last_answer_is_no_step_beyond_the_limit(site: Site) -> None:
    site.write("one", [LOOK], budget={"steps": 1})

    result, _ = await site.run("one")

    assert (result.status, result.output, result.usage.model_calls) == (RunStatus.EXHAUSTED, None, 1)
    assert result.reason == "the limit of 1 step is used up; nothing is left for a last answer"


async def test_raise_is_offered_only_of_limits_that_may_be_raised(site: Site) -> None:
    budget = {"model_calls": 90, "when_used_up": "ask", "raise_at_most": {"model_calls": 100}}
    site.write("asks", [LOOK], budget=budget)
    async with site.serving():
        handle = await site.start("asks", budget={"steps": 2})
        (request,) = await asked(handle)
        assert (request.title, request.choices) == (
            "the limit of 2 steps is used up: a last answer?",
            ("answer", "stop"),
        )
        await decide(handle, request, "answer")
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)


async def test_what_is_used_up_has_to_be_raised_and_is_told_with_its_value(site: Site) -> None:
    site.write("asks", [LOOK], budget={"model_calls": 3, "tokens": 10**6, "when_used_up": "ask"})
    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        why = await refusal_of(handle, "decide", decision(request, "raise", value={"tokens": 2 * 10**6}))
        receipt = await decide(handle, request, "raise", value={"model_calls": 5, "tokens": 2 * 10**6})
        (again,) = await asked(handle)
        await decide(handle, again, "stop")
        await handle.result()

    assert why == "value: model_calls: is used up, so it has to be raised too"
    assert receipt.message.endswith("chose raise: 5 model calls, 2,000,000 tokens")


@pytest.mark.parametrize("verdict", ["deny", "ask"])
async def test_rule_about_money_that_is_not_limited_counts(site: Site, verdict: str) -> None:
    """Its condition cannot be evaluated: nothing is left of no limit."""
    turns = [{"call": [{"look": {"what": "x"}}]}, {"say": "done"}]
    rule = {"id": "money", "match": {}, "when": "run.budget_left_usd < 1.99", "verdict": verdict}
    site.write("money", turns, policy=[rule], people={"expires": "1s"})

    result, _ = await site.run("money")

    (told,) = await texts_told(site, result.head)
    assert told.startswith("refused: ")


async def test_words_are_told_in_the_steps_that_people_gave_beside(site: Site) -> None:
    looks = [{"call": [{"look": {"what": str(number)}}]} for number in range(3)]
    turns = [*looks, {"delay": "2s", "say": "done early"}, {"expect": {"user": "*look at w*"}, "say": "heard"}]
    site.write("words", turns, budget={"steps": 2, "when_used_up": "ask"})
    async with site.serving(), asyncio.timeout(60):
        handle = await site.start("words")
        (request,) = await asked(handle)
        await decide(handle, request, "raise", value={"steps": 10})
        await until(handle, lambda told: "asking" in told["doing"] and told["step"] == 3)
        await site.agents.steer(handle.id, "Also look at w", by="ann@example.com")
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "heard")


async def test_words_that_the_last_answer_cannot_be_told_are_refused(site: Site) -> None:
    site.write("words", [], budget={"steps": 2})
    script = {"turns": [LOOK], "strict": False, "delay": "2s"}
    (site.folder / "agents" / "words.script.yaml").write_text(json.dumps(script))
    async with site.serving(), asyncio.timeout(60):
        handle = await site.start("words")
        await until(handle, lambda told: "last answer" in str(told["recent"]))
        said = {"text": "Also look at w", "by": "ann@example.com"}
        why = await refusal_of(handle, "steer", said)
        result = await handle.result()

    assert why.startswith("the run gives its last answer, since the limit of 2 steps is used up; ")
    assert result.status == RunStatus.EXHAUSTED


async def test_people_raise_the_limit_or_take_the_answer(site: Site) -> None:
    budget = {"model_calls": 3, "when_used_up": "ask", "raise_at_most": {"model_calls": 8}}
    site.write("asks", [LOOK], budget=budget)
    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)

        assert (request.kind, request.choices) == ("budget", ("raise", "answer", "stop"))
        assert request.title == "the limit of 3 model calls is used up: raise it?"
        assert request.options == ('{"model_calls":6}',)
        assert any(re.fullmatch(r"the next step would take up to 8,\d\d\d tokens", line) for line in request.evidence)
        for value, why in (
            ({"model_calls": 9}, "value: model_calls: it may be raised to 8 at most"),
            ({"model_calls": 3}, "value: model_calls: 3 is not more than the limit of now, 3"),
            ({"tokens": 9}, "value: tokens: the run has no such limit"),
            ({"steps": 80}, "value: steps: it is not to be raised"),
            (None, "value: must be an object with the new limits"),
        ):
            assert why in await refusal_of(handle, "decide", decision(request, "raise", value=value))
        await decide(handle, request, "raise", value={"model_calls": 5})
        (again,) = await asked(handle)
        assert again.title == "the limit of 5 model calls is used up: raise it?"
        await decide(handle, again, "answer")
        result = await handle.result()

    assert (result.status, result.output, result.usage.model_calls) == (RunStatus.EXHAUSTED, LAST, 5)


async def test_the_last_answer_is_checked_and_what_failed_is_told(site: Site) -> None:
    check = {"name": "total", "after": "final", "expect": "result == 'never'"}
    site.write("checked", [LOOK], budget={"steps": 2}, checks=[check])

    result, _ = await site.run("checked")

    assert (result.status, result.output) == (RunStatus.EXHAUSTED, LAST)
    assert (result.reason or "").startswith("the limit of 2 steps is used up; its last answer did not pass: ")


async def test_time_cuts_a_model_call_off(site: Site) -> None:
    site.write(
        "slow", [{"call": [{"look": {"what": "x"}}]}, {"delay": "60s", "say": "late"}], budget={"wall_time": "5s"}
    )
    async with site.serving(), asyncio.timeout(20):
        handle = await site.start("slow")
        result = await handle.result()

    assert result.status == RunStatus.EXHAUSTED
    assert (result.reason or "").startswith("the limit of 5s since the start is used up")


async def test_time_cuts_a_read_off_and_waits_for_an_effect(site: Site) -> None:
    turns = [{"call": [{"look": {"what": "x", "seconds": 60.0}}]}, {"say": "late"}]
    site.write("reads", turns, budget={"wall_time": "5s"})
    paid = [{"call": [{"pay": {"order": 1, "seconds": 7.0}}]}, {"say": "late"}]
    site.write("acts", paid, budget={"wall_time": "5s"})
    async with site.serving(), asyncio.timeout(25):
        read, acted = await site.start("reads"), await site.start("acts")
        of_read, of_effect = await read.result(), await acted.result()

    for result in (of_read, of_effect):
        assert result.status == RunStatus.EXHAUSTED
        assert (result.reason or "").startswith("the limit of 5s since the start is used up")
    assert (of_effect.effects.count, of_effect.uncertain) == (1, ())


async def test_waiting_for_people_is_no_work(site: Site) -> None:
    rule = [{"id": "all", "match": {}, "verdict": "ask", "approvers": {"groups": ["finance"]}}]
    turns = [{"call": [{"look": {"what": "x"}}]}, {"say": "done"}]
    site.write("waits", turns, policy=rule, budget={"work_time": "5s"})
    async with site.serving():
        handle = await site.start("waits")
        (request,) = await asked(handle)
        await asyncio.sleep(6)
        await decide(handle, request)
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")


JUDGED = {"name": "told", "after": "final", "rubric": "It says what it lacks.", "model": "scripted:judge.script.yaml"}


async def test_models_that_judge_are_paid_from_the_budget(site: Site) -> None:
    site.write("judge", [{"say": '{"verdict": "pass", "reason": "it does"}'}])
    site.write("judged", [{"say": "done"}], checks=[JUDGED], budget={"model_calls": 3})

    result, _ = await site.run("judged")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert result.usage.model_calls == 2


async def test_the_check_of_the_last_answer_is_kept_back_for(site: Site) -> None:
    site.write("judge", [{"say": '{"verdict": "fail", "reason": "it does not"}'}])
    site.write("judged", [LOOK], checks=[JUDGED], budget={"model_calls": 4})

    result, _ = await site.run("judged")

    assert (result.status, result.output, result.usage.model_calls) == (RunStatus.EXHAUSTED, LAST, 4)
    assert "did not pass" in (result.reason or "")


async def test_budgets_beyond_the_run_end_it_with_a_sentence(site: Site) -> None:
    (site.folder / "budgets.yaml").write_text('budgets: [{id: all, per: month, cost_usd: "0.03"}]')
    site.environment["MANDATE_BUDGETS"] = str(site.folder / "budgets.yaml")
    write(site, "beyond", [LOOK], usage={"input_tokens": 1000, "output_tokens": 200}, models=priced())

    result, _ = await site.run("beyond")

    assert result.status == RunStatus.EXHAUSTED
    assert (result.reason or "").startswith("the budget 'all' for 20")
    assert 0.01 < float(result.usage.cost_usd) <= 0.03


async def test_reads_side_by_side_are_each_judged_within_the_budget(site: Site) -> None:
    check = {**JUDGED, "after": "look"}
    site.write("judge", [{"delay": "0.5s", "say": '{"verdict": "pass", "reason": "it does"}'}])
    turns = [{"call": [{"look": {"what": "a"}}, {"look": {"what": "b"}}]}, {"say": "done"}]
    site.write("judged", turns, checks=[check], budget={"model_calls": 20})
    async with asyncio.timeout(40):
        result, _ = await site.run("judged")

    assert (result.status, result.output, result.usage.model_calls) == (RunStatus.COMPLETED, "done", 4)
