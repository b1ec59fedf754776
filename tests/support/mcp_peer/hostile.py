"""An MCP server that does its worst: `hostile WAY[,WAY...]`; ways are the functions below and in `LISTS`.

It runs on the standard library alone, so that it starts at once.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

OUT = sys.stdout.buffer


def deaf() -> None:
    """Hear neither SIGTERM nor SIGINT, and go on when stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def parent() -> None:
    """Have a deaf child that holds the pipes open."""
    subprocess.Popen([sys.executable, "-S", "-c", DEAF])


def heir() -> None:
    """Leave such a child behind, and end."""
    parent()
    time.sleep(0.5)
    os._exit(0)


def silent() -> None:
    """Answer nothing."""
    while True:
        time.sleep(60)


def chatter() -> None:
    """Write to stderr without end, in short lines."""
    threading.Thread(target=lambda: _write_on(2, b"x\n" * 30_000), daemon=True).start()


def noise() -> None:
    """Write lines that are no messages without end, instead of answers."""
    _write_on(1, b"starting...\n" * 5000)


def news() -> None:
    """Write notifications without end, instead of answers."""
    told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
    _write_on(1, (json.dumps(told) + "\n").encode() * 1000)


def line() -> None:
    """Write one line without end, instead of answers."""
    _write_on(1, b"x" * 65536)


def garbage() -> None:
    """Write bytes that are no text."""
    _write_on(1, os.urandom(65536))


def _write_on(descriptor: int, piece: bytes) -> None:
    while True:
        try:
            os.write(descriptor, piece)
        except OSError:
            time.sleep(60)


DEAF = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
time.sleep(300)
"""


def tool(name: str, **more: object) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def doubling(levels: int) -> dict[str, Any]:
    """Definitions that each refer to the next twice."""
    twice: dict[str, object] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)
    }
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": {**twice, f"d{levels}": {"type": "object"}}}


def compiled(number: int, counts: range) -> dict[str, Any]:
    """Patterns that take long to compile, and that no other schema has."""
    patterns = {f"p{number}_{count}": {"pattern": rf"(\w|\p{{L}}){{{count}}}x"} for count in counts}
    return {"type": "object", "properties": patterns}


LISTS: dict[str, Callable[[], list[Any]]] = {
    "many": lambda: [tool(f"t{n}") for n in range(20_000)],
    "wrong": lambda: [{}] * 900,
    "crumbs": lambda: [{}] * 1_000_000,
    "name": lambda: [tool("n" * 200)],
    "description": lambda: [tool("d", description="x" * 100_000)],
    "schema": lambda: [tool("s", inputSchema={"type": "object", "properties": {f"p{n}": {} for n in range(30_000)}})],
    "doubling": lambda: [tool("r", inputSchema=doubling(60))],
    "patterns": lambda: [tool("p", inputSchema=compiled(0, range(300)))],
    "compiling": lambda: [tool(f"c{n}", inputSchema=compiled(n, range(n % 40, n % 40 + 15))) for n in range(1000)],
}  # fmt: skip


WAYS = {way.__name__: way for way in (deaf, parent, heir, silent, chatter, noise, news, line, garbage)}


def main(words: Sequence[str]) -> None:
    ways = words[0].split(",")
    for way in ways:
        if way in WAYS:
            WAYS[way]()
    lists = next((LISTS[way] for way in ways if way in LISTS), lambda: [tool("look")])
    page = 0
    for sent in sys.stdin:
        message = json.loads(sent)
        if "id" not in message:
            continue
        answer: dict[str, object] = {"error": {"code": -32601, "message": "no such method"}}
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            server = {"name": "hostile", "version": "1"}
            answer = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}}
        elif message["method"] == "tools/list":
            listed = {"tools": [tool(f"page{page}")], "nextCursor": "more"} if "pages" in ways else {"tools": lists()}
            answer, page = {"result": listed}, page + 1
        OUT.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}).encode() + b"\n")
        OUT.flush()
    if "deaf" in ways:
        time.sleep(300)
