"""The demo's shop: its database, and what is in it on the first day.

    python -m mandate.workers.examples.shop_data

makes a new one, in `.mandate/shop.db` or where `MANDATE_DEMO_SHOP` says.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mandate import NotDone
from mandate.activities import private_files

DEMO_INPUT = (
    "Order 1042 arrived damaged; the customer asks for a refund. She wrote on 2026-11-09. The parcel is back with us:"
    " the kettle is broken, the two packs of filters are unopened."
)
RULES = Path(__file__).parent / "shop_rules"
"""The return rules, for the filesystem MCP server; `shop_rules_server` serves the same files."""

_SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE);
CREATE TABLE stock (
  sku TEXT PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL CHECK (price_cents > 0),
  on_hand INTEGER NOT NULL CHECK (on_hand >= 0)
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, status TEXT NOT NULL
  CHECK (status IN ('paid', 'shipped', 'delivered', 'cancelled')), ordered_on TEXT NOT NULL, delivered_on TEXT,
  shipping_cents INTEGER NOT NULL
);
CREATE TABLE order_lines (
  "order" INTEGER NOT NULL REFERENCES orders, sku TEXT NOT NULL REFERENCES stock,
  quantity INTEGER NOT NULL CHECK (quantity > 0), unit_price_cents INTEGER NOT NULL, PRIMARY KEY ("order", sku)
);
CREATE TABLE payments (
  id INTEGER PRIMARY KEY, "order" INTEGER NOT NULL REFERENCES orders, method TEXT NOT NULL,
  amount_cents INTEGER NOT NULL CHECK (amount_cents > 0), paid_on TEXT NOT NULL
);
CREATE TABLE refunds (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, payment INTEGER NOT NULL REFERENCES payments,
  amount_cents INTEGER NOT NULL CHECK (amount_cents > 0), reason TEXT NOT NULL
);
CREATE TABLE vouchers (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, customer INTEGER NOT NULL REFERENCES customers,
  amount_cents INTEGER NOT NULL CHECK (amount_cents > 0)
);
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY, "order" INTEGER NOT NULL REFERENCES orders, recipient TEXT NOT NULL, text TEXT NOT NULL
);
"""

_CUSTOMERS = [
    (1, "Ada Brandt", "ada.brandt@example.com"),
    (2, "Jonas Keller", "jonas.keller@example.com"),
    (3, "Mina Okafor", "mina.okafor@example.com"),
    (4, "Luis Ferrer", "luis.ferrer@example.com"),
    (5, "Sofie Lindqvist", "sofie.lindqvist@example.com"),
    (6, "Tom Aldridge", "tom.aldridge@example.com"),
    (7, "Yuki Tanabe", "yuki.tanabe@example.com"),
    (8, "Noor Haddad", "noor.haddad@example.com"),
]
_STOCK = [
    ("KET-01", "Gooseneck kettle, 1.0 l", 8_900, 6),
    ("FIL-02", "Paper filters, 100 pieces", 650, 14),
    ("MUG-11", "Stoneware mug, blue", 1_800, 41),
    ("MUG-12", "Stoneware mug, sand", 1_800, 0),
    ("GRI-05", "Hand grinder, steel burrs", 11_900, 9),
    ("SCA-03", "Kitchen scale, 0.1 g", 3_450, 17),
    ("DRI-07", "Dripper, porcelain", 2_400, 23),
    ("CAR-04", "Glass carafe, 600 ml", 2_950, 12),
    ("BEA-20", "Coffee beans, 1 kg, Huila", 2_890, 58),
    ("BEA-21", "Coffee beans, 1 kg, Sidamo", 3_150, 36),
]
_ORDERS = [
    (1031, 2, "delivered", "2026-09-02", "2026-09-05", 490, [("GRI-05", 1)]),
    (1032, 5, "delivered", "2026-09-11", "2026-09-15", 0, [("BEA-20", 2), ("BEA-21", 2)]),
    (1033, 3, "delivered", "2026-09-18", "2026-09-22", 490, [("MUG-11", 4)]),
    (1034, 7, "cancelled", "2026-09-20", None, 490, [("CAR-04", 1)]),
    (1035, 4, "delivered", "2026-09-29", "2026-10-02", 490, [("DRI-07", 1), ("FIL-02", 3)]),
    (1036, 6, "delivered", "2026-10-03", "2026-10-07", 0, [("KET-01", 1), ("SCA-03", 1)]),
    (1037, 8, "delivered", "2026-10-09", "2026-10-12", 490, [("MUG-12", 2), ("MUG-11", 2)]),
    (1038, 1, "delivered", "2026-10-12", "2026-10-15", 490, [("BEA-20", 1)]),
    (1039, 2, "delivered", "2026-10-19", "2026-10-23", 0, [("GRI-05", 1), ("BEA-21", 1)]),
    (1040, 5, "delivered", "2026-10-24", "2026-10-28", 490, [("SCA-03", 2)]),
    (1041, 3, "delivered", "2026-10-30", "2026-11-03", 490, [("CAR-04", 1), ("DRI-07", 1)]),
    (1042, 1, "delivered", "2026-11-02", "2026-11-06", 490, [("KET-01", 1), ("FIL-02", 2)]),
    (1043, 7, "delivered", "2026-11-05", "2026-11-10", 490, [("MUG-11", 2)]),
    (1044, 4, "shipped", "2026-11-12", None, 0, [("GRI-05", 1), ("FIL-02", 4)]),
    (1045, 6, "shipped", "2026-11-16", None, 490, [("BEA-21", 3)]),
    (1046, 8, "paid", "2026-11-19", None, 490, [("KET-01", 1)]),
]  # fmt: skip
_METHODS = ("Visa ending 4417", "PayPal", "SEPA debit", "Mastercard ending 0921")


def shop_path() -> Path:
    """Return the path of the shop's database: `MANDATE_DEMO_SHOP`, or `.mandate/shop.db`.

    Tools run in worker processes that nobody hands a path to, so they read the environment here and only here.
    """
    return Path(os.environ.get("MANDATE_DEMO_SHOP") or ".mandate/shop.db")


def bank_seconds() -> float:
    """Return the time that the bank takes to confirm a refund: `MANDATE_DEMO_BANK_SECONDS`, or none at all.

    A slow bank gives the demo the time to kill a worker that has paid and told nobody yet.
    """
    return float(os.environ.get("MANDATE_DEMO_BANK_SECONDS") or 0)


def lose_reply(tool: str) -> None:
    """Fail as a broken line does, after everything was done, if `MANDATE_DEMO_LOST_REPLIES` names `tool`.

    Raises:
        ConnectionError: whoever made the call is not told what came of it.
    """
    if tool in (os.environ.get("MANDATE_DEMO_LOST_REPLIES") or "").split(","):
        raise ConnectionError("the line broke before the reply came")


def create_shop(path: Path) -> None:
    """Create a shop as on its first day at `path`; replace one that is there."""
    private_files.make_folder(path.parent)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    private_files.open_own(fresh, "wb").close()
    with closing(sqlite3.connect(fresh)) as database:
        database.executescript(_SCHEMA)
        _fill(database)
        database.commit()
    # Left by a worker that was killed while it wrote: SQLite would play it into the new file.
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    fresh.replace(path)


@contextmanager
def shop() -> Iterator[sqlite3.Connection]:
    """Open a transaction on the shop: committed at the end, rolled back when anything is raised.

    Raises:
        NotDone: there is no shop, or others hold it for longer than five seconds; nothing was changed.
    """
    path = shop_path()
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5, isolation_level=None)
    except sqlite3.OperationalError:
        raise NotDone(
            f"there is no shop at {str(path)!r}; 'mandate demo' makes one, and MANDATE_DEMO_SHOP says where it is"
        ) from None
    with closing(database):
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA foreign_keys = ON")
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            raise NotDone("the shop is busy", retry_after=1.0) from None
        try:
            yield database
        except BaseException:
            database.rollback()
            raise
        database.commit()


def _fill(database: sqlite3.Connection) -> None:
    prices = {sku: price for sku, _, price, _ in _STOCK}
    database.executemany("INSERT INTO customers VALUES (?, ?, ?)", _CUSTOMERS)
    database.executemany("INSERT INTO stock VALUES (?, ?, ?, ?)", _STOCK)
    for number, (order, customer, status, ordered_on, delivered_on, shipping, lines) in enumerate(_ORDERS):
        total = shipping + sum(prices[sku] * quantity for sku, quantity in lines)
        method = _METHODS[customer % len(_METHODS)]
        row = (order, customer, status, ordered_on, delivered_on, shipping)
        database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", row)
        database.executemany(
            "INSERT INTO order_lines VALUES (?, ?, ?, ?)", [(order, sku, count, prices[sku]) for sku, count in lines]
        )
        database.execute(
            "INSERT INTO payments VALUES (?, ?, ?, ?, ?)", (501 + number, order, method, total, ordered_on)
        )


if __name__ == "__main__":
    create_shop(shop_path())
    print(f"{shop_path()} is a new shop")
