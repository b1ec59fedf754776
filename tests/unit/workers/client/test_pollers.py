"""Workers that poll a task queue, told apart from those that are gone."""

import socket

import pytest

from mandate.workers.client.pollers import Poller, may_poll

HOST = socket.gethostname()

NOBODY = 2**22 + 1
"""More than the number of any process."""

HERE, GONE, AWAY = f"1@{HOST}", f"{NOBODY}@{HOST}", "12@elsewhere"


@pytest.mark.parametrize(
    ("identity", "is_here", "is_gone"),
    [
        (HERE, True, False),
        (GONE, False, True),
        (f"9999999999999999999999@{HOST}", True, False),
        (AWAY, False, False),
        (f"payments@{HOST}", False, False),
        ("payments", False, False),
        ("", False, False),
    ],
)
def test_worker_of_this_machine_is_gone_when_it_has_no_such_process(
    identity: str, is_here: bool, is_gone: bool
) -> None:
    poller = Poller(identity, 0)

    assert (poller.is_here, poller.is_gone) == (is_here, is_gone)


@pytest.mark.parametrize(
    ("before", "after", "polls"),
    [
        ({}, {}, False),
        ({AWAY: 1}, {AWAY: 1}, False),
        ({AWAY: 1}, {AWAY: 2}, True),
        ({AWAY: 1}, {AWAY: 1, "13@elsewhere": 5}, True),
        ({GONE: 1}, {GONE: 1}, False),
        ({HERE: 1}, {HERE: 1}, True),
        ({AWAY: 1, GONE: 1}, {}, False),
    ],
)
def test_queue_is_polled_when_a_worker_is_here_or_has_polled_again(
    before: dict[str, int], after: dict[str, int], polls: bool
) -> None:
    looks = [[Poller(identity, at) for identity, at in look.items()] for look in (before, after)]

    assert may_poll(*looks) is polls
