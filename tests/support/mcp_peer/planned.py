"""An MCP server that answers by a plan and keeps a journal: `planned [http]`, with `PLAN` and `JOURNAL` set.

The plan is JSON in the environment: `pages` of tools, and by the name of a tool in `calls` an answer, `die` or
`nothing`; `start_seconds` pass before the first answer, and with `exit` the server does not start. `protocol` is the
version that it speaks. The journal has one JSON line for each start and each message.

An answer may be `{"raw": HEX}`: these bytes, with `@ID@` for the request's id, instead of it; `{"before": HEX, ...}`
are bytes before it, as many `times`; `{"answers": [...]}` are those of one call after another, the last one for ever.
Over HTTP `{"status": 429, "headers": {...}, "body": "..."}` is a refusal; `sessions` says that there are some, and
`forgets` after how many calls they are forgotten, with which status; `refuses` is the refusal of each handshake.
"""

import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODERN = "2026-07-28"


def record(**entry: object) -> None:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(json.dumps(entry) + "\n")


class Plan:
    """Answers of one server."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.is_modern = plan.get("protocol") == MODERN
        self._calls: dict[str, int] = {}

    def answer(self, message: dict[str, Any]) -> Any:
        """Return what is said to a request: members of a message, `die`, `nothing`, or something raw."""
        params = message.get("params", {})
        match message["method"]:
            case "initialize" if not self.is_modern:
                version = self.plan.get("protocol", "2025-11-25")
                server = {"name": "peer", "version": "1"}
                return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}}
            case "server/discover" if self.is_modern:
                return self._whole({"supportedVersions": [MODERN], "capabilities": {"tools": {}}, **_CACHED})
            case "tools/list":
                pages, page = self.plan["pages"], int(params.get("cursor") or 0)
                more = {"nextCursor": str(page + 1)} if page + 1 < len(pages) else {}
                tools = {"tools": pages[page], **more}
                if self.plan.get("bare_pages"):
                    return {"result": tools}
                return self._whole({**tools, **(_CACHED if self.is_modern else {})})
            case "tools/call":
                return self._call(params["name"])
        return {"error": {"code": -32601, "message": "no such method"}}

    def _call(self, name: str) -> Any:
        self._calls[name] = self._calls.get(name, 0) + 1
        answer = self.plan["calls"].get(name, {"error": {"code": -32601, "message": "no such method"}})
        if isinstance(answer, dict) and "answers" in answer:
            answer = answer["answers"][min(self._calls[name], len(answer["answers"])) - 1]
        return answer

    def _whole(self, result: dict[str, Any]) -> dict[str, Any]:
        return {"result": {**result, **({"resultType": "complete"} if self.is_modern else {})}}


_CACHED = {"ttlMs": 0, "cacheScope": "private"}


def packed(message: dict[str, Any], answer: dict[str, Any]) -> bytes:
    """Return the bytes of an answer."""
    if "raw" in answer:
        return bytes.fromhex(answer["raw"]).replace(b"@ID@", json.dumps(message["id"]).encode())
    before = bytes.fromhex(answer.get("before", "")) * answer.get("times", 1) + b"\n" * answer.get("lines", 0)
    members = {key: value for key, value in answer.items() if key not in ("before", "times", "lines")}
    return before + json.dumps({"jsonrpc": "2.0", "id": message["id"], **members}).encode()


def main(words: Sequence[str]) -> None:
    plan = json.loads(os.environ["PLAN"])
    record(start=os.getpid())
    print("token is", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
    time.sleep(plan.get("start_seconds", 0))
    if plan.get("exit"):
        print("cannot open the database", file=sys.stderr, flush=True)
        time.sleep(0.1)
        sys.exit(1)
    if "http" in words:
        serve_http(Plan(plan))
    else:
        serve_stdio(Plan(plan))


def serve_stdio(plan: Plan) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        record(method=message.get("method"), params=message.get("params", {}))
        if "id" not in message or "method" not in message:
            continue
        answer = plan.answer(message)
        if answer == "die":
            os._exit(1)
        if answer == "hang":
            time.sleep(3600)
        if answer == "nothing":
            continue
        sys.stdout.buffer.write(packed(message, answer) + b"\n")
        sys.stdout.buffer.flush()


class HttpPeer:
    """Sessions of a server over HTTP."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._sessions: set[str] = set()
        self._calls = 0

    def open_session(self) -> dict[str, str]:
        if not self.plan.plan.get("sessions"):
            return {}
        session = f"s{len(self._sessions)}-{time.monotonic_ns()}"
        self._sessions.add(session)
        return {"mcp-session-id": session}

    def has_forgotten(self, session: str | None) -> bool:
        forgets = self.plan.plan.get("forgets")
        if forgets is None:
            return False
        self._calls += 1
        if self._calls == forgets["calls"] or forgets.get("always"):
            self._sessions.clear()
        return session not in self._sessions

    def respond(self, message: dict[str, Any], session: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers."""
        headers = self.open_session() if message["method"] == "initialize" else {}
        if message["method"] == "tools/call" and self.has_forgotten(session):
            forgets = self.plan.plan["forgets"]
            body = forgets.get("body", "")
            media = "application/json" if body.startswith("{") else "text/plain"
            return forgets.get("status", 404), body.encode(), {"content-type": media}
        answer = self.plan.answer(message)
        if "refuses" in self.plan.plan and message["method"] in ("initialize", "server/discover"):
            answer = self.plan.plan["refuses"]
        if answer in ("hang", "nothing"):
            threading.Event().wait(3600)
        if answer == "die":
            os._exit(1)
        headers |= answer.get("headers", {})
        if "status" in answer:
            return answer["status"], answer.get("body", "").encode(), headers
        body = packed(message, answer)
        if self.plan.plan.get("events"):
            whole = b"event: message\ndata: " + body + b"\n\n" if "content-encoding" not in headers else body
            return 200, whole, {"content-type": "text/event-stream", **headers}
        media = self.plan.plan.get("media", "application/json")
        return 200, body, {**({"content-type": media} if media else {}), **headers}


def serve_http(plan: Plan) -> None:
    peer = HttpPeer(plan)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            session = self.headers.get("mcp-session-id")
            record(method=message.get("method"), params=message.get("params", {}), session=session)
            is_request = "id" in message and "method" in message
            self._send(*(peer.respond(message, session) if is_request else (202, b"", {})))

        def do_GET(self) -> None:
            self._send(405, b"", {})

        def do_DELETE(self) -> None:
            self._send(200, b"", {})

        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record(port=server.server_address[1])
    server.serve_forever()
