"""The demo's shop: what its tools do to the database, and its script against them."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from pydantic_core import to_json
from temporalio.exceptions import ApplicationError

from mandate.activities.documents import read_document
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.scripted.provider import ScriptedProvider
from mandate.activities.toolbox.decorator import NotDone, ToolContext, define_tool, find_settings, load_function
from mandate.activities.transcript.conversation import Conversation
from mandate.workers.examples import shop, shop_rules_server
from mandate.workers.examples.shop_data import DEMO_INPUT, create_shop
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.tool import Effect
from mandate.workflows.contracts.tool_entry import PythonTool
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage

AGENTS = Path(__file__).parents[3] / "deploy" / "agents"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "shop.db"
    monkeypatch.setenv("MANDATE_DEMO_SHOP", str(path))
    create_shop(path)
    return path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def key(name: str) -> ToolContext:
    return ToolContext.for_tests(idempotency_key=name)


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("lookup_order", Effect.READ),
        ("list_payments", Effect.READ),
        ("check_stock", Effect.READ),
        ("issue_refund", Effect.KEYED),
        ("issue_voucher", Effect.KEYED),
        ("restock_item", Effect.IDEMPOTENT),
        ("send_customer_note", Effect.ONCE),
    ],
)
def test_tool_says_what_it_does_to_the_world(name: str, effect: Effect) -> None:
    settings = find_settings(getattr(shop, name))

    assert settings is not None
    assert settings.effect is effect
    assert define_tool(getattr(shop, name)).input_schema["additionalProperties"] is False


def test_order_is_looked_up(database: Path) -> None:
    assert asdict(shop.lookup_order(1042)) == {
        "order": 1042,
        "status": "delivered",
        "customer": "Ada Brandt",
        "email": "ada.brandt@example.com",
        "ordered_on": "2026-11-02",
        "delivered_on": "2026-11-06",
        "lines": [
            {"sku": "KET-01", "name": "Gooseneck kettle, 1.0 l", "quantity": 1, "unit_price_cents": 8900},
            {"sku": "FIL-02", "name": "Paper filters, 100 pieces", "quantity": 2, "unit_price_cents": 650},
        ],
        "shipping_cents": 490,
        "total_cents": 10690,
        "total": "106.90 EUR",
    }


def test_payments_are_what_orders_cost(database: Path) -> None:
    for (order,) in rows(database, "SELECT id FROM orders"):
        assert isinstance(order, int)
        paid = sum(payment.amount_cents for payment in shop.list_payments(order))

        assert paid == shop.lookup_order(order).total_cents


@pytest.mark.parametrize(
    "call",
    [
        lambda: shop.lookup_order(7),
        lambda: shop.list_payments(7),
        lambda: shop.issue_refund(7, 1, "none", key("k")),
        lambda: shop.issue_voucher(7, 1, key("k")),
        lambda: shop.send_customer_note(7, "hello"),
    ],
)
def test_unknown_order_is_not_done(database: Path, call: Callable[[], object]) -> None:
    with pytest.raises(NotDone, match=r"^there is no order 7$"):
        call()


def test_unknown_article_is_not_done(database: Path) -> None:
    with pytest.raises(NotDone, match=r"^there is no article 'XYZ-99'$"):
        shop.restock_item("XYZ-99", 3)


def test_same_key_refunds_once(database: Path) -> None:
    first = shop.issue_refund(1042, 8900, "broken", key("a"))
    again = shop.issue_refund(1042, 8900, "broken", key("a"))
    other = shop.issue_refund(1042, 1000, "broken", key("b"))

    assert first == again == shop.Refund(1, 1042, 8900, "PayPal", "89.00 EUR")
    assert other.refund == 2
    assert rows(database, "SELECT key, amount_cents FROM refunds") == [("a", 8900), ("b", 1000)]
    assert shop.list_payments(1042)[0].refunded_cents == 9900


def test_no_more_is_refunded_than_was_paid(database: Path) -> None:
    shop.issue_refund(1042, 10_000, "broken", key("a"))

    with pytest.raises(NotDone, match=r"^7\.00 EUR is more than order 1042 can be given back: 6\.90 EUR$"):
        shop.issue_refund(1042, 700, "broken", key("b"))
    assert shop.issue_refund(1042, 690, "broken", key("c")).amount == "6.90 EUR"


def test_concurrent_refunds_never_exceed_the_payment(database: Path) -> None:
    """20 refunds of 10.00 of 106.90, each key twice: 10 fit."""

    def refund(number: int) -> int | None:
        try:
            return shop.issue_refund(1042, 1000, "broken", key(f"k{number % 20}")).refund
        except NotDone:
            return None

    with ThreadPoolExecutor(8) as threads:
        refunds = list(threads.map(refund, range(40)))

    assert refunds[:20] == refunds[20:]
    assert len(set(refunds) - {None}) == 10
    assert rows(database, "SELECT count(*), sum(amount_cents) FROM refunds") == [(10, 10_000)]


def test_restocking_sets(database: Path) -> None:
    assert shop.restock_item("FIL-02", 16) == shop.restock_item("FIL-02", 16) == shop.check_stock("FIL-02")
    assert shop.check_stock("FIL-02").on_hand == 16


def test_each_note_goes_out(database: Path) -> None:
    shop.send_customer_note(1042, "hello")
    assert shop.send_customer_note(1042, "hello") == "sent to ada.brandt@example.com"

    assert rows(database, 'SELECT "order", recipient, text FROM outbox') == [
        (1042, "ada.brandt@example.com", "hello"),
        (1042, "ada.brandt@example.com", "hello"),
    ]


def test_voucher_of_one_key_is_given_once(database: Path) -> None:
    shop.issue_voucher(1042, 1000, key("a"))
    assert shop.issue_voucher(1042, 1000, key("a")) == "voucher over 10.00 EUR issued"

    assert rows(database, "SELECT key, customer, amount_cents FROM vouchers") == [("a", 1, 1000)]


def test_new_shop_is_always_the_same(database: Path, tmp_path: Path) -> None:
    shop.issue_refund(1042, 8900, "broken", key("a"))
    create_shop(database)
    create_shop(tmp_path / "other.db")

    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(tmp_path / "other.db")) as two:
        assert list(one.iterdump()) == list(two.iterdump())


def test_new_shop_ignores_what_a_killed_worker_left(database: Path) -> None:
    killed = "from mandate.workers.examples import shop_data; import os\nwith shop_data.shop() as database:\n"
    killed += "    database.execute('PRAGMA cache_size = 1'); database.execute('DELETE FROM payments');"
    killed += " database.execute('UPDATE stock SET on_hand = 1'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert database.with_name("shop.db-journal").exists()

    create_shop(database)

    assert len(rows(database, "SELECT id FROM payments")) == 16
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]


def test_missing_shop_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "none.db"
    monkeypatch.setenv("MANDATE_DEMO_SHOP", str(path))

    with pytest.raises(NotDone) as caught:
        shop.send_customer_note(1042, "hello")

    assert str(caught.value).startswith(f"there is no shop at {str(path)!r}; 'mandate demo' makes one")
    assert not path.exists()


async def test_rules_are_served_over_mcp() -> None:
    server = StdioServerParameters(command=sys.executable, args=["-m", "mandate.workers.examples.shop_rules_server"])

    async with Client(server) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        listed = await client.call_tool("list_directory", {"path": "."})
        rule = await client.call_tool("read_text_file", {"path": "goodwill.md"})
        missing = await client.call_tool("read_text_file", {"path": "../shop.py"})

    assert tools == {"list_directory", "read_text_file"}
    assert [part.text for part in listed.content] == [
        "[FILE] damaged-goods.md\n[FILE] goodwill.md\n[FILE] restocking.md\n[FILE] return-window.md"
    ]
    assert rule.content[0].text.startswith("# Goodwill\n")
    assert missing.is_error
    assert "there is no file '../shop.py'; there are damaged-goods.md, goodwill.md" in missing.content[0].text


VOUCHER_DENIED = "rule 'vouchers' denies issue_voucher"


async def carried_out(call: CallPart, spec: AgentSpec) -> ResultPart:
    """What `call` of the shop's agent answers."""
    functions = {entry.python.split(":")[1]: entry for entry in spec.tools if isinstance(entry, PythonTool)}
    denied = {tool for rule in spec.policy if rule.verdict == "deny" for tool in rule.match.tools or ()}
    arguments = json.loads(call.arguments)
    answer: object
    if call.tool in denied:
        answer = VOUCHER_DENIED
    elif call.tool in functions:
        function = load_function(functions[call.tool].python)
        if "context" in function.__annotations__:
            arguments["context"] = key(call.call_id)
        answer = await asyncio.to_thread(function, **arguments)
    else:
        answer = getattr(shop_rules_server, call.tool)(**arguments)
    text = answer if isinstance(answer, str) else to_json(answer).decode()
    return ResultPart(kind="result", call_id=call.call_id, tool=call.tool, text=text, error=answer == VOUCHER_DENIED)


def demo_agent() -> AgentSpec:
    return AgentSpec.model_validate(read_document(AGENTS / "shop.yaml").value)


ASKED = Conversation([UserMessage(role="user", parts=(TextPart(kind="text", text=DEMO_INPUT),))])


async def answered(model: str, conversation: Conversation) -> AssistantMessage:
    prompt = Prompt(
        model.removeprefix("scripted:"), "", (), "a" * 43, conversation, 100, timedelta(seconds=5), attempt=1
    )
    return (await ScriptedProvider([AGENTS]).complete(prompt)).message


async def test_demo_is_played_from_the_order_to_the_answer(database: Path) -> None:
    spec, conversation = demo_agent(), ASKED
    calls: list[str] = []
    while (message := await answered(spec.models[0], conversation)).calls:
        calls += [call.tool for call in message.calls]
        results = tuple([await carried_out(call, spec) for call in message.calls])
        conversation = conversation.extend(message, UserMessage(role="user", parts=results))

    assert len(conversation) == 15
    assert calls.count("issue_voucher") == 1
    assert "Refunded 106.90 EUR to PayPal, to which finance agreed" in message.text
    assert rows(database, "SELECT amount_cents FROM refunds") == [(10690,)]
    assert rows(database, "SELECT on_hand FROM stock WHERE sku IN ('KET-01', 'FIL-02') ORDER BY sku") == [(16,), (6,)]
    assert rows(database, "SELECT count(*) FROM vouchers") == [(0,)]
    assert rows(database, 'SELECT "order", recipient FROM outbox') == [(1042, "ada.brandt@example.com")]


@pytest.mark.parametrize(
    ("told", "is_expected"),
    [
        ('{"refund":1,"order":1042,"amount_cents":10690,"method":"PayPal","amount":"106.90 EUR"}', True),
        ('[ann approved it: fine]\n{"refund":1,"order":1042,"amount_cents":10690,"method":"PayPal"}', True),
        ('[ann changed this call]\n{"refund":1,"order":1042,"amount_cents":8900,"method":"PayPal"}', False),
        ("refused: ann rejected it (no photo)", False),
        ("refused: nobody decided before 2026-11-02 09:00 UTC", False),
    ],
)
async def test_second_script_goes_on_when_the_refund_is_not_what_the_first_expects(
    database: Path, told: str, is_expected: bool
) -> None:
    spec, conversation = demo_agent(), ASKED
    while (message := await answered(spec.models[0], conversation)).calls[0].tool != "issue_refund":
        results = tuple([await carried_out(call, spec) for call in message.calls])
        conversation = conversation.extend(message, UserMessage(role="user", parts=results))
    (call,) = message.calls
    refused = told.startswith("refused")
    part = ResultPart(kind="result", call_id=call.call_id, tool=call.tool, text=told, error=refused)
    conversation = conversation.extend(message, UserMessage(role="user", parts=(part,)))

    if is_expected:
        assert (await answered(spec.models[0], conversation)).calls
        return
    with pytest.raises(ApplicationError, match=r"turn 5: issue_refund: expected"):
        await answered(spec.models[0], conversation)
    message = await answered(spec.models[1], conversation)
    assert not message.calls
    assert told in message.text


async def test_another_question_is_told_what_the_script_is() -> None:
    asked = Conversation([UserMessage(role="user", parts=(TextPart(kind="text", text="Sell me a mug"),))])
    prompt = Prompt("shop.script.yaml", "", (), "a" * 43, asked, 100, timedelta(seconds=5), 1)

    message = (await ScriptedProvider([AGENTS]).complete(prompt)).message

    assert message.text.startswith("I am a script and know one story only. Ask me about order 1042")
