"""Summaries: only what their sources bear out stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.context import summary
from mandate.activities.context.summary import Source
from mandate.workflows.contracts.base import digest_of

FIRST = Source(digest_of(b"1"), "Order AX-48213-Q has the sum 1,274.35 EUR; the customer is ann@example.com.")
SECOND = Source(digest_of(b"2"), "The rule is never to refund more than 120 EUR. The tool find_refund failed.")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("- Order AX-48213-Q has 1274.35 EUR. [1]", "Order AX-48213-Q has 1274.35 EUR."),
        ("Order AX-48213-Q has 1,274.35 EUR [1].", "Order AX-48213-Q has 1,274.35 EUR"),
        ("* At most 120 EUR, of order AX-48213-Q [1, 2]", "At most 120 EUR, of order AX-48213-Q"),
        ("find_refund failed [2]", "find_refund failed"),
        ("The customer was friendly. [1]", "The customer was friendly."),
        ("Order AX-48213-Q is settled", "Order AX-48213-Q is settled"),
        ("Order AX-48213-Q has 1274.53 EUR. [1]", None),
        ("Order AX-4821 has a sum. [1]", None),
        ("At most 120 EUR. [1]", None),
        ("At most 20 EUR. [2]", None),
        ("It was refunded by pay_refund. [2]", None),
        ("bob@example.com is the customer. [1]", None),
        ("Order AX-48213-Q is settled. [7]", None),
        ("The customer was friendly.", None),
        ("", None),
    ],
)
def test_a_line_stays_if_its_sources_have_its_numbers_and_identifiers(line: str, kept: str | None) -> None:
    lines = summary.check_lines(line, (FIRST, SECOND))

    assert [checked.text for checked in lines] == ([] if kept is None else [kept])


def test_a_line_names_the_sources_that_it_is_made_from() -> None:
    lines = summary.check_lines("At most 120 EUR for AX-48213-Q. [2, 1]\nAX-48213-Q is late", (FIRST, SECOND))

    assert [checked.sources for checked in lines] == [(SECOND.digest, FIRST.digest), (FIRST.digest,)]


def test_a_summary_is_bounded() -> None:
    text = "\n".join(f"{'word ' * 60}{number} [1]" for number in range(300))
    source = Source(digest_of(b"3"), " ".join(map(str, range(300))))

    lines = summary.check_lines(text, (source,))

    assert len(lines) <= summary.MOST_LINES
    assert sum(len(line.text) for line in lines) <= summary.ALL_CHARACTERS


words = st.text("abcdefgh", min_size=1, max_size=6)
numbers = st.integers(0, 10**6).map(str)


@given(st.lists(words | numbers, min_size=1, max_size=12), st.lists(st.lists(words | numbers, max_size=30), min_size=1))
def test_no_number_stays_that_no_named_source_has(line: list[str], texts: list[list[str]]) -> None:
    sources = [Source(digest_of(str(place).encode()), " ".join(text)) for place, text in enumerate(texts)]

    kept = summary.check_lines(f"{' '.join(line)} [1]", sources)

    invented = [word for word in line if word.isdigit() and word not in texts[0]]
    assert bool(kept) is not bool(invented)
