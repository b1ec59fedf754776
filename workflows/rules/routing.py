"""Routing of model calls: the model that is asked next."""

from collections.abc import Sequence


def find_next_model(route: Sequence[str], failed: str) -> str | None:
    """Return the model of `route` that follows `failed`, or `None` when it was the last."""
    position = route.index(failed) + 1
    return route[position] if position < len(route) else None
