"""Estimates beside what real tokenizers count, for texts of every kind."""

import base64
import json
import random
import statistics
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.context import calibration, tokenizer
from mandate.activities.context.calibration import UNKNOWN
from mandate.activities.context.estimate import LONG_TEXT, Tokens, count, estimate_tokens

PROSE = (
    "The customer wants a refund for the order. Look the order up first, and check whether the payment was settled. "
    "When the amount is larger than one hundred euros, the finance department has to approve it before anything is "
    "sent. Nobody should be told about a refund that has not been made. Delivery takes between three and five days. "
)
CODE = '''
def find_refund(order: int, *, limit: Decimal = Decimal("100.00")) -> Refund | None:
    """Return the refund of `order`, or `None`."""
    for entry in self._ledger.get(order, ()):
        if entry.kind == "refund" and entry.amount_usd <= limit:
            return Refund(order_id=entry.order_id, amount=entry.amount_usd, state=State.BOOKED)
    return None
'''
CHINESE = "客户要求退款，请先查询订单状态。如果金额超过一百元，需要财务部门的批准。系统已经记录了所有的操作。"  # noqa: RUF001 - Chinese
JAPANESE = (
    "お客様は返金を希望しています。まず注文の状態を確認してください。金額が百ユーロを超える場合は承認が必要です。"
)
KOREAN = "고객이 환불을 원합니다. 먼저 주문 상태를 확인하십시오. 금액이 백 유로를 초과하면 승인이 필요합니다."
GERMAN = (
    "Der Kunde wünscht eine Rückerstattung, bitte prüfen Sie zuerst den Auftragsstatus und die Zahlungsbestätigung. "
)
RUSSIAN = "Клиент хочет вернуть деньги, сначала проверьте состояние заказа и сумму платежа. "


def _cut(source: random.Random, text: str, size: int) -> str:
    begin = source.randrange(len(text))
    return (text[begin:] + text * (size // len(text) + 1))[:size]


def _write_json(source: random.Random, size: int) -> str:
    rows = [
        {
            "id": source.randrange(10**6),
            "customer_id": f"C-{source.randrange(10**5)}",
            "amount": round(source.random() * 900, 2),
            "status": source.choice(["pending", "settled", "declined"]),
            "created_at": f"2026-{source.randrange(1, 13):02d}-{source.randrange(1, 28):02d}T08:00:00Z",
            "note": source.choice(PROSE.split(". ")),
        }
        for _ in range(size // 160 + 1)
    ]
    return json.dumps(rows)[:size]


def _draw(begin: int, end: int) -> Callable[[random.Random, int], str]:
    return lambda source, size: "".join(chr(source.randrange(begin, end)) for _ in range(size // 2))


KINDS: dict[str, Callable[[random.Random, int], str]] = {
    "prose": lambda source, size: _cut(source, PROSE, size),
    "code": lambda source, size: _cut(source, CODE, size),
    "JSON": _write_json,
    "Chinese": lambda source, size: _cut(source, CHINESE, size),
    "Japanese": lambda source, size: _cut(source, JAPANESE, size),
    "Korean": lambda source, size: _cut(source, KOREAN, size),
    "German": lambda source, size: _cut(source, GERMAN, size),
    "Russian": lambda source, size: _cut(source, RUSSIAN, size),
    "rare characters": _draw(0x4E00, 0x9FFF),
    "emoji": _draw(0x1F300, 0x1F64F),
    "base64": lambda source, size: base64.b64encode(source.randbytes(size * 3 // 4)).decode(),
    "hexadecimal": lambda source, size: source.randbytes(size // 2).hex(),
    "digits": lambda source, size: "".join(source.choices("0123456789", k=size)),
    "random words": lambda source, size: " ".join(
        "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randrange(3, 11))) for _ in range(size // 7)
    ),
}
"""Writers of texts of about so many characters."""

ASKED_FOR = ("prose", "code", "JSON", "Chinese", "base64")


@pytest.fixture(scope="module", params=["o200k_base", "cl100k_base"])
def tokenize(request: pytest.FixtureRequest) -> Callable[[str], int]:
    tokenizers = pytest.importorskip("bpe_openai")
    encoding = tokenizers.get_encoding(request.param)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_an_estimate_is_not_below_what_a_tokenizer_counts(kind: str, tokenize: Callable[[str], int]) -> None:
    source = random.Random(kind)
    texts = [KINDS[kind](source, size) for size in (400, 1_000, 4_000, 20_000)]

    below = [
        (len(text), estimate_tokens(text), tokenize(text)) for text in texts if estimate_tokens(text) < tokenize(text)
    ]

    assert below == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "most"), [("prose", 1.3), ("code", 1.4), ("JSON", 1.35), ("base64", 1.2), ("digits", 1.1)]
)
def test_an_estimate_is_not_far_above(kind: str, most: float, tokenize: Callable[[str], int]) -> None:
    text = KINDS[kind](random.Random(kind), 8_000)

    assert estimate_tokens(text) <= most * tokenize(text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_thousand_conversations_are_never_estimated_too_low(tokenize: Callable[[str], int]) -> None:
    """From the second call on, from what the model reported: never below, and mostly within a tenth."""
    source, shares = random.Random(7), list[float]()
    for number in range(500):  # by each of two tokenizers
        kinds = [source.choice(ASKED_FOR)] if number % 2 else ASKED_FOR
        system = KINDS["prose"](source, source.randrange(600, 4_000)) + KINDS["JSON"](source, 1_500)
        tokens, real = count(system), tokenize(system)
        ratios, known = UNKNOWN, 0
        for _ in range(5):
            said = KINDS[source.choice(kinds)](source, source.randrange(40, 3_000))
            new, real = count(said) + Tokens(marks=10), real + tokenize(said) + 4
            if known:
                shares.append(calibration.estimate_request(known, new, ratios, tokens) / real)
            tokens = tokens + new
            ratios = calibration.learn(ratios, tokens, real)
            answer = KINDS[source.choice(kinds)](source, source.randrange(20, 600))
            tokens, real = tokens + count(answer) + Tokens(marks=10), real + tokenize(answer) + 4
            known = real

    assert min(shares) >= 1.0
    assert statistics.median(shares) <= 1.05
    assert sum(share <= 1.1 for share in shares) >= 0.8 * len(shares)


@pytest.fixture
def exact() -> Iterator[None]:
    tokenizer.use("o200k_base")
    yield
    tokenizer.use(None)


@pytest.mark.parametrize("seed", range(2))
def test_with_a_tokenizer_all_of_a_thousand_conversations_are_within_a_tenth(exact: None, seed: int) -> None:
    """From the second call on: never below, whatever is new, and never a tenth above."""
    source, shares, around = random.Random(seed), list[float](), Tokens(marks=10, exact=10)
    for number in range(500):
        kinds = [source.choice(ASKED_FOR)] if number % 2 else ASKED_FOR
        system = KINDS["prose"](source, source.randrange(600, 4_000)) + KINDS["JSON"](source, 1_500)
        real = tokenizer.count_exactly(system)
        for turn in range(5):
            said, answer = (KINDS[source.choice(kinds)](source, source.randrange(20, 3_000)) for _ in range(2))
            known, length = real, tokenizer.count_exactly(said)
            new, real = Tokens(exact=length) + around, real + length + 4
            if turn:
                shares.append(calibration.count_request(known, new) / real)
            real += tokenizer.count_exactly(answer) + 4

    assert min(shares) >= 1.0
    assert max(shares) <= 1.1


def test_tokenizer_fits_models_of_its_vendor_only(exact: None) -> None:
    assert tokenizer.fits("openai:gpt-6-sol")
    assert not tokenizer.fits("anthropic:claude-sonnet-5-5")
    assert count("Hello there.").exact == 3


@pytest.mark.parametrize("name", ["o100k", ""])
def test_tokenizer_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^'{name}' is not a tokenizer; allowed are o200k_base and cl100k_base$"):
        tokenizer.use(name)
    assert not tokenizer.fits("openai:gpt-6-sol")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_of_a_long_text_is_left_out(tokenize: Callable[[str], int]) -> None:
    """Cuneiform between pieces of prose, wherever somebody may look."""
    text = (PROSE[:4096] + "\U00012000" * 3000) * 12

    assert estimate_tokens(text) >= tokenize(text)


def test_a_text_of_many_megabytes_has_no_more_tokens_than_bytes() -> None:
    text = "ä" * (LONG_TEXT + 1)

    assert estimate_tokens(text) == 2 * len(text)


@pytest.mark.parametrize(
    "text",
    ["\U00012000" * 200, "\u2800 \u28ff" * 100, "\U0001f9ff \U0001fa70 " * 100, "a" * 5000, "zq" * 900, "W" * 64],
    ids=["cuneiform", "braille", "signs with spaces", "one letter", "two letters", "capitals"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rare_signs_and_repeated_letters_are_not_below(text: str, tokenize: Callable[[str], int]) -> None:
    assert estimate_tokens(text) >= tokenize(text)


def test_a_run_of_one_letter_says_nothing_of_words() -> None:
    assert count("a" * 5000).words == 0


@given(st.text(max_size=300))
def test_any_text_has_an_estimate_and_a_longer_one_no_lower(text: str) -> None:
    assert 0 <= estimate_tokens(text) <= estimate_tokens(f"{text} and more of it")
