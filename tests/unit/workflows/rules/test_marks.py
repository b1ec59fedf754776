"""Marks: what a key signs is known again, and nothing else is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.keyring import Keyring, KeysOutdated
from mandate.activities.stores.base import Key
from mandate.workflows.contracts.marks import MarkKind
from mandate.workflows.rules.marks import compute_mark, read_key_number
from tests.support.memory_store import MemoryStore

SECRET = bytes(32)
PLACE = ("default", "run-1", "0199", "run_tool", "3")
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_mark_is_eighteen_bytes_that_begin_with_its_key() -> None:
    mark = compute_mark(513, SECRET, "input", PLACE, b"{}")

    assert len(mark) == 18
    assert read_key_number(mark) == 513
    # Marks of running runs must be known again by later versions.
    assert mark.hex() == "0201e23c6a2b0ca69cc2de06480582e38d45"


@pytest.mark.parametrize(
    ("number", "secret", "kind", "place", "content"),
    [
        (2, SECRET, "input", PLACE, b"{}"),
        (1, b"1" * 32, "input", PLACE, b"{}"),
        (1, SECRET, "output", PLACE, b"{}"),
        (1, SECRET, "input", (*PLACE[:1], "run-2", *PLACE[2:]), b"{}"),
        (1, SECRET, "input", (*PLACE[:2], "0200", *PLACE[3:]), b"{}"),
        (1, SECRET, "input", (*PLACE[:4], "4"), b"{}"),
        (1, SECRET, "input", PLACE[:4], b"{}"),
        (1, SECRET, "input", PLACE, b"{ }"),
    ],
)
def test_anything_else_has_another_mark(
    number: int, secret: bytes, kind: MarkKind, place: tuple[str, ...], content: bytes
) -> None:
    assert compute_mark(number, secret, kind, place, content) != compute_mark(1, SECRET, "input", PLACE, b"{}")


@given(
    st.tuples(st.lists(st.text(max_size=4), max_size=4), st.binary(max_size=6)),
    st.tuples(st.lists(st.text(max_size=4), max_size=4), st.binary(max_size=6)),
)
def test_no_two_lists_of_parts_run_together(one: tuple[list[str], bytes], other: tuple[list[str], bytes]) -> None:
    marks = [compute_mark(1, SECRET, "state", place, content) for place, content in (one, other)]

    assert (marks[0] == marks[1]) == (one == other)


async def ring(*ages: timedelta, unmarked_until: datetime | None = None) -> tuple[Keyring, MemoryStore]:
    """A ring of keys that are used since so long; a negative age is still to come."""
    store = MemoryStore()
    store.unmarked_until = unmarked_until
    now = datetime.now(UTC)
    store.made_keys = [Key(number, bytes([number]) * 32, now, now - age) for number, age in enumerate(ages, 1)]
    keyring = Keyring(store)
    await keyring.refresh()
    return keyring, store


HOUR = timedelta(hours=1)


async def test_newest_key_whose_time_has_come_signs() -> None:
    keyring, _ = await ring(2 * HOUR, HOUR, -HOUR)

    assert read_key_number(keyring.sign("input", PLACE, b"{}")) == 2


async def test_marks_of_all_keys_count_until_a_key_ends() -> None:
    keyring, store = await ring(2 * HOUR, HOUR)
    old = compute_mark(1, bytes([1]) * 32, "input", PLACE, b"{}")

    assert keyring.is_genuine("input", PLACE, b"{}", old, NOW)

    await store.retire_key(1)
    await keyring.refresh()
    assert not keyring.is_genuine("input", PLACE, b"{}", old, datetime.now(UTC))
    # What came before its end counts for ever: replays of runs ask again.
    assert keyring.is_genuine("input", PLACE, b"{}", old, datetime.now(UTC) - HOUR)


async def test_key_that_another_worker_made_is_looked_up() -> None:
    keyring, store = await ring(HOUR)
    made = await store.add_key()
    mark = compute_mark(made.number, made.secret, "input", PLACE, b"{}")

    assert not keyring.is_genuine("input", PLACE, b"{}", mark, NOW)
    assert await keyring.is_genuine_now("input", PLACE, b"{}", mark, NOW)


@pytest.mark.parametrize("mark", [b"", b"\0", b"\0\1", bytes(18), bytes(17), b"\0\1" + bytes(16), b"\0\1" + bytes(99)])
async def test_what_is_no_mark_counts_for_nothing(mark: bytes) -> None:
    keyring, _ = await ring(HOUR, unmarked_until=NOW)

    assert not await keyring.is_genuine_now("input", PLACE, b"{}", mark, NOW - HOUR)


@pytest.mark.parametrize(
    ("until", "at", "taken"),
    [(None, NOW, False), (NOW, NOW - timedelta(seconds=1), True), (NOW, NOW, False), (NOW, NOW + HOUR, False)],
)
async def test_without_a_mark_only_what_is_older_than_marks_is_taken(
    until: datetime | None, at: datetime, taken: bool
) -> None:
    keyring, _ = await ring(HOUR, unmarked_until=until)

    assert keyring.is_genuine("input", PLACE, b"{}", None, at) is taken


async def test_nothing_is_said_of_an_unknown_key_by_keys_that_could_not_be_read_lately() -> None:
    """Another answer at the next replay would be nondeterministic."""
    keyring, _ = await ring(HOUR)
    mark = compute_mark(7, bytes(32), "output", PLACE, b"{}")

    assert not keyring.is_genuine("output", PLACE, b"{}", mark, NOW)

    keyring._read_at -= 1000
    with pytest.raises(KeysOutdated):
        keyring.is_genuine("output", PLACE, b"{}", mark, NOW)
