"""Estimates of whole requests beside what the fakes of each protocol count, in a thousand generated conversations."""

from collections.abc import Iterable

import pytest

from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.generated_conversation import Estimated, GeneratedConversation
from tests.support.texts import COMMON

CONVERSATIONS = 340
"""Of each protocol."""


def find_misses(requests: Iterable[Estimated]) -> list[Estimated]:
    return [request for request in requests if not 1.0 <= request.ratio <= 1.1]


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
async def test_from_the_second_call_on_all_of_a_thousand_conversations_are_within_a_tenth(protocol: str) -> None:
    """Never below and never a tenth above, whatever is new, after cuts and ways back too; the first is never below."""
    made = [await GeneratedConversation(protocol, seed).run(5) for seed in range(CONVERSATIONS)]

    later = [request for conversation in made for request in conversation.requests[1:]]
    assert find_misses(later) == []
    assert len(later) > 3.9 * CONVERSATIONS
    assert sum(request.is_cut for request in later) > 50
    assert sum(request.is_back for request in later) > 20
    assert {kind for request in later for kind in request.kinds} == set(COMMON)
    assert all(conversation.requests[0].ratio >= 1.0 for conversation in made)


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
async def test_long_conversations_of_short_texts_are_within_a_tenth(protocol: str) -> None:
    """What is around texts counts there, and most requests follow a cut soon."""
    made = [await GeneratedConversation(protocol, seed, window=6_000, longest_result=60).run(60) for seed in range(4)]

    later = [request for conversation in made for request in conversation.requests[1:]]
    assert find_misses(later) == []
    assert sum(request.is_cut for request in later) > 40
