"""Writers of texts of every kind that runs meet, each of about so many characters."""

import base64
import json
import random
from collections.abc import Callable, Mapping

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

_WORDS = PROSE.split()

Writer = Callable[[random.Random, int], str]


def cut(source: random.Random, text: str, size: int) -> str:
    """So many characters of `text`, over and over, from anywhere in it."""
    begin = source.randrange(len(text))
    return (text[begin:] + text * (size // len(text) + 1))[:size]


def write_words(source: random.Random, size: int) -> str:
    """Prose, or its words in any order."""
    if source.random() < 0.5:
        return cut(source, PROSE, size)
    return " ".join(source.choices(_WORDS, k=size // 6 + 1))


def write_json(source: random.Random, size: int) -> str:
    """Rows as a tool returns them, the last of them broken off."""
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


def _repeat(*texts: str) -> Writer:
    return lambda source, size: cut(source, source.choice(texts), size)


def _draw(begin: int, end: int) -> Writer:
    return lambda source, size: "".join(chr(source.randrange(begin, end)) for _ in range(size // 2 + 1))


def _write_cjk(source: random.Random, size: int) -> str:
    return source.choice((_repeat(CHINESE, JAPANESE, KOREAN), _draw(0x4E00, 0x9FFF)))(source, size // 2 + 1)


COMMON: Mapping[str, Writer] = {
    "text": write_words,
    "code": _repeat(CODE),
    "JSON": write_json,
    "CJK": _write_cjk,
    "base64": lambda source, size: base64.b64encode(source.randbytes(size * 3 // 4 + 1)).decode(),
}

OTHER: Mapping[str, Writer] = {
    "German": _repeat(GERMAN),
    "Russian": _repeat(RUSSIAN),
    "emoji": _draw(0x1F300, 0x1F64F),
    "cuneiform": _draw(0x12000, 0x12300),
    "hexadecimal": lambda source, size: source.randbytes(size // 2).hex(),
    "digits": lambda source, size: "".join(source.choices("0123456789", k=size)),
    "one letter": lambda source, size: "a" * size,
    "random words": lambda source, size: " ".join(
        "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randrange(3, 11))) for _ in range(size // 7)
    ),
}
