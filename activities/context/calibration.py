"""Estimates of requests: what our tokenizer counts, corrected by what a run's own answers report."""

from dataclasses import dataclass, replace
from math import ceil

from mandate.activities.context import tokenizer
from mandate.activities.context.estimate import Tokens
from mandate.workflows.contracts.transcript import Measured, TokenRates

MARGIN = 1.06
"""Most that an estimate may be above what is likely, once an answer of the model has told how it counts."""

PART_TOKENS = (3, 10)
"""Least and most tokens around a text, a call, a result or a tool: roles, names of fields, words before it."""

EXACT = 1.01
"""Most tokens of our encoding to those that we count: texts that are joined are cut in another way."""
FOREIGN, FOREIGN_BYTE = 1.6, 0.35
"""Most tokens of another encoding to one of ours, and for each byte beyond one a character."""
DOUBT, DOUBT_BYTE = 1.25, 0.15
"""The same to the rate that it has shown, since texts that are new may be of another kind."""

LEAST_FIXED, LEAST_TEXT = 0.3, 0.15
"""Rates that are not passed: tools are told in other words, and a script says what it likes."""

TOLD_AGAIN = 1.05
"""Most tokens of an answer to those that it has in the next request; what it has beyond is not told again."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Way in which one model counts, as far as it is known."""

    is_exact: bool
    """It counts by our encoding."""
    rates: TokenRates | None = None
    """`None` before its first answer."""

    @classmethod
    def of(cls, model: str, measured: Measured | None = None) -> "Calibration":
        """Return that of `model`, by the newest answer if that is its own."""
        is_own = measured is not None and measured.model == model
        return cls(tokenizer.fits(model), measured.rates if measured is not None and is_own else None)

    def estimate(self, tokens: Tokens) -> int:
        """Return the most tokens that the model counts for `tokens`."""
        return self._limit(self._predict(tokens), self._bound(tokens))

    def estimate_next(self, last: Measured, request: Tokens, *, answer: Tokens, new: Tokens) -> int:
        """Return the most tokens of a request that goes on from the `request` and `answer` that `last` tells of."""
        known = max(last.input_tokens, LEAST_TEXT * request.total)
        likely = self._predict(replace(answer, native=0))
        likely = min(max(last.output_tokens - last.reasoning_tokens, likely), likely * TOLD_AGAIN)
        if answer.native:
            likely += last.reasoning_tokens
        most = max(self._bound(answer), last.output_tokens)
        return self._limit(known + likely + self._predict(new), known + most + self._bound(new))

    def learn(self, tokens: Tokens, reported: int) -> TokenRates:
        """Return the rates nearest to one token for each of ours by which a request has the `reported` tokens.

        Too few are explained by what is written around texts, then by instructions and tools; too many by what is
        around texts, then by what only the provider understands, and at last by all texts.
        """
        least, most = PART_TOKENS
        fixed, text, native, part = 1.0, 1.0, 0.0, float(least)
        beyond = float(reported - tokens.fixed - tokens.text - least * tokens.parts)
        if beyond < 0:
            fixed = max(1 + _share(beyond, tokens.fixed), LEAST_FIXED)
            beyond = min(beyond + (1 - fixed) * tokens.fixed, 0)
            text = 1.0 if self.is_exact else max(1 + _share(beyond, tokens.text), LEAST_TEXT)
        else:
            part = min(least + _share(beyond, tokens.parts), most)
            beyond -= (part - least) * tokens.parts
            native = min(_share(beyond, tokens.native), 1.0)
            beyond = max(beyond - native * tokens.native, 0)
            if self.is_exact:
                fixed += _share(beyond, tokens.fixed)
            else:
                fixed = text = 1 + _share(beyond, tokens.fixed + tokens.text)
        return TokenRates(fixed=round(fixed, 4), text=round(text, 4), native=round(native, 4), part=round(part, 2))

    def _predict(self, tokens: Tokens) -> float:
        """Return the tokens that are likely; at most before the model has answered."""
        if self.rates is None:
            return self._bound(tokens)
        rates = self.rates
        texts = tokens.fixed * rates.fixed + tokens.text * rates.text
        return texts + tokens.native * rates.native + tokens.parts * rates.part

    def _bound(self, tokens: Tokens) -> float:
        """Return the tokens that `tokens` may have at most, whatever kind of text they are."""
        around = tokens.native + tokens.parts * PART_TOKENS[1]
        if self.is_exact:
            return (tokens.fixed + tokens.text) * EXACT + around
        if self.rates is None:
            return (tokens.fixed + tokens.text) * FOREIGN + tokens.extra_bytes * FOREIGN_BYTE + around
        likely = tokens.fixed * self.rates.fixed + tokens.text * self.rates.text
        return likely * DOUBT + tokens.extra_bytes * DOUBT_BYTE + around

    def _limit(self, likely: float, most: float) -> int:
        return ceil(most if self.rates is None else min(max(likely, most), likely * MARGIN))


def _share(tokens: float, of: int) -> float:
    return tokens / of if of else 0.0
