"""Tools that write down, in a file, each time they are called: what survives the process that they run in."""

import asyncio
import json
import os
import time
from pathlib import Path

from mandate.activities.toolbox.decorator import ToolContext, tool

JOURNAL = "MANDATE_TEST_JOURNAL"
LONG = 60.0
"""Seconds that a first attempt takes: far longer than the worker lives."""


def _wrote(name: str, word: str, context: ToolContext) -> str:
    entry = {
        "tool": name,
        "word": word,
        "run": context.workflow_id,
        "attempt": context.attempt,
        "key": context.idempotency_key,
        "pid": os.getpid(),
        "at": time.time(),
    }
    with Path(os.environ[JOURNAL]).open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    return f"{word}: attempt {context.attempt}"


@tool(effect="read", timeout="90s")
def note(word: str, context: ToolContext) -> str:
    """Answer at once."""
    return _wrote("note", word, context)


@tool(effect="read", timeout="90s")
def read_slowly(word: str, context: ToolContext) -> str:
    """Read something; the first attempt takes long."""
    said = _wrote("read_slowly", word, context)
    if context.attempt == 1:
        context.wait(LONG)
    return said


@tool(effect="read", timeout="90s")
def read_first_slowly(word: str, context: ToolContext) -> str:
    """Read something; the word `middle` takes long the first time that anybody reads it."""
    is_first = '"middle"' not in Path(os.environ[JOURNAL]).read_text() if Path(os.environ[JOURNAL]).is_file() else True
    said = _wrote("read_first_slowly", word, context)
    if word == "middle" and is_first:
        context.wait(LONG)
    return said


@tool(effect="keyed", timeout="90s")
def pay_slowly(word: str, context: ToolContext) -> str:
    """Pay; the first attempt takes long."""
    said = _wrote("pay_slowly", word, context)
    if context.attempt == 1:
        context.wait(LONG)
    return said


@tool(effect="once", timeout="90s")
def send_slowly(word: str, context: ToolContext) -> str:
    """Send something; takes long."""
    said = _wrote("send_slowly", word, context)
    context.wait(LONG)
    return said


@tool(effect="keyed", timeout="90s")
async def pay_long(word: str, seconds: float, context: ToolContext) -> str:
    """Pay; takes so many seconds."""
    await asyncio.sleep(seconds)
    return _wrote("pay_long", word, context)


@tool(effect="idempotent", timeout="90s")
def compute(word: str) -> str:
    """Keep a processor busy for a while."""
    until, count = time.monotonic() + 0.3, 0
    while time.monotonic() < until:
        count += sum(range(1000))
    return word
