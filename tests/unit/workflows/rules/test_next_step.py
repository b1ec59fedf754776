"""Keys, accounts, routes, words, and what follows an answer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.model import Finish, ModelReply, Usage
from mandate.workflows.contracts.run import EffectEntry, EffectLog
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.rules import effects, next_step, wording

HEAD = digest_of(b"head")
CALL = digest_of(b"call")


def entry(step: int) -> EffectEntry:
    return EffectEntry(step=step, tool="pay", call=f"pay order={step}", key=digest_of(str(step).encode()))


def test_idempotency_key_names_one_intention() -> None:
    key = effects.compute_key("run", CALL, 0)

    assert key == effects.compute_key("run", CALL, 0)
    others = {effects.compute_key("run", CALL, 1), effects.compute_key("other", CALL, 0)}
    assert len({key, *others, effects.compute_key("run", HEAD, 0)}) == 4
    assert len(key) == 43


@given(st.integers(0, 200))
def test_effect_log_counts_all_and_keeps_the_last_fifty(count: int) -> None:
    log = EffectLog()
    for step in range(count):
        log = effects.add_effect(log, entry(step))

    assert log.count == count
    assert [kept.step for kept in log.last] == list(range(max(0, count - 50), count))


def test_digest_of_the_effect_log_covers_every_entry() -> None:
    first = effects.add_effect(effects.add_effect(EffectLog(), entry(1)), entry(2))
    other = effects.add_effect(effects.add_effect(EffectLog(), entry(3)), entry(2))

    assert first.digest != other.digest


def reply(finish: Finish = Finish.COMPLETE, *, calls: int = 0, problem: str | None = None) -> ModelReply:
    return ModelReply(head=HEAD, calls=(CallRequest(tool="t"),) * calls, finish=finish, problem=problem)


@pytest.mark.parametrize(
    ("answer", "misfits", "move"),
    [
        (reply(), 0, next_step.Done()),
        (reply(calls=2), 2, next_step.Act()),
        (reply(Finish.TRUNCATED, calls=1), 0, next_step.Act()),
        (reply(Finish.REFUSED, problem="no"), 0, next_step.GiveUp("the model refused: no")),
        (reply(Finish.REFUSED), 0, next_step.GiveUp("the model refused: it gave no reason")),
        (reply(Finish.PAUSED), 0, next_step.AskAgain(note=None, counts=True)),
        (reply(Finish.PAUSED), 10, next_step.GiveUp("the model paused too often")),
        (reply(Finish.MISFIT, problem="a: 1 is not a text"), 2,
         next_step.GiveUp("3 answers in a row could not be taken; the last: a: 1 is not a text")),
    ],
)  # fmt: skip
def test_what_follows_an_answer(answer: ModelReply, misfits: int, move: next_step.Next) -> None:
    assert next_step.choose_next(answer, misfits, attempts=3) == move


@pytest.mark.parametrize("finish", [Finish.TRUNCATED, Finish.EMPTY, Finish.MISFIT])
def test_an_answer_that_cannot_be_taken_is_asked_for_again_at_most_attempts_times(finish: Finish) -> None:
    moves = [next_step.choose_next(reply(finish, problem="p"), misfits, attempts=3) for misfits in range(3)]

    assert [type(move) for move in moves] == [next_step.AskAgain, next_step.AskAgain, next_step.GiveUp]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"order": 81}, "pay order=81"),
        ({"card": "4242", "order": 81}, "pay card=*** order=81"),
        ({"note": "two\nlines"}, "pay note=two lines"),
        ({"body": {"digest": HEAD, "size": 5000, "preview": "Dear Ann"}}, "pay body=Dear Ann (5000 bytes)"),
        ({"items": [1, 2], "ok": True, "x": None}, "pay items=[1, 2] ok=true x=null"),
    ],
)
def test_call_in_words_hides_sensitive_arguments(arguments: dict[str, object], line: str) -> None:
    assert wording.describe_call("pay", arguments, sensitive=("card",)) == line


@given(st.dictionaries(st.text(max_size=30), st.one_of(st.text(), st.integers(), st.lists(st.text())), max_size=30))
def test_call_in_words_is_one_short_line(arguments: dict[str, object]) -> None:
    line = wording.describe_call("t", arguments)

    assert len(line) <= 100
    assert "\n" not in line


def test_unknown_price_is_said() -> None:
    known = Usage(model_calls=1, cost_usd=Decimal("0.5"))
    unknown = Usage(model_calls=1, unpriced_calls=1)

    assert wording.describe_cost(known) == "$0.5000"
    assert wording.describe_cost(unknown) == "price unknown"
    assert wording.describe_cost(known + unknown) == "$0.5000 and 1 call of unknown price"


def test_result_in_words() -> None:
    assert wording.describe_result(ToolResult(text="paid")) == "paid"
    assert wording.describe_result(ToolResult(text="no such order", error=True)) == "error: no such order"
    assert wording.describe_result(ToolResult(digest=HEAD, size=900, preview="Order 81")) == "Order 81 (900 bytes)"
