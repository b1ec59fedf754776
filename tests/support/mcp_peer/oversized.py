"""An MCP server over stdio whose answers are too long: `oversized LIMIT`; the name of a tool says how."""

import json
import sys
from collections.abc import Sequence
from typing import Any


def main(words: Sequence[str]) -> None:
    limit = int(words[0])
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        made: dict[str, Any] = {"error": {"code": -32601, "message": "no such method"}}
        if message["method"] == "initialize":
            made = {
                "result": {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "p", "version": "1"},
                }
            }
        elif message["method"] == "tools/list":
            names = ("fitting", "large", "id_last", "error", "endless", "small", "log")
            made = {"result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}}
        elif message["method"] == "tools/call":
            name = message["params"]["name"]
            small = {"fitting": "é" * (limit // 2 - 1000), "small": "the call is answered"}
            text = small.get(name, "x" * (limit + 1))
            made = {"result": {"content": [{"type": "text", "text": text}]}}
            if name == "error":
                made = {"error": {"code": -32602, "message": text}}
            elif name == "endless":
                while True:
                    sys.stdout.write("x" * 65536)
            elif name == "log":
                print("x" * (limit + 1), flush=True)
                print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": text}}))
                made = {"result": {"content": [{"type": "text", "text": "the call is answered"}]}}
            if name == "id_last":
                made, message = {**made, "jsonrpc": "2.0", "id": message["id"]}, {}
        made = {"jsonrpc": "2.0", "id": message["id"], **made} if message else made
        print(json.dumps(made, ensure_ascii=False), flush=True)
