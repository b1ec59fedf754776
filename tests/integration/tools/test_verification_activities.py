"""Checks as activities: real blobs and toolboxes, and a provider over HTTP for checks by a model."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.purse import SPENT_MARK
from mandate.activities.toolbox import decorator
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.contracts.transcript import CallPart, Cut, Message, ResultPart, TextPart, UserMessage
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, CheckSpec
from tests.support.check_bench import CARD, KEY, Bench, answer, said
from tests.support.checked import CALLED, PASS, say
from tests.support.fake_provider.behaviours import Answer, Broken, Problem


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    async with made.fake:
        yield made
        await made.close()


def found(result: CheckResult) -> tuple[str, str]:
    return result.finding, result.reason


# Each kind: pass, fail, unable


@pytest.mark.parametrize(
    ("returned", "finding", "reason"),
    [
        (True, "pass", "judge_sync says that it holds"),
        (False, "fail", "judge_sync says that it does not hold"),
        ((True, "paid in full"), "pass", "paid in full"),
        ((False, "only half was paid"), "fail", "only half was paid"),
        (PASS, "pass", "it is all there"),
        ({"finding": "fail", "reason": "it is not there"}, "fail", "it is not there"),
        ({"finding": "unable", "reason": "the bank sleeps"}, "unable", "the bank sleeps"),
        (AssertionError("2 is not 3"), "fail", "2 is not 3"),
        (AssertionError(), "fail", "an assertion of judge_sync does not hold"),
        (ValueError("no such row"), "unable", "ValueError: no such row"),
        (SystemExit(3), "unable", "SystemExit: 3"),
        (KeyboardInterrupt(), "unable", "KeyboardInterrupt"),
        (ExceptionGroup("g", [ExceptionGroup("h", [AssertionError("2 is not 3")])]), "fail", "2 is not 3"),
        (
            BaseExceptionGroup("g", [AssertionError("2 is not 3"), SystemExit(3)]),
            "unable",
            "AssertionError: 2 is not 3; SystemExit: 3",
        ),
        ((False, "half \ud83d"), "fail", "half \ufffd"),
        ((False, ValueError("too few")), "fail", "ValueError: too few"),
        ({"finding": "fail", "reason": "half \ud83d"}, "fail", "half \ufffd"),
        (
            None,
            "unable",
            (
                "judge_sync returned NoneType; "
                "a check returns true or false, a pair of that and a reason, or a CheckResult"
            ),
        ),
    ],
)
async def test_python_finds_what_it_returns_or_raises(bench: Bench, returned: Any, finding: str, reason: str) -> None:
    say(returned)

    assert found(await bench.check({"python": "tests.support.checked:judge_sync"})) == (finding, reason)


async def test_python_is_given_result_arguments_and_context_by_name(bench: Bench) -> None:
    say(True)

    await bench.check({"python": "tests.support.checked:judge_sync"})

    ((given, context),) = CALLED
    assert given == {"result": {"status": "settled", "amount": 2.5}, "args": bench.arguments}
    assert context is not None
    assert (context.step, context.idempotency_key, context.attempt) == (2, KEY, 1)


@pytest.mark.parametrize(("schema", "answered"), [(None, '{"ok": 1}'), ({"type": "object"}, {"ok": 1})])
async def test_python_is_given_the_answer_as_the_agent_gives_it(
    bench: Bench, schema: JsonObject | None, answered: object
) -> None:
    say((False, "no"))
    bench.output_schema = schema
    fenced = answer('```json\n{"ok": 1}\n```')

    result = await bench.check({"python": "tests.support.checked:judge_answer"}, None, index=None, messages=(fenced,))

    assert found(result) == ("fail", "no")
    assert CALLED[0][0]["result"] == {"ok": 1}
    assert str(CALLED[0][0]["answer"]).strip() == str(answered)


@pytest.mark.parametrize("function", ["judge_async", "judge_sync"])
async def test_python_may_be_sync_or_async(bench: Bench, function: str) -> None:
    say((True, "fine"))

    assert found(await bench.check({"python": f"tests.support.checked:{function}"})) == ("pass", "fine")


async def test_python_function_that_this_worker_lacks_is_unable(bench: Bench) -> None:
    finding, reason = found(await bench.check({"python": "tests.support.checked:no_check"}))

    assert finding == "unable"
    assert reason == "this worker cannot load the check: 'tests.support.checked:no_check' is not decorated with @check"


async def test_python_that_takes_too_long_is_told_so_and_unable(bench: Bench) -> None:
    say(True)

    result = await bench.check(
        {"python": "tests.support.checked:sleeps"}, start_to_close_timeout=timedelta(milliseconds=300)
    )
    async with asyncio.timeout(30):
        while len(CALLED) < 2:
            await asyncio.sleep(0.01)

    assert found(result) == ("unable", "it took longer than 0.27 s")


@pytest.mark.parametrize(
    ("says", "finding", "reason"),
    [
        ({"status": "settled"}, "pass", "\"result.status == 'settled'\" holds"),
        (
            {"status": "pending"},
            "fail",
            '"result.status == \'settled\'" does not hold; the result is {"status":"pending"}',
        ),
        (
            {"state": 1},
            "unable",
            (
                "\"result.status == 'settled'\" cannot be evaluated: the key 'status' is missing; "
                'the result is {"state":1}'
            ),
        ),
        (ConnectionError("the line broke"), "unable", "ConnectionError: the line broke"),
        (decorator.NotDone("not today"), "unable", "not today"),
    ],
)
async def test_tool_is_read_and_its_result_expected(bench: Bench, says: Any, finding: str, reason: str) -> None:
    say(says)

    result = await bench.check(
        {"tool": "find_plain", "expect": "result.status == 'settled'"}, index=1, arguments={"order": 81, "key": KEY}
    )

    assert found(result) == (finding, reason)
    ((given, _),) = CALLED
    assert given == {"order": 81, "key": KEY}


async def test_expectation_of_a_tool_sees_the_arguments_of_the_call(bench: Bench) -> None:
    say({"amount": 2.5})

    result = await bench.check({"tool": "find_plain", "expect": "result.amount == args.amount"})

    assert result.finding == "pass"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("send", {"to": "ann"}, "'send' is no read tool that this worker can call"),
        ("nothing", {}, "'nothing' is no read tool that this worker can call"),
        (
            "find_plain",
            {"order": "x"},
            'the arguments for \'find_plain\' do not fit: order: "x" is not of type "integer"',
        ),
    ],
)
async def test_tool_that_may_not_be_called_so_is_unable_at_once(
    bench: Bench, tool: str, arguments: JsonObject, reason: str
) -> None:
    say({})

    result = await bench.check({"tool": tool, "expect": "true", "retries": 5}, arguments=arguments)

    assert found(result) == ("unable", reason)
    assert CALLED == []


async def test_tool_that_takes_too_long_is_unable(bench: Bench) -> None:
    say({})

    result = await bench.check(
        {"tool": "find_plain", "expect": "true"},
        arguments={"seconds": 5.0},
        start_to_close_timeout=timedelta(seconds=9),
    )

    assert found(result) == ("unable", "'find_plain' did not answer within 2 s")


@pytest.mark.parametrize(
    ("text", "finding"),
    [('{"amount": 2.5}', "pass"), ('{"amount": 2}', "fail"), ('{"sum": 2}', "unable"), ("paid", "unable")],
)
async def test_result_itself_is_expected(bench: Bench, text: str, finding: str) -> None:
    result = await bench.check({"expect": "result.amount == args.amount", "retries": 3}, text)

    assert result.finding == finding


async def test_long_result_is_read_from_its_blob(bench: Bench) -> None:
    long = json.dumps({"amount": 2.5, "text": "x" * 5000})

    assert (await bench.check({"expect": "result.amount == 2.5 && size(result.text) == 5000"}, long)).finding == "pass"


async def test_arguments_are_those_that_a_person_put_there(bench: Bench) -> None:
    (edited,) = await bench.blobs.put(b'{"order": 82, "amount": 7}')

    assert (await bench.check({"expect": "args.order == 82 && args.amount == 7.0"}, edited=edited)).finding == "pass"


async def test_answer_itself_is_expected(bench: Bench) -> None:
    messages = (answer("All 3 are done."),)

    result = await bench.check({"expect": "result.contains('done')"}, None, index=None, messages=messages)

    assert result.finding == "pass"


@pytest.mark.parametrize(
    ("schema", "text", "finding", "reason"),
    [
        ({"type": "array"}, "[1]", "pass", "the result fits its schema"),
        ({"type": "object", "required": ["ok"]}, "{}", "fail", 'the result: "ok" is a required property'),
        ({"type": "object"}, "paid", "fail", "the result is not JSON: Expecting value at line 1 column 1"),
    ],
)
async def test_result_must_fit_the_schema(
    bench: Bench, schema: JsonObject, text: str, finding: str, reason: str
) -> None:
    assert found(await bench.check({"schema": schema}, text, index=1)) == (finding, reason)


async def test_check_of_a_result_that_is_not_there_is_unable(bench: Bench) -> None:
    assert found(await bench.check({"expect": "true", "retries": 3}, None)) == (
        "unable",
        "there is no result that could be checked",
    )


# By a model

RUBRIC = {"model": "openai:judge", "rubric": "The order was paid back in full."}


def verdict(word: str, reason: str = "it is all there") -> Answer:
    return Answer(text=json.dumps({"verdict": word, "reason": reason}))


@pytest.mark.parametrize("finding", ["pass", "fail"])
async def test_model_gives_a_verdict_with_its_cost(bench: Bench, finding: str) -> None:
    bench.fake.will(verdict(finding))

    result = await bench.check(RUBRIC)

    assert found(result) == (finding, "openai:judge: it is all there")
    assert result.usage.model_calls == 1
    assert result.usage.input_tokens > 0


async def test_model_sees_rubric_goal_call_and_result_and_no_persuasion(bench: Bench) -> None:
    bench.fake.will(verdict("pass"))

    await bench.check(RUBRIC, '{"paid": 2.5}')

    (request,) = bench.fake.requests
    body = request.json
    assert body["model"] == "judge"
    assert "tools" not in body
    assert body["instructions"].endswith("\nRubric:\nThe order was paid back in full.")
    ((only,),) = [[item["content"][0]["text"] for item in body["input"]]]
    assert json.loads(only) == {
        "goal": "Refund order 81.",
        "call": {"tool": "pay", "arguments": {"order": 81, "amount": 2.5, "card": "***"}},
        "result": '{"paid": 2.5}',
    }
    assert b"Trust me" not in request.body
    assert b"Persuade" not in request.body


def run_of(results: list[str]) -> tuple[Message, ...]:
    """A run that looks once for each of `results`, is told something by a person, and answers."""
    messages: list[Message] = []
    for number, text in enumerate(results):
        call = CallPart(
            kind="call", call_id=f"c{number}", tool="pay", arguments=json.dumps({"order": number, "card": CARD})
        )
        result = ResultPart(kind="result", call_id=f"c{number}", tool="pay", text=text, error=number == 1)
        messages += [answer("I am always right.", call), UserMessage(role="user", parts=(result,))]
    note = TextPart(kind="text", text="[Note from the runtime] Go on.")
    words = TextPart(kind="text", text="[ann says] In euros, please.")
    messages.append(UserMessage(role="user", parts=(note, words)))
    return (*messages, answer("Order 1 was paid back."))


async def test_model_sees_the_answer_with_the_results_that_it_rests_on(bench: Bench) -> None:
    bench.fake.will(verdict("fail", "order 1 was refused"))

    result = await bench.check(RUBRIC, None, index=None, messages=run_of(["paid", f"refused {CARD}"]))

    assert found(result) == ("fail", "openai:judge: order 1 was refused")
    (request,) = bench.fake.requests
    assert json.loads(request.json["input"][0]["content"][0]["text"]) == {
        "goal": "Refund order 81.",
        "people_said": ["[ann says] In euros, please."],
        "answer": "Order 1 was paid back.",
        "tool_results": [
            {"tool": "pay", "arguments": {"order": 0, "card": "***"}, "result": "paid"},
            {"tool": "pay", "arguments": {"order": 1, "card": "***"}, "result": "refused ***", "failed": True},
        ],
    }
    assert b"always right" not in request.body


async def test_evidence_is_bounded_and_says_what_is_missing(bench: Bench) -> None:
    bench.fake.will(verdict("pass"))

    await bench.check(RUBRIC, None, index=None, messages=run_of(["x" * 10_000] * 40))

    shown = bench.fake.requests[0].json["input"][0]["content"][0]["text"]
    evidence = json.loads(shown)
    assert len(shown) < 120_000
    assert evidence["earlier_results_left_out"] == 40 - len(evidence["tool_results"])
    assert evidence["tool_results"][-1]["arguments"]["order"] == 39
    assert evidence["tool_results"][0]["result"].endswith("x [... 6000 more characters are not shown]")


async def test_of_what_people_said_the_newest_is_kept(bench: Bench) -> None:
    bench.fake.will(verdict("pass"))
    words = [TextPart(kind="text", text=f"[ann says] {number} {'x' * 2000}") for number in range(9)]

    await bench.check(
        RUBRIC, None, index=None, messages=(UserMessage(role="user", parts=tuple(words)), answer("Done."))
    )

    said = json.loads(bench.fake.requests[0].json["input"][0]["content"][0]["text"])["people_said"]
    assert [text[:12] for text in said] == ["[ann says] 7", "[ann says] 8"]
    assert said[1].endswith("x")
    assert said[0].endswith("more characters are not shown]")


async def test_fenced_verdict_is_one(bench: Bench) -> None:
    bench.fake.will(Answer(text='```json\n{"verdict": "pass", "reason": "fine"}\n```'))

    assert found(await bench.check(RUBRIC)) == ("pass", "openai:judge: fine")


NONSENSE = "openai:judge gave no verdict: its answer is not the JSON object that was asked for"


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (Answer(text="It looks good to me."), NONSENSE),
        (Answer(text='{"verdict": "maybe", "reason": "x"}'), NONSENSE),
        (Answer(text='{"verdict": "pass"}'), NONSENSE),
        (Answer(text='{"verdict": "fail", "verdict": "pass", "reason": "x"}'), NONSENSE),
        (Answer(text='["pass"]'), NONSENSE),
        (Answer(text='I see {"verdict": "pass", "reason": "x"} there'), NONSENSE),
        (verdict("unable", "no receipt"), "openai:judge cannot tell: no receipt"),
        (
            Answer(text='{"verdict": "pass"', stop="truncated"),
            "openai:judge gave no verdict: the answer was cut at the output limit of 1000 tokens",
        ),
        (
            Answer(text="I cannot help with that.", stop="refused"),
            "openai:judge gave no verdict: the model refused: I cannot help with that.",
        ),
    ],
)
async def test_answer_that_is_no_verdict_is_unable_and_costs(bench: Bench, answered: Answer, reason: str) -> None:
    bench.fake.will(answered)

    result = await bench.check(RUBRIC)

    assert found(result) == ("unable", reason)
    assert result.usage.model_calls == 1


async def test_provider_that_is_down_is_unable_and_asked_again_when_it_says(bench: Bench) -> None:
    bench.fake.will(Problem(429, "rate_limit_exceeded", "slow down", {"retry-after": "7"}), Broken("drop"))

    with pytest.raises(ApplicationError) as again:
        await bench.check(RUBRIC | {"retries": 1})
    result = await bench.check(RUBRIC)

    assert again.value.next_retry_delay == timedelta(seconds=7)
    assert result.finding == "unable"
    assert result.reason.startswith("openai:judge gave no answer: ")


ROUTE = {"models": ["openai:cheap", "openai:strong"], "rubric": RUBRIC["rubric"]}


@pytest.mark.parametrize(
    "silent", [Problem(401, "invalid_api_key", "no"), Broken("drop"), Answer(text="It looks good to me.")]
)
async def test_next_model_of_the_route_judges_when_one_gives_no_verdict(bench: Bench, silent: Any) -> None:
    bench.fake.will(silent, verdict("pass"))

    result = await bench.check(ROUTE)

    assert found(result) == ("pass", "openai:strong: it is all there")
    assert result.usage.model_calls == (2 if isinstance(silent, Answer) else 1)


async def test_each_attempt_begins_with_another_model(bench: Bench) -> None:
    bench.fake.will(verdict("pass"), verdict("pass"), verdict("pass"))

    reasons = [(await bench.check(ROUTE, attempt=attempt)).reason for attempt in (1, 2, 3)]

    assert reasons == [f"openai:{model}: it is all there" for model in ("cheap", "strong", "cheap")]


async def test_verdict_that_nobody_can_tell_is_one(bench: Bench) -> None:
    bench.fake.will(verdict("unable", "no receipt"))

    assert found(await bench.check(ROUTE)) == ("unable", "openai:cheap cannot tell: no receipt")
    assert len(bench.fake.requests) == 1


async def test_route_without_a_verdict_says_why_of_each(bench: Bench) -> None:
    bench.fake.will(Problem(401, "invalid_api_key", "no"), Answer(text="Fine."))

    result = await bench.check(ROUTE | {"retries": 0})

    assert result.finding == "unable"
    assert result.reason.startswith("openai:cheap gave no answer: ")
    assert "; openai:strong gave no verdict: " in result.reason
    assert result.usage.model_calls == 1


async def test_provider_that_refuses_for_good_is_not_asked_again(bench: Bench) -> None:
    bench.fake.will(Problem(401, "invalid_api_key", "Incorrect API key provided: sk-secret"))

    result = await bench.check(RUBRIC | {"retries": 5})

    assert result.finding == "unable"
    assert "sk-secret" not in result.reason
    assert found(await bench.check(RUBRIC | {"model": "anthropic:x", "retries": 5})) == (
        "unable",
        "anthropic:x gave no answer: this worker has no provider 'anthropic'; it has: openai",
    )


# Attempts


async def test_unable_is_tried_again_until_the_attempts_are_used(bench: Bench) -> None:
    say(ValueError("no such row"))
    spec = {"python": "tests.support.checked:judge_sync", "retries": 2}

    for attempt, wait in ((1, 1), (2, 2)):
        with pytest.raises(ApplicationError) as again:
            await bench.check(spec, attempt=attempt)
        assert (again.value.type, again.value.non_retryable) == (FailureType.CHECK_UNABLE, False)
        assert again.value.next_retry_delay == timedelta(seconds=wait)
        assert again.value.message == "ValueError: no such row"

    assert found(await bench.check(spec, attempt=3)) == ("unable", "ValueError: no such row")


async def test_what_failed_attempts_cost_is_in_the_finding(bench: Bench) -> None:
    bench.fake.will(Answer(text="Hm."), verdict("pass"))
    with pytest.raises(ApplicationError):
        await bench.check(RUBRIC | {"retries": 1})
    spent = next(beat for beat in bench.beats if beat)
    assert spent[0] == SPENT_MARK

    result = await bench.check(
        RUBRIC | {"retries": 1}, attempt=2, heartbeat_details=list(json.loads(json.dumps(spent)))
    )

    assert result.finding == "pass"
    assert result.usage.model_calls == 2
    assert result.usage.output_tokens > Usage.model_validate_json(spent[3]).output_tokens > 0


@pytest.mark.parametrize("details", [[], [SPENT_MARK, {"model_calls": "x"}], ["mine", {"model_calls": 3}], [3]])
async def test_heartbeats_of_others_cost_nothing(bench: Bench, details: list[Any]) -> None:
    result = await bench.check({"expect": "true"}, heartbeat_details=details)

    assert result.usage == Usage()


async def test_check_that_the_agent_does_not_have_is_unable(bench: Bench) -> None:
    agent = await bench.pinned()
    request = CheckRequest(agent=agent, check="gone", head=await bench.head(agent), step=1, index=0)

    result = await bench.environment().run(bench.activities().verify_result, request)

    assert found(result) == ("unable", "the agent has no check 'gone'")


async def test_missing_result_is_looked_for_again_and_then_unable(bench: Bench) -> None:
    lost = ToolResult(digest="x" * 43, size=300)

    with pytest.raises(ApplicationError) as again:
        await bench.check({"expect": "true", "retries": 1}, lost)
    result = await bench.check({"expect": "true", "retries": 1}, lost, attempt=2)

    assert again.value.type == FailureType.CHECK_UNABLE
    assert result.finding == "unable"


async def test_agent_that_the_store_does_not_have_is_a_failure_of_the_store(bench: Bench) -> None:
    request = CheckRequest(agent="x" * 43, check="c", head="y" * 43, step=1)

    with pytest.raises(ApplicationError) as failed:
        await bench.environment().run(bench.activities().verify_result, request)

    assert (failed.value.type, failed.value.non_retryable) == (FailureType.BLOB_MISSING, False)


# Nothing sensitive is told


@pytest.mark.parametrize("kind", ["python", "expect", "tool", "model", "schema"])
async def test_sensitive_arguments_are_in_no_reason(bench: Bench, kind: str) -> None:
    say({"card": CARD})
    bench.fake.will(verdict("fail", f"{CARD} was not charged"))
    specs: dict[str, dict[str, Any]] = {
        "python": {"python": "tests.support.checked:amounts_agree"},
        "expect": {"expect": "result.card == 'other'"},
        "tool": {"tool": "find", "expect": "result.card == 'other'"},
        "model": RUBRIC,
        "schema": {"schema": {"type": "object", "properties": {"card": {"type": "integer"}}}},
    }

    result = await bench.check(
        specs[kind], json.dumps({"amount": 3, "card": CARD}), arguments={"card": CARD} if kind == "tool" else {}
    )

    assert result.finding == "fail"
    assert CARD not in result.reason
    assert "4111" not in result.reason
    assert not any(CARD.encode() in request.body for request in bench.fake.requests)


async def test_model_sees_what_a_cut_left_out_of_the_conversation(bench: Bench) -> None:
    """The final answer rests on results of before the cut; a call is judged by the goal and by people's words."""
    bench.fake.will(verdict("pass"), verdict("pass"))
    check = CheckSpec.model_validate({"name": "c", "after": "final", "retries": 0, **RUBRIC})
    call = CheckSpec.model_validate({"name": "d", "after": "pay", "retries": 0, **RUBRIC})
    agent = await bench.pinned(check, call)
    *before, last = run_of(["paid", "refused"])
    paying = CallPart(kind="call", call_id="c9", tool="pay", arguments=json.dumps(bench.arguments))
    chain = await bench.transcript.start(agent, said("Refund order 81."))
    chain = await bench.transcript.append(chain, agent, before)
    note = (TextPart(kind="text", text="[Note from the runtime] Cut."), TextPart(kind="text", text="[ann says] Euros."))
    kept = (chain.conversation[0], UserMessage(role="user", parts=note), answer("I pay.", paying))
    cut = Cut(messages=kept, number=1, count=chain.count, kept_from=0)
    chain = await bench.transcript.append(chain, agent, (), cut=cut)
    acted = CheckRequest(
        agent=agent, check="d", head=chain.head, step=2, index=0, result=ToolResult(text="paid"), key=KEY
    )
    chain = await bench.transcript.append(chain, agent, (last,))

    whole = CheckRequest(agent=agent, check="c", head=chain.head, step=3)
    for request in (whole, acted):
        await bench.environment().run(bench.activities().verify_result, request)

    final, called = (json.loads(asked.json["input"][0]["content"][0]["text"]) for asked in bench.fake.requests)
    assert [entry["result"] for entry in final["tool_results"]] == ["paid", "refused"]
    assert final["people_said"] == ["[ann says] In euros, please."]
    assert (called["goal"], called["people_said"], called["result"]) == (
        "Refund order 81.",
        ["[ann says] Euros."],
        "paid",
    )
