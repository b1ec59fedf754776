"""The loop on a real server: what reaches the tools, in which order, and what the model is told."""

import itertools
from pathlib import Path

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.toolkit import calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


async def test_reads_of_one_turn_run_side_by_side(site: Site) -> None:
    site.write("reads", [{"call": [{"look": {"what": str(n), "seconds": 0.5}} for n in range(5)]}, {"say": "done"}])

    result, run = await site.run("reads")

    looks = calls_of(run, "look")
    assert result.status is RunStatus.COMPLETED
    assert len(looks) == 5
    assert max(call.began for call in looks) < min(call.ended or 0 for call in looks)


async def test_effects_keep_the_models_order_and_reads_do_not_wait_for_them(site: Site) -> None:
    calls = [{"pay": {"order": n, "seconds": 0.2}} for n in range(3)]
    site.write("effects", [{"call": [*calls, {"look": {"what": "me"}}]}, {"say": "done"}])

    result, run = await site.run("effects")

    pays = calls_of(run, "pay")
    assert [call.arguments["order"] for call in pays] == [0, 1, 2]
    assert all(one.ended is not None and one.ended <= after.began for one, after in itertools.pairwise(pays))
    assert calls_of(run, "look")[0].began < (pays[-1].ended or 0)
    assert result.effects.count == 3
    assert [entry.call for entry in result.effects.last] == [f"pay order={n} seconds=0.2" for n in range(3)]


async def test_one_failure_does_not_cancel_its_siblings_and_is_told_to_the_model(site: Site) -> None:
    calls = [{"look_bad": {}}, {"look": {"what": "on", "seconds": 0.3}}, {"pay": {"order": 7}}]
    site.write("siblings", [{"call": calls}, {"say": "done"}])

    result, run = await site.run("siblings")

    told = await results_told(site, result.head or "")
    assert result.status is RunStatus.COMPLETED
    assert [part.error for part in told] == [True, False, False]
    assert told[0].text == "ValueError: the shelf is empty"
    assert len(calls_of(run, "look_bad")) == 3  # the first attempt and 2 retries


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"nothing": {}}, "not called: there is no tool 'nothing'"),
        ({"pay": '{"order": 1'}, "not called: the arguments are not valid JSON"),
        ({"pay": '{"order": NaN}'}, "NaN"),
        ({"pay": '{"order": 1e999}'}, "numbers beyond"),
        ({"pay": '{"order": 1, "order": 2}'}, "given twice"),
        ({"pay": '{"order": 9223372036854775808}'}, "beyond 64 bits"),
        ({"pay": '{"order": "one"}'}, "order"),
        ({"pay": "{}"}, "order"),
        ({"pay": '{"order": 1, "colour": "red"}'}, "colour"),
        ({"pay": "[1]"}, "must be a JSON object"),
    ],
)
async def test_calls_that_do_not_fit_reach_no_tool(site: Site, call: dict[str, object], told: str) -> None:
    site.write("misfit", [{"call": [call]}, {"say": "done"}])

    result, run = await site.run("misfit")

    assert result.status is RunStatus.COMPLETED
    assert calls_of(run) == []
    answer = (await results_told(site, result.head or ""))[0]
    assert answer.error
    assert told in answer.text


async def test_denied_call_never_reaches_the_tool_and_the_model_is_told_the_rule(site: Site) -> None:
    policy = [
        {"id": "no-letters", "match": {"tools": ["send"]}, "verdict": "deny"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    site.write("denied", [{"call": [{"send": {"to": "Ann"}}]}, {"say": "done"}], policy=policy)

    result, run = await site.run("denied")

    assert calls_of(run) == []
    assert (await results_told(site, result.head or ""))[0].text == "refused: rule 'no-letters' denies 'send'"
    assert result.effects.count == 0


async def test_without_rules_and_people_only_reads_run(site: Site) -> None:
    turns = [{"call": [{"look": {"what": "a"}}, {"pay": {"order": 1}}]}, {"say": "done"}]
    site.write("unruled", turns, policy=[], people={"expires": "1s"})

    result, run = await site.run("unruled")

    assert [call.tool for call in calls_of(run)] == ["look"]
    told = await results_told(site, result.head or "")
    assert told[1].text.startswith("refused: nobody decided before ")


async def test_keyed_call_is_retried_with_the_same_key(site: Site) -> None:
    site.write("keyed", [{"call": [{"pay": {"order": 1, "fail_first": 2}}]}, {"say": "done"}])

    result, run = await site.run("keyed")

    pays = calls_of(run, "pay")
    assert result.status is RunStatus.COMPLETED
    assert [call.attempt for call in pays] == [1, 2, 3]
    assert {call.key for call in pays} == {result.effects.last[0].key}


async def test_two_intended_identical_calls_have_two_keys(site: Site) -> None:
    same = {"pay": {"order": 1}}
    site.write("twice", [{"call": [same, same]}, {"call": [same]}, {"say": "done"}])

    result, run = await site.run("twice")

    assert result.effects.count == 3
    assert len({call.key for call in calls_of(run, "pay")}) == 3


async def test_unknown_outcome_of_a_once_call_ends_the_run_declined(site: Site) -> None:
    calls = [{"send": {"to": "Ann", "lose_reply": True}}, {"pay": {"order": 1}}]
    site.write("unknown", [{"call": calls}, {"say": "done"}])

    result, run = await site.run("unknown")

    assert result.status is RunStatus.DECLINED
    assert [call.tool for call in calls_of(run)] == ["send"]
    assert [entry.call for entry in result.uncertain] == ["send to=Ann lose_reply=true"]
    assert result.reason == (
        "it is unknown whether this happened: send to=Ann lose_reply=true (ConnectionError: the line broke)"
    )
    assert result.effects.count == 0


async def test_not_done_is_a_plain_answer_to_the_model(site: Site) -> None:
    site.write("notdone", [{"call": [{"send": {"to": "X", "refuse": True}}]}, {"say": "done"}])

    result, run = await site.run("notdone")

    assert result.status is RunStatus.COMPLETED
    assert result.uncertain == ()
    assert result.effects.count == 0
    assert (await results_told(site, result.head or ""))[0].text == "there is no such address"
    assert len(calls_of(run)) == 1


async def test_a_tool_that_hangs_is_cut_off_at_its_timeout(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:hang", "effect": "read"}]
    site.write("hangs", [{"call": [{"hang": {}}]}, {"say": "done"}], tools=tools)

    result, run = await site.run("hangs")

    assert result.status is RunStatus.COMPLETED
    assert len(calls_of(run, "hang")) == 2
    told = (await results_told(site, result.head or ""))[0]
    assert (told.error, told.text) == (True, "the call took longer than its timeout")


async def test_long_results_are_shown_up_to_the_limit_and_read_on(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:big", "result_limit": 1000}]
    turns = [
        {"call": [{"big": {"size": 3000}}]},
        {"call": [{"read_result": {"result": "nonsense", "start": 0}}]},
        {"say": "done"},
    ]
    site.write("long", turns, tools=tools)

    result, _ = await site.run("long")

    first, second = await results_told(site, result.head or "")
    shown, note = first.text.rsplit("\n", 1)
    assert len(shown) == 1000
    assert note == f'[1000 of 3000 bytes shown; go on with read_result(result="{first.digest[:10]}", start=1000)]'
    assert second.error
    assert second.text == f"no stored result is called 'nonsense'; the latest are: {first.digest[:10]}"


async def test_the_rest_of_a_long_result_can_be_read(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:big", "result_limit": 1000}]
    site.write("rest", [{"call": [{"big": {"size": 3000}}]}, {"say": "done"}], tools=tools)
    first = (await results_told(site, (await site.run("rest"))[0].head or ""))[0]
    turns = [
        {"call": [{"big": {"size": 3000}}]},
        {"call": [{"read_result": {"result": first.digest[:10], "start": 2500}}]},
        {"say": "done"},
    ]
    site.write("rest", turns, tools=tools)

    result, _ = await site.run("rest")

    told = await results_told(site, result.head or "")
    assert told[1].text == "".join(f"{number:09d}\n" for number in range(250, 300))


async def test_limit_of_steps_ends_the_run_exhausted(site: Site) -> None:
    site.write("endless", [{"repeat": 100, "call": [{"look": {"what": "x"}}]}], budget={"steps": 5})

    result, run = await site.run("endless")
    lower, _ = await site.run("endless", steps=2)

    assert (result.status, result.reason) == (RunStatus.EXHAUSTED, "the limit of 5 steps is used up")
    # The last step is the answer.
    assert (len(calls_of(run)), result.output) == (4, "This is all that I have.")
    assert lower.reason == "the limit of 2 steps is used up"


OUTPUT = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


async def test_final_answer_is_held_against_the_output_schema(site: Site) -> None:
    turns = [{"say": "It is 5."}, {"say": '{"total": "5"}'}, {"say": '```json\n{"total": 5}\n```'}]
    site.write("fits", turns, output_schema=OUTPUT)

    result, _ = await site.run("fits")

    assert (result.status, result.output) == (RunStatus.COMPLETED, {"total": 5})


async def test_an_answer_that_never_fits_is_declined_after_its_attempts(site: Site) -> None:
    site.write("never", [{"repeat": 10, "say": "It is 5."}], output_schema=OUTPUT, attempts=2)

    result, _ = await site.run("never")

    assert result.status is RunStatus.DECLINED
    assert result.usage.model_calls == 2
    last = "the answer is not valid JSON: Expecting value at line 1 column 1"
    assert (result.reason or "").startswith(f"2 answers in a row could not be taken; the last: {last}; nobody decided")


async def test_an_answer_over_16_kib_is_in_the_store(site: Site) -> None:
    site.write("wordy", [{"say": "word " * 10_000}])

    result, _ = await site.run("wordy")

    assert result.output_digest is not None
    assert result.output == ("word " * 200)
    assert len(result.model_dump_json()) < 32 * 1024


@pytest.mark.parametrize(("finish", "reason"), [
    ("refused", "the model refused: "),
    ("empty", "3 answers in a row could not be taken; the last: "),
    ("truncated", "3 answers in a row could not be taken; the last: "),
])  # fmt: skip
async def test_answers_that_cannot_be_taken_are_bounded(site: Site, finish: str, reason: str) -> None:
    site.write("odd", [{"repeat": 10, "say": "hm" if finish == "truncated" else "", "finish": finish}])

    result, _ = await site.run("odd")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith(reason)


async def test_large_arguments_reach_the_tool_whole_and_the_workflow_as_a_reference(site: Site) -> None:
    text = "All work and no play. " * 500
    site.write("essay", [{"call": [{"write_note": {"text": text}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("essay")
        result = await handle.result()
        history = (await handle.fetch_history()).to_json()

    assert calls_of(handle.id)[0].arguments["text"] == text
    assert result.effects.last[0].call == "write_note text=All work and no play. All wor… (11000 bytes)"
    assert "no play. All work and no play. All work" not in history


async def test_sensitive_arguments_are_shown_nowhere(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:send", "sensitive": ["card"]}]
    site.write("secret", [{"call": [{"send": {"to": "Ann", "card": "4242-4242"}}]}, {"say": "done"}], tools=tools)

    async with site.serving():
        handle = await site.start("secret")
        result = await handle.result()
        events = [event async for event in handle.fetch_history_events()]

    summaries = [event.user_metadata.summary.data.decode() for event in events if event.HasField("user_metadata")]
    assert '"send to=Ann card=***"' in summaries
    assert not any("4242" in summary for summary in summaries)
    assert result.effects.last[0].call == "send to=Ann card=***"
