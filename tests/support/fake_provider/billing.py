"""The provider's own account: every request that it took in is billed, whatever became of the answer.

It knows nothing of Mandate: tokens as the provider counts them, at the prices of a table of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tests.support.fake_provider.requests import Request


@dataclass(frozen=True, slots=True)
class Tier:
    """US dollars for a million tokens, where the whole input has more than `above`."""

    above: int
    input: Decimal
    cached_input: Decimal
    output: Decimal


PriceTable = Mapping[str, Sequence[Tier]]
"""Tiers of each model that costs something, by rising `above`, the first from 0 on."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One request on the bill."""

    payer: str
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: Decimal
    is_dear: bool
    """Its input reached a higher tier."""


@dataclass
class Billing:
    """Bill of all requests; `find_payer` reads from a request who pays for it."""

    prices: PriceTable
    find_payer: Callable[[Request], str]
    charges: list[Charge] = field(default_factory=list)

    def charge(self, request: Request, model: str, tokens: tuple[int, int, int]) -> None:
        """Bill a request with these tokens: input, the cached part of it, output."""
        told, cached, said = tokens
        tiers = self.prices[model]
        tier = [each for each in tiers if each.above == 0 or told > each.above][-1]
        rated = (told - cached) * tier.input + cached * tier.cached_input + said * tier.output
        cost_usd = rated.scaleb(-6)
        payer = self.find_payer(request)
        self.charges.append(Charge(payer, model, told, cached, said, cost_usd, is_dear=tier.above > 0))

    @property
    def total(self) -> Decimal:
        return sum((each.cost_usd for each in self.charges), Decimal(0))

    @property
    def by_payer(self) -> dict[str, Decimal]:
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for each in self.charges:
            sums[each.payer] += each.cost_usd
        return dict(sums)

    @property
    def tokens_by_payer(self) -> dict[str, int]:
        sums: defaultdict[str, int] = defaultdict(int)
        for each in self.charges:
            sums[each.payer] += each.input_tokens + each.output_tokens
        return dict(sums)
