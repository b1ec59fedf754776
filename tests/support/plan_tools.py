"""Tools of the proof by plans, of each effect: what they return follows from where they are called and with what."""

import hashlib
import json
import os
import random
import threading
import time
from typing import Any

from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from tests.support.plan_book import Book, open_book
from tests.support.plan_points import die_at

LONGEST = float(os.environ.get("MANDATE_TEST_LONGEST", "0.15"))
"""Seconds that a call takes at most."""

_lock = threading.Lock()


def make_output(tool_name: str, place: str, given: Any) -> str:
    """Return the output of a call: other input, or that of another step, makes another one."""
    content = json.dumps([tool_name, place, given], sort_keys=True)
    return f"{tool_name}:{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def find_unit(place: str, key: str, context: ToolContext) -> str:
    """Return what a call belongs to: itself in the outermost plan, else the run below it."""
    return key if context.workflow_id == place.split("/", maxsplit=1)[0] else context.workflow_id


def _begin(book: Book, name: str, place: str, fail: str, context: ToolContext) -> tuple[str, str]:
    """Note that a call begins; refuse it if it is one of the first `fail` of its place."""
    key = context.idempotency_key
    unit = find_unit(place, key, context)
    with _lock:
        book.write(place, name, key, unit, "began")
        with book.at_once():
            is_refused = book.has(key, "refused") or book.count_refused(place, key) < int(fail)
            if is_refused:
                book.write(place, name, key, unit, "refused")
                book.write(place, name, key, unit, "ended")
    if is_refused:
        raise NotDone("refused")
    time.sleep(random.Random(f"{place} {name}").uniform(0.0, LONGEST))
    return key, unit


def _end(book: Book, name: str, place: str, key: str, unit: str) -> None:
    with _lock:
        book.write(place, name, key, unit, "ended")


@tool(effect="read", timeout="60s")
def look(place: str, given: Any, fail: str, context: ToolContext) -> str:
    """Look at something."""
    book = open_book()
    key, unit = _begin(book, "look", place, fail, context)
    die_at("read")
    _end(book, "look", place, key, unit)
    return make_output("look", place, given)


@tool(effect="keyed", timeout="60s")
def pay(place: str, given: Any, fail: str, context: ToolContext) -> str:
    """Pay something; the receiver knows keys."""
    book = open_book()
    key, unit = _begin(book, "pay", place, fail, context)
    die_at("before_effect")
    with _lock, book.at_once():
        if not book.has(key, "done"):
            book.write(place, "pay", key, unit, "done")
    die_at("after_effect")
    _end(book, "pay", place, key, unit)
    return make_output("pay", place, given)


@tool(effect="once", timeout="60s")
def send(place: str, given: Any, fail: str, context: ToolContext) -> dict[str, Any]:
    """Send something; the receiver knows no keys, but can be asked for one."""
    book = open_book()
    key, unit = _begin(book, "send", place, fail, context)
    die_at("before_once")
    with _lock, book.at_once():
        is_closed = book.has(key, "closed")
        if not is_closed:
            book.write(place, "send", key, unit, "done")
    if is_closed:
        raise NotDone("it was said that this one does not come any more")
    die_at("after_once")
    _end(book, "send", place, key, unit)
    return {"state": "booked", "sent": make_output("send", place, None)}


@tool(effect="read", timeout="60s")
def find_send(key: str, context: ToolContext) -> dict[str, Any]:
    """Look up a call of `send`; one that is not there does not come any more."""
    book = open_book()
    with _lock, book.at_once():
        place = book.find_place(key)
        if place is None:
            book.write("", "send", key, context.workflow_id, "closed")
    if place is None:
        return {"state": "rejected"}
    with _lock:
        book.write(place, "send", key, find_unit(place, key, context), "ended")
    return {"state": "booked", "sent": make_output("send", place, None)}
