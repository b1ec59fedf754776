"""The demo's shop when replies get lost: what its tools, its probe and its check say, and the script about it."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic_core import to_json

from mandate.activities.providers.base import Prompt
from mandate.activities.providers.scripted.provider import ScriptedProvider
from mandate.activities.toolbox.decorator import ToolContext
from mandate.activities.transcript.conversation import Conversation
from mandate.workers.examples import shop, shop_rules_server
from mandate.workers.examples.shop_checks import refunds_are_told
from mandate.workers.examples.shop_data import DEMO_INPUT, create_shop
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage

AGENTS = Path(__file__).parents[3] / "deploy" / "agents"
LOST = r"^the line broke before the reply came$"


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("MANDATE_DEMO_SHOP", str(path))
    create_shop(path)
    return path


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANDATE_DEMO_LOST_REPLIES", "issue_refund,send_customer_note")


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def key(name: str) -> ToolContext:
    return ToolContext.for_tests(idempotency_key=name)


@pytest.mark.usefixtures("_broken")
def test_refund_without_a_reply_is_in_the_books_once_and_is_found(database: Path) -> None:
    for _ in range(3):
        with pytest.raises(ConnectionError, match=LOST):
            shop.issue_refund(1042, 10690, "broken", key("a"))

    assert rows(database, "SELECT key, amount_cents FROM refunds") == [("a", 10690)]
    assert shop.find_refund("a") == shop.FoundRefund(
        done=True, refund=1, order=1042, amount_cents=10690, method="PayPal", amount="106.90 EUR"
    )
    assert shop.find_refund("b") == shop.FoundRefund(done=False)


@pytest.mark.usefixtures("_broken")
def test_first_email_without_a_reply_is_out_and_the_next_one_has_a_reply(database: Path) -> None:
    with pytest.raises(ConnectionError, match=LOST):
        shop.send_customer_note(1042, "hello")

    assert shop.send_customer_note(1042, "again") == "sent to ada.brandt@example.com"
    assert rows(database, "SELECT text FROM outbox") == [("hello",), ("again",)]


NAMED = (True, "the answer names what the books show as refunded")
NOT_NAMED = (False, "by the books 106.90 EUR of order 1042 were refunded, and the answer does not name that amount")


@pytest.mark.parametrize(
    ("answer", "refunds", "said"),
    [
        ("Order 1042: 106.90 EUR went back.", (10690,), NAMED),
        ("Bestellung 1042: 106,90 EUR erstattet.", (10690,), NAMED),
        ("Order 1042: 89.00 EUR and 17.90 EUR went back.", (8900, 1790), NAMED),
        ("Order 1042: 106.90 EUR went back.", (8900, 1790), NAMED),
        ("Order 1042 is settled.", (10690,), NOT_NAMED),
        ("Order 1042: 1106.90 EUR went back.", (10690,), NOT_NAMED),
        ("Order 1042: 89.00 EUR went back.", (8900, 1790), NOT_NAMED),
        ("Order 1043 is settled.", (10690,), NAMED),
        ("I leave order 1042 as it is.", (), NAMED),
        ("I know one story only.", (10690,), NAMED),
    ],
)
def test_answer_must_name_what_was_refunded(answer: str, refunds: tuple[int, ...], said: tuple[bool, str]) -> None:
    for number, amount in enumerate(refunds):
        shop.issue_refund(1042, amount, "broken", key(str(number)))

    assert refunds_are_told(answer) == said


async def told(call: CallPart) -> ResultPart:
    """What the model is told of a call: of a lost reply, what was found out."""
    arguments = json.loads(call.arguments)
    function = getattr(shop, call.tool, None) or getattr(shop_rules_server, call.tool)
    if call.tool == "issue_refund":
        arguments["context"] = key("k")
    try:
        answer = await asyncio.to_thread(function, **arguments)
    except ConnectionError:
        answer = shop.find_refund("k") if call.tool == "issue_refund" else "done; its reply was lost"
    text = answer if isinstance(answer, str) else to_json(answer).decode()
    if call.tool == "issue_refund":
        text = f"[the reply was lost]\n{text}"
    return ResultPart(kind="result", call_id=call.call_id, tool=call.tool, text=text)


async def answered(conversation: Conversation) -> AssistantMessage:
    model, wait = "shop-broken.script.yaml", timedelta(seconds=5)
    prompt = Prompt(model, "", (), "a" * 43, conversation, 100, wait, attempt=1)
    return (await ScriptedProvider([AGENTS]).complete(prompt)).message


@pytest.mark.usefixtures("_broken")
async def test_script_goes_on_with_what_was_found_and_answers_three_times(database: Path) -> None:
    conversation = Conversation([UserMessage(role="user", parts=(TextPart(kind="text", text=DEMO_INPUT),))])
    findings: list[tuple[bool, str]] = []
    while True:
        message = await answered(conversation)
        parts: tuple[ResultPart | TextPart, ...] = tuple([await told(call) for call in message.calls])
        if not parts:
            findings.append(refunds_are_told(message.text))
            if findings[-1][0]:
                break
            note = f"[Note from the runtime] Your answer was not taken: {findings[-1][1]}. Put that right."
            parts = (TextPart(kind="text", text=note),)
        conversation = conversation.extend(message, UserMessage(role="user", parts=parts))

    assert findings == [NOT_NAMED, NOT_NAMED, NAMED]
    assert rows(database, "SELECT amount_cents FROM refunds") == [(10690,)]
    assert rows(database, "SELECT count(*) FROM outbox") == [(1,)]
    assert rows(database, "SELECT on_hand FROM stock WHERE sku = 'FIL-02'") == [(16,)]
