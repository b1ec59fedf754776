"""Calls in messages that a conversation leaves out, as far as later steps need them."""

from collections.abc import Sequence

from mandate.activities.toolbox.calls import list_effects
from mandate.activities.toolbox.read_result import list_stored
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.transcript import EarlierCalls, Message, StoredResult


def list_calls(agent: PinnedAgent, messages: Sequence[Message], salt: bytes | None) -> EarlierCalls:
    """Return the calls that change the world, by how often they were made, and results that can be read on."""
    effects: dict[Digest, int] = {}
    stored: dict[str, StoredResult] = {}
    for message in messages:
        for digest in list_effects(agent, message, salt):
            effects[digest] = effects.get(digest, 0) + 1
        stored |= list_stored(message)
    return EarlierCalls(effects=effects, results=stored)
