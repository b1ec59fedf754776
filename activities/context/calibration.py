"""Corrections of estimates by what a run's own answers report."""

from collections.abc import Sequence
from math import ceil

from mandate.activities.context.estimate import KINDS, Tokens

Ratios = tuple[float, ...]
"""Reported tokens to estimated ones, in the order of `KINDS`."""

UNKNOWN: Ratios = (1.0,) * len(KINDS)

LOWEST, HIGHEST = 0.15, 4.0
MARGIN = 1.10
"""Of what is new: one text is not counted as another of its kind."""
WHOLE = 1.02
"""Margin of a whole request: what people and programs write is not of one kind."""
DOUBT = 0.35
"""Share of the way back to the uncorrected estimate: of two texts of one kind one may have more."""


def learn(ratios: Sequence[float], tokens: Tokens, reported: int) -> Ratios:
    """Return `ratios` corrected by a request whose texts have `tokens`, and that a model reported as `reported`.

    What most of the request consists of is corrected most, so that nothing is said of texts that were not in it.
    """
    parts = (tokens.words, tokens.marks, tokens.dense, tokens.scripts)
    predicted = tokens.times(ratios)
    if reported <= 0 or predicted <= 0:
        return tuple(ratios)
    fault, most = reported / predicted, max(part * ratio for part, ratio in zip(parts, ratios, strict=True))
    return tuple(
        round(min(max(ratio * fault ** (part * ratio / most), LOWEST), HIGHEST), 4)
        for part, ratio in zip(parts, ratios, strict=True)
    )


def estimate_new(tokens: Tokens, ratios: Sequence[float]) -> int:
    """Return how many tokens a model counts for what is new in a request, at most."""
    careful = [ratio + DOUBT * (1 - ratio) if ratio < 1 else ratio for ratio in ratios]
    return ceil(tokens.times(careful) * MARGIN)


def estimate_request(known: int, new: Tokens, ratios: Sequence[float]) -> int:
    """Return the tokens of a request that goes on from `known` reported ones with `new` texts, at most."""
    return ceil((known + estimate_new(new, ratios)) * WHOLE)
