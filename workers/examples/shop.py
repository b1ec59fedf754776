"""Tools of the demo's shop: ordinary functions over a SQLite file, each with what a call does to the world."""

import sqlite3
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field

from mandate import NotDone, ToolContext, tool
from mandate.workers.examples.shop_data import bank_seconds, lose_reply, shop

Order = Annotated[int, Field(ge=1, description="Number of the order.")]
Sku = Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{2}$", description="Article number, for example `MUG-11`.")]
Cents = Annotated[int, Field(ge=1, description="Euro cents.")]


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    name: str
    quantity: int
    unit_price_cents: int


@dataclass(frozen=True, slots=True)
class OrderDetails:
    order: int
    status: str
    customer: str
    email: str
    ordered_on: str
    delivered_on: str | None
    lines: list[Line]
    shipping_cents: int
    total_cents: int
    total: str


@dataclass(frozen=True, slots=True)
class Payment:
    payment: int
    method: str
    amount_cents: int
    paid_on: str
    refunded_cents: int


@dataclass(frozen=True, slots=True)
class Stock:
    sku: str
    name: str
    price_cents: int
    on_hand: int


@dataclass(frozen=True, slots=True)
class Refund:
    refund: int
    order: int
    amount_cents: int
    method: str
    amount: str


@dataclass(frozen=True, slots=True)
class FoundRefund:
    """Outcome of a call of `issue_refund`; its result follows where it was done."""

    done: bool
    refund: int | None = None
    order: int | None = None
    amount_cents: int | None = None
    method: str | None = None
    amount: str | None = None


@tool(effect="read", timeout="10s")
def lookup_order(order: Order) -> OrderDetails:
    """Look up an order: who ordered what and when, what it cost, and whether it was delivered."""
    with shop() as database:
        found = _order(database, order)
        lines = database.execute(
            'SELECT sku, name, quantity, unit_price_cents FROM order_lines JOIN stock USING (sku) WHERE "order" = ?'
            " ORDER BY order_lines.rowid",
            (order,),
        ).fetchall()
    total = found["shipping_cents"] + sum(line["quantity"] * line["unit_price_cents"] for line in lines)
    return OrderDetails(
        order=order,
        status=found["status"],
        customer=found["name"],
        email=found["email"],
        ordered_on=found["ordered_on"],
        delivered_on=found["delivered_on"],
        lines=[Line(**dict(line)) for line in lines],
        shipping_cents=found["shipping_cents"],
        total_cents=total,
        total=_euros(total),
    )


@tool(effect="read", timeout="10s")
def list_payments(order: Order) -> list[Payment]:
    """List the payments of an order, each with what was refunded of it."""
    with shop() as database:
        _order(database, order)
        return [Payment(**dict(payment)) for payment in _payments(database, order)]


@tool(effect="read", timeout="10s")
def check_stock(sku: Sku) -> Stock:
    """Look up how many pieces of an article are on the shelf, and its price."""
    with shop() as database:
        return _stock(database, sku)


@tool(effect="keyed", timeout="20s", tags=["money"])
def issue_refund(
    order: Order,
    amount_cents: Cents,
    reason: Annotated[str, Field(min_length=3, max_length=200, description="For the books.")],
    context: ToolContext,
) -> Refund:
    """Pay money of an order back to where it came from; never more than was paid."""
    with shop() as database:
        _order(database, order)
        if _refund(database, context.idempotency_key) is None:
            payment = _payment_for(database, order, amount_cents)
            database.execute(
                "INSERT INTO refunds (key, payment, amount_cents, reason) VALUES (?, ?, ?, ?)",
                (context.idempotency_key, payment, amount_cents, reason),
            )
        refund = _refund(database, context.idempotency_key)
    context.wait(bank_seconds())
    assert refund is not None
    lose_reply("issue_refund")
    return refund


@tool(effect="read", timeout="10s")
def find_refund(
    key: Annotated[str, Field(min_length=1, max_length=200, description="Idempotency key of the refund.")],
) -> FoundRefund:
    """Look into the books whether a refund was made under this idempotency key."""
    with shop() as database:
        refund = _refund(database, key)
    return FoundRefund(done=False) if refund is None else FoundRefund(done=True, **asdict(refund))


@tool(effect="keyed", timeout="20s", tags=["money"])
def issue_voucher(order: Order, amount_cents: Cents, context: ToolContext) -> str:
    """Give the customer of an order a voucher as a goodwill gesture."""
    with shop() as database:
        customer = _order(database, order)["customer"]
        database.execute(
            "INSERT INTO vouchers (key, customer, amount_cents) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
            (context.idempotency_key, customer, amount_cents),
        )
    return f"voucher over {_euros(amount_cents)} issued"


@tool(effect="idempotent", timeout="10s")
def restock_item(
    sku: Sku,
    on_hand: Annotated[int, Field(ge=0, le=10_000, description="Pieces on the shelf once it is done.")],
) -> Stock:
    """Set how many pieces of an article are on the shelf."""
    with shop() as database:
        database.execute("UPDATE stock SET on_hand = ? WHERE sku = ?", (on_hand, sku))
        return _stock(database, sku)


@tool(effect="once", timeout="10s", tags=["customer"])
def send_customer_note(
    order: Order, text: Annotated[str, Field(min_length=1, max_length=2_000, description="The whole text.")]
) -> str:
    """Send the customer of an order an email."""
    with shop() as database:
        recipient = _order(database, order)["email"]
        database.execute('INSERT INTO outbox ("order", recipient, text) VALUES (?, ?, ?)', (order, recipient, text))
        sent = database.execute("SELECT count(*) FROM outbox").fetchone()[0]
    if sent == 1:
        lose_reply("send_customer_note")
    return f"sent to {recipient}"


def _order(database: sqlite3.Connection, order: int) -> sqlite3.Row:
    query = "SELECT orders.*, name, email FROM orders JOIN customers ON customer = customers.id WHERE orders.id = ?"
    found: sqlite3.Row | None = database.execute(query, (order,)).fetchone()
    if found is None:
        raise NotDone(f"there is no order {order}")
    return found


def _stock(database: sqlite3.Connection, sku: str) -> Stock:
    found = database.execute("SELECT sku, name, price_cents, on_hand FROM stock WHERE sku = ?", (sku,)).fetchone()
    if found is None:
        raise NotDone(f"there is no article {sku!r}")
    return Stock(**dict(found))


def _payments(database: sqlite3.Connection, order: int) -> list[sqlite3.Row]:
    return database.execute(
        "SELECT payments.id AS payment, method, payments.amount_cents, paid_on,"
        " coalesce(sum(refunds.amount_cents), 0) AS refunded_cents"
        " FROM payments LEFT JOIN refunds ON refunds.payment = payments.id"
        ' WHERE "order" = ? GROUP BY payments.id ORDER BY payments.id',
        (order,),
    ).fetchall()


def _payment_for(database: sqlite3.Connection, order: int, amount_cents: int) -> int:
    """Return the payment that can give `amount_cents` back."""
    payments = _payments(database, order)
    for payment in payments:
        if payment["amount_cents"] - payment["refunded_cents"] >= amount_cents:
            return int(payment["payment"])
    left = max((payment["amount_cents"] - payment["refunded_cents"] for payment in payments), default=0)
    raise NotDone(f"{_euros(amount_cents)} is more than order {order} can be given back: {_euros(left)}")


def _refund(database: sqlite3.Connection, key: str) -> Refund | None:
    found = database.execute(
        'SELECT refunds.id AS refund, "order", refunds.amount_cents, method FROM refunds'
        " JOIN payments ON payment = payments.id WHERE key = ?",
        (key,),
    ).fetchone()
    return None if found is None else Refund(**dict(found), amount=_euros(found["amount_cents"]))


def _euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d} EUR"
