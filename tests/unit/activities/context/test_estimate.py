"""Tokens of texts, beside what the tokenizer's own package counts and what other tokenizers count."""

import random
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.context import tokenizer
from mandate.activities.context.calibration import Calibration
from mandate.activities.context.estimate import LONG_TEXT, Tokens, measure_text
from tests.support.texts import COMMON, OTHER

KINDS = {**COMMON, **OTHER}

SIZES = (40, 400, 4_000, 20_000)


def get_tokenizer(encoding: str) -> Callable[[str], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from bpe_openai import get_encoding  # noqa: PLC0415 - a third of a second

        found = get_encoding(encoding)
    return lambda text: len(found.encode(text, disallowed_special=()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_tokens_that_the_package_counts(kind: str) -> None:
    source, tokenize = random.Random(kind), get_tokenizer(tokenizer.ENCODING)
    texts = [KINDS[kind](source, size) for size in SIZES]

    assert [measure_text(text).text for text in texts] == list(map(tokenize, texts))


@pytest.mark.parametrize("encoding", ["cl100k_base", "voyage3_base"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "digits"])
def test_before_the_first_answer_no_estimate_is_below_what_another_tokenizer_counts(kind: str, encoding: str) -> None:
    """But for texts of digits alone: some tokenizers count each."""
    source, tokenize = random.Random(kind), get_tokenizer(encoding)
    estimates = Calibration.of("anthropic:m")

    texts = [KINDS[kind](source, size) for size in SIZES]

    assert [len(text) for text in texts if estimates.estimate(measure_text(text)) < tokenize(text)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Tokens(parts=1)),
        ("Hello there.", Tokens(text=3, parts=1)),
        ("<|endoftext|>", Tokens(text=7, parts=1)),
        ("Grüße", Tokens(text=3, parts=1, extra_bytes=2)),
        ("half \ud800 of a pair", Tokens(text=5, parts=1)),
        ("a" * (LONG_TEXT + 1), Tokens(text=LONG_TEXT + 1, parts=1)),
        ("ä" * (LONG_TEXT + 1), Tokens(text=2 * LONG_TEXT + 2, parts=1, extra_bytes=LONG_TEXT + 1)),
    ],
    ids=["nothing", "words", "special token", "umlauts", "half a pair", "long", "long umlauts"],
)
def test_tokens_of_a_text(text: str, expected: Tokens) -> None:
    assert measure_text(text) == expected


@given(st.text(max_size=300))
def test_any_text_has_no_more_tokens_than_bytes(text: str) -> None:
    found = measure_text(text)

    assert found.text <= len(text.encode(errors="replace")) == len(text) + found.extra_bytes


def test_models_of_one_vendor_and_scripts_count_by_this_encoding() -> None:
    assert tokenizer.fits("openai:gpt-6-sol")
    assert tokenizer.fits("scripted:shop.script.yaml")
    assert not tokenizer.fits("anthropic:claude-sonnet-5-5")
    assert not tokenizer.fits("azure:gpt-6-sol")
