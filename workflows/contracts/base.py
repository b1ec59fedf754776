"""The two kinds of contract, and the addresses and durations that they share."""

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

JsonObject = dict[str, JsonValue]


class Spec(BaseModel):
    """Something that a person writes: an unknown key is an error, so that a typo cannot loosen a rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unavailable: ClassVar[tuple[str, ...]] = ()
    """Keys of the design that this version refuses by name, so that nobody relies on what is not enforced."""


class Record(BaseModel):
    """Something that the code writes: unknown keys are ignored, so that old workers read new records."""

    model_config = ConfigDict(extra="ignore", frozen=True)


DIGEST_PATTERN = r"^[A-Za-z0-9_-]{43}$"

Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
"""The sha256 of some bytes in base64url without padding: 43 characters."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9_-]{0,63}$")]
"""A name that every model provider accepts for a tool: a letter, then up to 63 letters, digits, `_` and `-`."""

LONGEST = timedelta(days=3650)

MOST_MONEY = 1_000_000
"""US dollars; all amounts are less."""

_AMOUNT = re.compile(r"-?\d{1,30}(?:\.\d{1,9})?")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """Parse `"90s"`, `"1h30m"` or `"2d"` as a `timedelta`; leave anything else to pydantic.

    Raises:
        ValueError: a text that is neither of this form nor ISO 8601, or a bare number.
    """
    if isinstance(value, bool | int | float):
        raise ValueError("a duration needs a unit, for example '30s', '5m', '2h' or '1d'")
    if not isinstance(value, str) or value.startswith("P"):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError("a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"a duration is at most {LONGEST.days}d")
    return timedelta(seconds=seconds)


def _check_length(length: timedelta) -> timedelta:
    if length <= timedelta(0):
        raise ValueError("must be longer than 0s")
    if length > LONGEST:
        raise ValueError(f"a duration is at most {LONGEST.days}d")
    return length


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    AfterValidator(_check_length),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["30s", "5m", "1h30m"]}),
]


def parse_money(value: object) -> Decimal:
    """Parse an amount of US dollars, `"2.00"` or `2`.

    Raises:
        ValueError: what is no amount, one of a million and more, a number with a fraction, which would not be exact, or
            a boolean.
    """
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool | float):
        raise ValueError("an amount is exact: write it as a text in quotes, for example '2.50'")
    if not isinstance(value, str | int) or (isinstance(value, str) and not _AMOUNT.fullmatch(value)):
        raise ValueError("an amount is digits, with up to nine decimals and no currency, for example '2.50'")
    amount = Decimal(value)
    if amount >= MOST_MONEY:
        raise ValueError(f"an amount is less than {MOST_MONEY:,}")
    return amount


Usd = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json")]
"""US dollars, exact and of any length; in JSON always digits, where Python writes small ones as `1E-7`."""

_MONEY: JsonObject = {"type": ["string", "integer"], "pattern": r"^\d{1,6}(?:\.\d{1,9})?$", "examples": ["2.00"]}

Money = Annotated[
    Usd,
    BeforeValidator(parse_money),
    Field(ge=0, max_digits=15, decimal_places=9, allow_inf_nan=False),
    WithJsonSchema({**_MONEY, "minimum": 0, "exclusiveMaximum": MOST_MONEY}),
]
"""US dollars."""


def _check_amount(amount: Decimal) -> Decimal:
    if amount <= 0:
        raise ValueError("must be more than 0")
    return amount


PositiveMoney = Annotated[
    Usd,
    BeforeValidator(parse_money),
    AfterValidator(_check_amount),
    WithJsonSchema({**_MONEY, "exclusiveMinimum": 0, "exclusiveMaximum": MOST_MONEY}),
]
"""US dollars of a limit."""


def digest_of(content: bytes) -> str:
    """Return the address of `content`: its sha256 in base64url, 43 characters."""
    return urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def canonical_json(value: JsonValue | Mapping[str, Any]) -> bytes:
    """Return `value` as JSON with sorted keys and no spaces: equal values have equal bytes.

    Raises:
        ValueError: a number that JSON has no form for (NaN, infinities).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def check_storable(value: Any) -> None:
    """Check that `value` can be stored as JSON.

    Raises:
        ValueError: it holds half of a surrogate pair, NaN or an infinity; the message begins with "holds".
    """
    try:
        canonical_json(value)
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    except ValueError:
        raise ValueError("holds NaN or an infinity, which JSON has no form for") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
