"""The scripted provider: turns, failures on purpose, usage, and what another process makes of them."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.prices import pin_price
from mandate.activities.providers.scripted.provider import ScriptedProvider
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Finish, Usage
from mandate.workflows.contracts.route import PriceSpec
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, RefusalPart, TextPart
from tests.support.script_play import Play, PlayScript, arguments, asked, player

STORY = """
turns:
  - expect: {user: "*order 81*"}
    say: Let me look the order up.
    call:
      - lookup_order: {order: 81}
      - check_stock: {sku: M-1}
  - expect: {results: {lookup_order: {status: paid}}}
    take: {amount: lookup_order.total, sku: lookup_order.lines.0.sku}
    call:
      - issue_refund: {order: 81, amount: "${amount}", note: "for ${sku}: ${amount}"}
  - say: Refunded ${amount}.
"""
ORDER = {"status": "paid", "total": 129.5, "lines": [{"sku": "M-1"}]}


@pytest.fixture
def play(tmp_path: Path) -> PlayScript:
    return player(tmp_path)


async def test_story_is_played_to_its_end(play: PlayScript) -> None:
    story = play(STORY, "Refund order 81, please")

    first = await story.turn()
    story.answer(ORDER, {"left": 3})
    second = await story.turn()
    story.answer("refunded")
    third = await story.turn()

    assert first.message == AssistantMessage(
        role="assistant",
        protocol="scripted",
        model="play.yaml",
        parts=(
            TextPart(kind="text", text="Let me look the order up."),
            CallPart(kind="call", call_id="call_1_1", tool="lookup_order", arguments='{"order": 81}'),
            CallPart(kind="call", call_id="call_1_2", tool="check_stock", arguments='{"sku": "M-1"}'),
        ),
    )
    assert first.finish is Finish.COMPLETE
    assert arguments(second) == [{"order": 81, "amount": 129.5, "note": "for M-1: 129.5"}]
    assert third.message.text == "Refunded 129.5."


async def test_another_process_goes_on_with_the_conversation(play: PlayScript) -> None:
    story = play(STORY, "order 81")
    await story.turn()
    story.answer(ORDER, {"left": 3})
    await story.turn()
    story.answer("refunded")
    messages = [story.conversation[index] for index in range(len(story.conversation))]
    elsewhere = Play(story.folder)
    elsewhere.conversation = Conversation(messages)

    assert (await elsewhere.turn()).message.text == "Refunded 129.5."
    assert await elsewhere.provider.complete(story.prompt()) == await story.turn()


@pytest.mark.parametrize(
    ("failure", "kind", "fault", "delay"),
    [
        ("{status: 429, retry_after: 7}", FailureType.MODEL_UNAVAILABLE, "rate_limit", 7),
        ("{status: 500}", FailureType.MODEL_UNAVAILABLE, "server", 2),
        ("{status: 529}", FailureType.MODEL_UNAVAILABLE, "overloaded", 2),
        ("{status: 400}", FailureType.MODEL_REJECTED, "bad_request", None),
        ("{status: 401}", FailureType.MODEL_REJECTED, "configuration", None),
        ("{cut: true}", FailureType.MODEL_UNAVAILABLE, "connection", 2),
        ("{fault: context_length}", FailureType.CONTEXT_TOO_LONG, "context_length", None),
        ("{fault: quota}", FailureType.MODEL_REJECTED, "quota", None),
    ],
)
async def test_attempt_fails_on_purpose_and_a_later_one_answers(
    play: PlayScript, failure: str, kind: FailureType, fault: str, delay: float | None
) -> None:
    story = play(f"turns:\n  - fail: [{{slow: 1ms}}, {failure}]\n    say: there\n")

    assert (await story.provider.complete(story.prompt(1))).message.text == "there"
    with pytest.raises(ApplicationError) as caught:
        await story.turn(attempt=2)
    assert (await story.turn(attempt=3)).message.text == "there"

    assert caught.value.type == kind
    assert caught.value.details[0]["fault"] == fault
    assert caught.value.next_retry_delay == (None if delay is None else timedelta(seconds=delay))


async def test_slow_answer_is_timed_out(play: PlayScript) -> None:
    story = play("turns:\n  - fail: [{slow: 1h}]\n    say: there\n")

    with pytest.raises(ApplicationError, match=r"play.yaml: no answer within 0.012 s$") as caught:
        await story.turn(timeout=0.01234)

    assert caught.value.type == FailureType.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("turn", "finish", "parts", "problem"),
    [
        (
            "finish: truncated\n    say: He said",
            Finish.TRUNCATED,
            (TextPart(kind="text", text="He said"),),
            "the answer was cut at the output limit",
        ),
        (
            "finish: refused\n    say: Never.",
            Finish.REFUSED,
            (RefusalPart(kind="refusal", text="Never."),),
            "the model refused to answer",
        ),
        ("finish: empty", Finish.EMPTY, (), "the model answered with nothing"),
        ("finish: paused", Finish.PAUSED, (), None),
    ],
)
async def test_answer_ends_as_the_script_says(
    play: PlayScript, turn: str, finish: Finish, parts: tuple[object, ...], problem: str | None
) -> None:
    completion = await play(f"turns:\n  - {turn}\n").turn()

    assert (completion.finish, completion.message.parts, completion.problem) == (finish, parts, problem)


async def test_usage_is_as_the_script_says(play: PlayScript) -> None:
    script = """
    usage: {cost_usd: unknown, input_tokens: 7, output_tokens: 3}
    turns:
      - say: a
      - {say: b, usage: {input_tokens: 100, cached_input_tokens: 90, output_tokens: 20, cost_usd: "0.015"}}
    """
    story = play(script)

    assert (await story.turn()).usage == Usage(model_calls=1, input_tokens=7, output_tokens=3, unpriced_calls=1)
    assert (await story.turn()).usage == Usage(
        model_calls=1, input_tokens=100, cached_input_tokens=90, output_tokens=20, cost_usd=Decimal("0.015")
    )


async def test_usage_that_nobody_gave_is_estimated_at_no_cost(play: PlayScript) -> None:
    completion = await play("turns:\n  - say: '12345678'\n", "1234567").turn()

    # 8 characters of instructions and 7 of input are 15 // 4 + 1.
    assert completion.usage == Usage(model_calls=1, input_tokens=4, output_tokens=3)


async def test_count_goes_on_after_answers_of_another_model(play: PlayScript) -> None:
    story = play("turns: [{say: a}, {say: b}, {say: c}]")
    other = AssistantMessage(
        role="assistant", parts=(TextPart(kind="text", text="hm"),), protocol="openai.chat", model="m"
    )
    story.conversation = story.conversation.extend(other, asked("go on"), other, asked("go on"))

    assert (await story.turn()).message.text == "c"


async def test_pace_is_for_turns_without_a_delay_of_their_own(play: PlayScript) -> None:
    story = play("turns: [{say: a}, {say: b, delay: 1ms}]")
    story.provider = ScriptedProvider([story.folder], pace=timedelta(hours=1))

    with pytest.raises(ApplicationError, match="no answer within"):
        await story.turn(timeout=0.01234)
    story.conversation = story.conversation.extend(
        AssistantMessage(role="assistant", parts=(), protocol="scripted", model="play.yaml"), asked("go on")
    )
    assert (await story.turn()).message.text == "b"


@pytest.mark.parametrize(
    ("given", "cost", "unpriced"),
    [
        (
            "{input_tokens: 100, cached_input_tokens: 90, output_tokens: 20}",
            "0.000095",
            0,
        ),  # 10 * 1 + 90 * 0.5 + 20 * 2
        ("{input_tokens: 100, output_tokens: 20, cost_usd: '0.015'}", "0.015", 0),
        ("{input_tokens: 100, output_tokens: 20, cost_usd: unknown}", "0", 1),
    ],
)
async def test_cost_that_nobody_gave_is_by_the_pinned_price(
    play: PlayScript, given: str, cost: str, unpriced: int
) -> None:
    story = play(f"turns: [{{say: a, usage: {given}}}]\n")
    price = pin_price(
        "scripted:play.yaml", PriceSpec.model_validate({"input": "1", "output": "2", "cached_input": "0.5"})
    )

    usage = (await story.provider.complete(replace(story.prompt(), price=price))).usage

    assert (usage.cost_usd, usage.unpriced_calls) == (Decimal(cost), unpriced)
