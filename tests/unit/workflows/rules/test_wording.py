"""Results and usage in words."""

from decimal import Decimal

import pytest

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import CacheHit, ToolResult
from mandate.workflows.rules.wording import describe_age, describe_hit, describe_result, describe_usage


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86400, "24 h")],
)
def test_age_is_in_the_largest_unit_of_which_there_is_a_whole_one(seconds: int, age: str) -> None:
    assert describe_age(seconds) == age


HIT = CacheHit(run="refunds-7f3a", run_id="0199", step=4, seconds=200)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (ToolResult(text="found"), "found"),
        (ToolResult(text="found", cached=HIT), "found (cached, 3 min old)"),
        (
            ToolResult(digest="d" * 43, size=300, preview="xx", cached=HIT),
            "xx (300 bytes) (cached, 3 min old)",
        ),
    ],
)
def test_kept_result_is_told_with_its_age(result: ToolResult, words: str) -> None:
    assert describe_result(result) == words


def test_kept_result_is_told_with_the_call_that_it_is_of() -> None:
    assert describe_hit(HIT) == "cached, 3 min old, of refunds-7f3a step 4"


@pytest.mark.parametrize(
    ("count", "words"), [(0, ""), (1, ", 1 result from the cache"), (12, ", 12 results from the cache")]
)
def test_usage_tells_how_many_results_were_kept_ones(count: int, words: str) -> None:
    used = Usage(model_calls=2, input_tokens=3400, output_tokens=560, cost_usd=Decimal("0.0123"), cached_results=count)

    assert describe_usage(used) == f"2 model calls, 3,400 tokens in, 560 out, $0.0123{words}"


@pytest.mark.parametrize(
    ("lost", "words"),
    [(0, ""), (1, ", 1 lost answer counted as reserved"), (3, ", 3 lost answers counted as reserved")],
)
def test_usage_tells_lost_answers(lost: int, words: str) -> None:
    used = Usage(model_calls=2, input_tokens=3400, output_tokens=560, cost_usd=Decimal("0.0123"), assumed_calls=lost)

    assert describe_usage(used) == f"2 model calls, 3,400 tokens in, 560 out, $0.0123{words}"
