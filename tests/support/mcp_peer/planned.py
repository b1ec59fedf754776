"""An MCP server over stdio that answers by a plan and keeps a journal: `planned`, with `PLAN` and `JOURNAL` set.

The plan is JSON in the environment: `pages` of tools, and by the name of a tool in `calls` an answer, `die` or
`nothing`; `start_seconds` pass before the first answer, and with `exit` the server does not start. The journal has one
JSON line for each start and each message.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def record(**entry: object) -> None:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(json.dumps(entry) + "\n")


def main(_: Sequence[str]) -> None:
    plan = json.loads(os.environ["PLAN"])
    record(start=os.getpid())
    print("token is", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
    time.sleep(plan.get("start_seconds", 0))
    if plan.get("exit"):
        print("cannot open the database", file=sys.stderr, flush=True)
        time.sleep(0.1)
        sys.exit(1)
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message["method"], message.get("params", {})
        record(method=method, params=params)
        if "id" not in message:
            continue
        answer: Any = {"error": {"code": -32601, "message": "no such method"}}
        if method == "initialize":
            answer = {
                "result": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "peer", "version": "1"},
                }
            }
        elif method == "tools/list":
            pages, page = plan["pages"], int(params.get("cursor") or 0)
            answer = {"result": {"tools": pages[page]}}
            if page + 1 < len(pages):
                answer["result"]["nextCursor"] = str(page + 1)
        elif method == "tools/call":
            answer = plan["calls"].get(params["name"], answer)
            if answer == "die":
                os._exit(1)
            if answer == "nothing":
                continue
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
