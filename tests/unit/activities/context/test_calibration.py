"""Estimates of requests, from what a model's answers have reported."""

from dataclasses import replace

import pytest

from mandate.activities.context.calibration import Calibration
from mandate.activities.context.estimate import Tokens
from mandate.workflows.contracts.transcript import Measured, TokenRates

EXACT, FOREIGN = Calibration.of("openai:m"), Calibration.of("vllm:m")

REQUEST = Tokens(fixed=400, text=1_000, parts=10)
EVEN = TokenRates(fixed=1.0, text=1.0, native=0.0, part=4.0)


def measured(model: str = "vllm:m", *, input_tokens: int = 1_440, output_tokens: int = 54) -> Measured:
    return Measured(model=model, input_tokens=input_tokens, output_tokens=output_tokens, messages=1, rates=EVEN)


@pytest.mark.parametrize(
    ("calibration", "tokens", "reported", "expected"),
    [
        # 1,400 of texts, and 4 around each of 10.
        (EXACT, REQUEST, 1_440, TokenRates(fixed=1.0, text=1.0, native=0.0, part=4.0)),
        (FOREIGN, REQUEST, 1_440, TokenRates(fixed=1.0, text=1.0, native=0.0, part=4.0)),
        # 280 beyond 10 around each: 20 % of the texts, or 70 % of the tools where the tokenizer is known.
        (FOREIGN, REQUEST, 1_780, TokenRates(fixed=1.2, text=1.2, native=0.0, part=10.0)),
        (EXACT, REQUEST, 1_780, TokenRates(fixed=1.7, text=1.0, native=0.0, part=10.0)),
        # 200 less than texts and 3 around each: half of the tools.
        (FOREIGN, REQUEST, 1_230, TokenRates(fixed=0.5, text=1.0, native=0.0, part=3.0)),
        # 380 less: tools at 30 %, which are 280, and 10 % of the texts.
        (FOREIGN, REQUEST, 1_050, TokenRates(fixed=0.3, text=0.9, native=0.0, part=3.0)),
        (EXACT, REQUEST, 1_050, TokenRates(fixed=0.3, text=1.0, native=0.0, part=3.0)),
        # 50 beyond 10 around each, of 200 that only the provider understands.
        (FOREIGN, replace(REQUEST, native=200), 1_550, TokenRates(fixed=1.0, text=1.0, native=0.25, part=10.0)),
        (FOREIGN, Tokens(), 5, TokenRates(fixed=1.0, text=1.0, native=0.0, part=3.0)),
        (FOREIGN, REQUEST, 1, TokenRates(fixed=0.3, text=0.15, native=0.0, part=3.0)),
    ],
)
def test_rates_are_those_nearest_to_one_that_explain_a_report(
    calibration: Calibration, tokens: Tokens, reported: int, expected: TokenRates
) -> None:
    assert calibration.learn(tokens, reported) == expected


@pytest.mark.parametrize(
    ("calibration", "tokens", "expected"),
    [
        # 1 % of 1,400 and 10 around each.
        (EXACT, REQUEST, 1_514),
        # 60 % of 1,400 and 10 around each, and 35 for 100 bytes beyond one a character.
        (FOREIGN, replace(REQUEST, extra_bytes=100), 2_375),
        # At most 6 % above 1,440.
        (replace(EXACT, rates=EVEN), REQUEST, 1_514),
        (replace(FOREIGN, rates=EVEN), REQUEST, 1_527),
    ],
)
def test_a_whole_request_is_estimated_by_what_is_known(calibration: Calibration, tokens: Tokens, expected: int) -> None:
    assert calibration.estimate(tokens) == expected


@pytest.mark.parametrize(
    ("last", "answer", "new", "expected"),
    [
        # 1,440 and 54 as reported; of 100 new, 25 % of doubt and 10 around: 1,440 + 72.5 + 135.
        (measured(), Tokens(text=50, parts=1), Tokens(text=100, parts=1), 1_648),
        # The same with 2,000 new: at most 6 % above 1,440 + 54 + 2,004.
        (measured(), Tokens(text=50, parts=1), Tokens(text=2_000, parts=1), 3_708),
        # An answer of which most is not told again counts with 5 % more than its text: 1.06 * (1,440 + 56.7 + 104).
        (measured(output_tokens=900), Tokens(text=50, parts=1), Tokens(text=100, parts=1), 1_697),
        # A report that is less than 15 % of the texts and of what is about around them is none: 0.15 * 1,450.
        (measured(input_tokens=1), Tokens(), Tokens(), 231),
    ],
)
def test_a_request_goes_on_from_the_report_before_it(
    last: Measured, answer: Tokens, new: Tokens, expected: int
) -> None:
    assert Calibration.of("vllm:m", last).estimate_next(last, REQUEST, answer=answer, new=new) == expected


def test_reasoning_counts_again_where_it_is_sent_again() -> None:
    last = measured(output_tokens=554).model_copy(update={"reasoning_tokens": 500})
    calibration = Calibration.of("vllm:m", last)
    answer = Tokens(text=50, parts=1)

    without = calibration.estimate_next(last, REQUEST, answer=answer, new=Tokens())
    with_it = calibration.estimate_next(last, REQUEST, answer=replace(answer, native=700), new=Tokens())

    assert (without, with_it) == (1_584, 2_114)  # 6 % above 1,494 and 1,994


def test_rates_of_another_model_say_nothing() -> None:
    assert Calibration.of("vllm:m", measured("anthropic:m")) == FOREIGN
    assert Calibration.of("vllm:m", measured()).rates == EVEN
