"""Corrections of estimates by what a run's own answers report."""

from collections.abc import Sequence
from math import ceil

from mandate.activities.context.estimate import KINDS, Tokens

Ratios = tuple[float, ...]
"""Reported tokens to estimated ones, in the order of `KINDS`."""

UNKNOWN: Ratios = (1.0,) * len(KINDS)

LOWEST, HIGHEST = 0.15, 4.0
MARGIN = 1.06
"""Of what is new, where a ratio below 1 corrects it: one text is not counted as another of its kind."""
DOUBT, DOUBT_OF_NEW = 0.15, 0.5
"""Share of the way back to the uncorrected estimate: of any new text, and of one of a kind that was rare so far."""
EXACT = 1.01
"""Margin of what was counted exactly."""
WHOLE = 1.02
"""Margin of a whole request: what people and programs write is not of one kind."""


def learn(ratios: Sequence[float], tokens: Tokens, reported: int) -> Ratios:
    """Return `ratios` corrected by a request whose texts have `tokens`, and that a model reported as `reported`.

    What most of the request consists of is corrected most, so that nothing is said of texts that were not in it.
    """
    parts = _list(tokens)
    predicted = tokens.times(ratios)
    if reported <= 0 or predicted <= 0:
        return tuple(ratios)
    fault, most = reported / predicted, max(part * ratio for part, ratio in zip(parts, ratios, strict=True))
    return tuple(
        round(min(max(ratio * fault ** (part * ratio / most), LOWEST), HIGHEST), 4)
        for part, ratio in zip(parts, ratios, strict=True)
    )


def estimate_new(new: Tokens, ratios: Sequence[float], seen: Tokens | None = None) -> int:
    """Return the most tokens that a model counts for `new` texts; `seen` are those that `ratios` were learned by."""
    before = _list(seen if seen is not None else Tokens())
    return ceil(sum(map(_correct, _list(new), before, ratios)))


def estimate_request(known: int, new: Tokens, ratios: Sequence[float], seen: Tokens | None = None) -> int:
    """Return the tokens of a request that goes on from `known` reported ones with `new` texts, at most."""
    return ceil((known + estimate_new(new, ratios, seen)) * WHOLE)


def count_request(known: int, new: Tokens) -> int:
    """Return the tokens of a request that goes on from `known` reported ones, where a tokenizer has counted the rest.

    Two texts that stand beside each other may be cut in another way than each by itself.
    """
    return ceil(known + new.exact * EXACT)


def estimate_whole(tokens: Tokens, ratios: Sequence[float]) -> int:
    """Return the tokens of a request of which nothing is reported, by the ratios of those before it, at most."""
    careful = [ratio + DOUBT * (1 - ratio) if ratio < 1 else ratio for ratio in ratios]
    return ceil(tokens.times(careful) * WHOLE)


def _list(tokens: Tokens) -> tuple[float, ...]:
    return (tokens.words, tokens.marks, tokens.dense, tokens.scripts)


def _correct(new: float, before: float, ratio: float) -> float:
    if ratio >= 1 or new <= 0:
        return new * ratio
    rare = new / (new + before)
    return new * min((ratio + (DOUBT + DOUBT_OF_NEW * rare) * (1 - ratio)) * MARGIN, 1.0)
