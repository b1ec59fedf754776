"""An HTTP tool server that hurts its callers as it is told: `python -m tests.support.fault_server --database FILE`.

`METHOD /TOOL/RUN/ITEM` carries out one call and answers with a receipt. GET reads, PUT may be repeated, and to POST
the header `Idempotency-Key` is known: the same key gets the stored answer, unless the server runs with `--no-keys`.
`GET /calls/KEY` answers with the receipt of a call, or 404: keys are written down whether they are known or not.
Every call that is carried out is a row of a SQLite file that is on the disk before anything is answered. It is not an
`http_peer` since it must outlive its own death: effects are judged by that file.

**Faults** come from the file `--plan`: JSON, by `RUN/ITEM` a list of points (`fault_plan.Point`), one for each time
that the call arrives; what was used up is remembered over restarts. It can kill its caller (SIGKILL) before the
effect, before an effect that it still carries out, between commit and reply, or after the reply; close the connection
in place of the reply; answer 503 with `Retry-After` and do nothing; and kill itself before or after the commit: whoever
runs it starts it again.

Whom to kill is the header `X-Caller`: a pid, or with `--ask URL` a name, whose pid `GET URL/NAME` answers as soon as
that process may die. Meanwhile the call is held where it is to be hurt.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import time
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.support.fault_log import Asked, FaultLog
from tests.support.fault_plan import Point

LATE_SECONDS = 1.0
"""How long after its caller was killed an effect still comes."""

READING_SECONDS = 0.005
"""Time in which a caller that is then killed can read its reply."""

REPLIES_FIRST_SECONDS = 0.05
"""Callers are killed this late, so that what dies with them may have had its reply."""

QUIET_SECONDS = 1.0
"""The server dies when nothing has come for so long, so that it takes nothing with it but what is to be hurt."""

QUIET_AT_MOST = 60.0

RETRY_AFTER = "1"
"""Seconds after which a call that was answered 503 is welcome."""


class FaultServer:
    """The handler of all calls."""

    def __init__(self, log: FaultLog, plan: dict[str, list[str]], ask: str | None = None) -> None:
        self._log = log
        self._plan = plan
        self._ask = ask
        self._held: set[tuple[str, str]] = set()
        self._dying: dict[tuple[str, str], tuple[Asked, Point]] = {}
        """By run and item: a call that comes again has one effect in the end, as if it had come once."""
        self._arrived_at = 0.0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            request.match_info["run"],
            request.match_info["tool"],
            request.match_info["item"],
            request.method,
            request.headers.get("idempotency-key"),
        )
        await request.read()
        self._arrived_at = time.monotonic()
        match self._due(asked):
            case None:
                return self._execute(asked)
            case Point.REFUSE:
                self._log.hit(asked, Point.REFUSE)
                return web.Response(status=503, text="busy, nothing was done", headers={"Retry-After": RETRY_AFTER})
            case Point.LOSE_REPLY:
                self._log.hit(asked, Point.LOSE_REPLY)
                self._execute(asked)
                return _cut(request)
            case (Point.DIE_BEFORE | Point.DIE_COMMITTED) as point:
                return await self._die(asked, point)
            case point:
                self._held.add((asked.run, asked.item))
                try:
                    return await self._kill(request, asked, point)
                finally:
                    self._held.remove((asked.run, asked.item))

    async def find(self, request: web.Request) -> web.Response:
        receipt = self._log.found(request.match_info["key"])
        if receipt is None:
            return web.json_response({"error": "there is no such call"}, status=404)
        return web.json_response({"receipt": receipt})

    def _due(self, asked: Asked) -> Point | None:
        """What is to happen to a call; nothing to one that comes again while it is held."""
        if (waiting := self._dying.get((asked.run, asked.item))) is not None:
            return waiting[1]
        points = self._plan.get(f"{asked.run}/{asked.item}", [])
        if not points or (asked.run, asked.item) in self._held:
            return None
        used = self._log.times_hit(asked)
        return Point(points[used]) if used < len(points) else None

    def _execute(self, asked: Asked) -> web.Response:
        status, body = self._log.execute(asked)
        return web.Response(status=status, text=body, content_type="application/json")

    async def _die(self, asked: Asked, point: Point) -> web.Response:
        """Kill this process, with all calls that it is to die in."""
        self._dying[asked.run, asked.item] = (asked, point)
        async with asyncio.timeout(QUIET_AT_MOST):
            # Calls that are held for another fault would be cut off before it.
            while self._held or time.monotonic() < self._arrived_at + QUIET_SECONDS:
                await asyncio.sleep(0.02)
        for each, its_point in self._dying.values():
            self._log.hit(each, its_point)
            if its_point is Point.DIE_COMMITTED:
                self._execute(each)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process goes on")

    async def _kill(self, request: web.Request, asked: Asked, point: Point) -> web.StreamResponse:
        """Kill the caller at `point` of its call; if something else did so before, the point waits for the next."""
        answer = self._execute(asked) if point in {Point.KILL_COMMITTED, Point.KILL_REPLIED} else None
        pid = await self._doomed(request.headers["x-caller"])
        if pid is None:
            if answer is not None:
                # It may have been held for long: the fault that took its caller is not near its commit.
                self._log.orphaned(asked)
            return _cut(request)
        if point is Point.KILL_REPLIED and answer is not None:
            await answer.prepare(request)
            await answer.write_eof()
            await asyncio.sleep(READING_SECONDS)
        else:
            await asyncio.sleep(REPLIES_FIRST_SECONDS)
        self._log.hit(asked, point, pid)
        _send_kill(pid)
        if point is Point.KILL_LATE:
            await asyncio.sleep(LATE_SECONDS)
            self._execute(asked)
        return answer if point is Point.KILL_REPLIED and answer is not None else _cut(request)

    async def _doomed(self, caller: str) -> int | None:
        """The pid of a caller, once it may die; `None` if it is dead."""
        if self._ask is None:
            return int(caller)
        async with aiohttp.ClientSession() as session, session.get(f"{self._ask}/{caller}") as answer:
            if answer.status == HTTPStatus.GONE:
                return None
            answer.raise_for_status()
            return int(await answer.text())


def _send_kill(pid: int) -> None:
    # Another of its calls may be first.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _ignored(prefixes: list[str] | None) -> tuple[str, ...]:
    """Beginnings of the names of runs whose keys are ignored."""
    return () if prefixes is None else tuple(prefixes) or ("",)


async def _serve_forever(options: argparse.Namespace) -> None:
    plan = json.loads(options.plan.read_text()) if options.plan else {}
    server = FaultServer(FaultLog(options.database, no_keys=_ignored(options.no_keys)), plan, options.ask)
    application = web.Application()
    application.router.add_get("/calls/{key}", server.find)
    application.router.add_route("*", "/{tool}/{run}/{item}", server.serve)
    # A caller that went away changes nothing: what it asked for goes on.
    runner = web.AppRunner(application, handler_cancellation=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fault_server")
    parser.add_argument("--database", type=Path, required=True, help="SQLite file; made when it is missing")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--plan", type=Path, help="JSON file of the faults; without it there are none")
    parser.add_argument("--no-keys", nargs="*", metavar="PREFIX", help="ignore keys, of all runs or of those named so")
    parser.add_argument("--ask", help="where to ask for the pid of a caller that is to be killed")
    asyncio.run(_serve_forever(parser.parse_args()))


if __name__ == "__main__":
    main()
