"""The table of outcomes, cell by cell: what a run makes of a call to a tool of each kind that behaves so."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from mandate.workflows.contracts.run import EffectEntry, RunResult, RunStatus
from tests.support import effect_tools
from tests.support.agents import Site, new_site, results_told
from tests.support.http_peer import HttpPeer, http_peer
from tests.support.mcp_peer import COMMAND

PATIENCE = "20s"
HASTE = "3s"
"""Longest time of one attempt, for tools that answer and for those that do not."""


@dataclass(frozen=True)
class Known:
    """What a run knows of its only call in the end."""

    outcome: str
    attempts: int | None = None
    """`None` where no account is kept: of calls that changed nothing."""


def done(attempts: int = 1) -> Known:
    return Known("done", attempts)


def unknown(attempts: int = 1) -> Known:
    return Known("unknown", attempts)


NOT_DONE = Known("not done")
"""Also for calls that were not sent: both have changed nothing, and the model is told why."""


@dataclass(frozen=True)
class Cell:
    kind: str
    behaviour: str
    effect: str
    expected: Known
    calls: int
    """How many reach the other side."""
    told: str
    """In what the model is told, or in what people are told of an unknown outcome."""

    @property
    def hangs(self) -> bool:
        return "hang" in self.behaviour

    def __str__(self) -> str:
        return f"{self.kind}: {self.behaviour} ({self.effect})"


LOST = "it was done, but the answer is lost"
REFUSED_KEY = "the server refused the idempotency key or the request"
TIMED_OUT = "the call took longer than its timeout"
ALIKE = {TIMED_OUT: (TIMED_OUT, "no answer in time")}
"""Sentences of which one is said, by who finds out first: the runtime, or the client of the tool."""
LINE_BROKE = "ConnectionError: the line broke"
CUT = "the connection was cut"
ERROR = "Error executing tool fail"
ENDED = "ended or was cut off during the call"

HTTP = [
    ("200", "once", done(), 1, "said 200"),
    ("large", "once", done(), 1, LOST),
    ("large", "keyed", done(), 1, LOST),
    ("cut-body", "once", done(), 1, LOST),
    ("cut-body", "keyed", done(), 1, LOST),
    ("404", "once", NOT_DONE, 1, "HTTP 404 Not Found"),
    ("404", "keyed", NOT_DONE, 1, "HTTP 404 Not Found"),
    ("409", "once", NOT_DONE, 1, "HTTP 409 Conflict"),
    ("422", "once", NOT_DONE, 1, "HTTP 422"),
    ("429", "once", NOT_DONE, 1, "HTTP 429 Too Many Requests"),
    ("429/200", "keyed", done(2), 2, "said 200"),
    # A reused key: stop.
    ("422", "keyed", NOT_DONE, 1, REFUSED_KEY),
    # In progress: ask again.
    ("409/200", "keyed", done(2), 2, "said 200"),
    ("409", "keyed", unknown(3), 3, "HTTP 409 Conflict"),
    *((status, "once", unknown(), 1, f"HTTP {status} ") for status in ("302", "408", "425", "500", "503")),
    *((f"{status}/200", "keyed", done(2), 2, "said 200") for status in ("302", "408", "425", "500", "503")),
    ("cut", "once", unknown(), 1, CUT),
    ("cut/200", "keyed", done(2), 2, "said 200"),
    ("cut", "keyed", unknown(3), 3, CUT),
    ("hang", "once", unknown(), 1, TIMED_OUT),
    ("refused", "once", NOT_DONE, 0, "POST 127.0.0.1: no connection"),
    ("refused", "keyed", NOT_DONE, 0, "POST 127.0.0.1: no connection"),
    # The join: a definite answer to the key clears what was unknown, and nothing else does.
    ("cut/404", "keyed", NOT_DONE, 2, "HTTP 404 Not Found"),
    ("cut/404", "idempotent", unknown(2), 2, "HTTP 404 Not Found"),
    ("cut/401", "keyed", unknown(2), 2, "HTTP 401 Unauthorized"),
    ("cut/422", "keyed", unknown(2), 2, REFUSED_KEY),
    ("cut/429", "keyed", unknown(3), 3, "HTTP 429 Too Many Requests"),
    ("429", "keyed", NOT_DONE, 3, "HTTP 429 Too Many Requests"),
    ("429/404", "idempotent", NOT_DONE, 2, "HTTP 404 Not Found"),
]
PYTHON = [
    ("return", "once", done(), 1, "did it"),
    ("not done", "once", NOT_DONE, 1, "the account is closed"),
    ("not done", "keyed", NOT_DONE, 1, "the account is closed"),
    ("busy", "keyed", NOT_DONE, 3, "come again"),
    ("raise", "once", unknown(), 1, LINE_BROKE),
    ("raise", "keyed", unknown(3), 3, LINE_BROKE),
    ("raise, return", "keyed", done(2), 2, "did it"),
    ("raise, not done", "keyed", NOT_DONE, 2, "the account is closed"),
    ("raise, not done", "idempotent", unknown(2), 2, "the account is closed"),
    ("raise, busy", "keyed", unknown(3), 3, "come again"),
    ("hang", "once", unknown(), 1, TIMED_OUT),
    ("hang", "keyed", unknown(3), 3, TIMED_OUT),
    ("hang, return", "keyed", done(2), 2, "did it"),
]
MCP = [
    ("echo", "once", done(), 1, "hi"),
    ("fail", "once", unknown(), 1, "the tool says that it failed, and may have acted"),
    ("fail, error: not_done", "once", NOT_DONE, 1, ERROR),
    ("fail", "keyed", unknown(3), 3, "may have acted"),
    ("fail, error: unknown", "keyed", unknown(3), 3, "may have acted"),
    ("crash", "once", unknown(), 1, ENDED),
    ("crash", "keyed", unknown(3), 3, ENDED),
]
REMOTE = [
    ("return", "once", done(), 1, '"did it"'),
    # How many attempts it took, only the other side knows.
    ("raise, return", "keyed", done(), 2, '"did it"'),
    ("not done", "once", NOT_DONE, 1, "CardDeclined: no money on it"),
    ("raise, not done", "keyed", NOT_DONE, 2, "CardDeclined: no money on it"),
    # Without a key "no such row" may be the effect of the attempt that was lost.
    ("raise, not done", "idempotent", unknown(2), 2, "CardDeclined: no money on it"),
    ("not done", "idempotent", NOT_DONE, 1, "CardDeclined: no money on it"),
    ("raise, return", "idempotent", done(2), 2, '"did it"'),
    ("raise", "idempotent", unknown(3), 3, "RuntimeError: the line broke"),
    ("raise", "once", unknown(), 1, "RuntimeError: the line broke"),
    ("raise", "keyed", unknown(3), 3, "RuntimeError: the line broke"),
    ("hang", "once", unknown(), 1, TIMED_OUT),
    ("hang", "keyed", unknown(3), 3, TIMED_OUT),
    ("nobody", "keyed", NOT_DONE, 0, "no worker took the call in time"),
]
CELLS = [
    Cell(kind, *row)
    for kind, rows in (("http", HTTP), ("python", PYTHON), ("mcp", MCP), ("activity", REMOTE))
    for row in rows
]


class Peers:
    """The other sides, each of which knows how often the call of a cell reached it."""

    def __init__(self, http: HttpPeer, closed: str, folder: Path, queue: str) -> None:
        self.http, self.closed, self.folder, self.queue = http, closed, folder, queue
        self.remote: dict[int, list[str]] = {}

    def tool(self, number: int, cell: Cell) -> dict[str, Any]:
        # What a cell expects is known after three attempts.
        settings = {"effect": cell.effect, "timeout": HASTE if cell.hangs else PATIENCE, "retries": 2}
        return {**getattr(self, f"_{cell.kind}")(number, cell), **settings}

    def call(self, number: int, cell: Cell) -> dict[str, Any]:
        match cell.kind:
            case "mcp":
                name = cell.behaviour.partition(",")[0]
                return {name: {"text": "hi"} if name == "echo" else {}}
            case _:
                return {"act": {"order": number, "how": cell.behaviour}}

    def keys(self, number: int, cell: Cell) -> list[str]:
        """The idempotency keys of the calls that came, one for each attempt."""
        match cell.kind:
            case "http":
                seen = self.http.seen
                return [one.headers["idempotency-key"] for one in seen if one.target.endswith(f"?cell={number}")]
            case "python":
                return effect_tools.KEYS.get(number, [])
            case "activity":
                return self.remote.get(number, [])
            case _:
                return effect_tools.journalled(self._journal(number))

    def _journal(self, number: int) -> Path:
        return self.folder / f"journal-{number}"

    def _python(self, number: int, cell: Cell) -> dict[str, Any]:
        return {"python": "tests.support.effect_tools:act"}

    def _http(self, number: int, cell: Cell) -> dict[str, Any]:
        host = self.closed if cell.behaviour == "refused" else self.http.host
        plan = cell.behaviour.replace("hang", "slow")
        return {"http": {"method": "POST", "url": f"http://{host}/plan/{plan}?cell={number}"}, **_named()}

    def _mcp(self, number: int, cell: Cell) -> dict[str, Any]:
        name, _, error = cell.behaviour.partition(", error: ")
        command = [*COMMAND, "good", "stdio", str(self._journal(number))]
        entry = {"mcp": {"name": "peer", "command": command}, "only": [name]}
        return {**entry, "error": error} if error else entry

    def _activity(self, number: int, cell: Cell) -> dict[str, Any]:
        queue, valid = (f"{self.queue}-nobody", HASTE) if cell.behaviour == "nobody" else (self.queue, "1h")
        entry = {
            "activity": {"name": "Act", "task_queue": queue},
            "arguments": ["how", "order"],
            "failed_types": ["CardDeclined"],
            **_named(),
        }
        return {**entry, "key_valid": valid} if cell.effect == "keyed" else entry

    def activity(self) -> Callable[..., Any]:
        @activity.defn(name="Act")
        async def act(how: str, order: int) -> str:
            self.remote.setdefault(order, []).append(activity.info().activity_id)
            steps = how.split(", ")
            match steps[min(len(self.remote[order]), len(steps)) - 1]:
                case "raise":
                    raise RuntimeError("the line broke")
                case "not done":
                    raise ApplicationError("no money on it", type="CardDeclined")
                case "hang":
                    await asyncio.sleep(10)
            return "did it"

        return act


def _named() -> dict[str, Any]:
    properties = {"how": {"type": "string"}, "order": {"type": "integer"}}
    return {"name": "act", "input_schema": {"type": "object", "properties": properties}}


@dataclass(frozen=True)
class Ending:
    """What became of the run of one cell."""

    result: RunResult
    told: list[Any]
    keys: list[str]

    @property
    def entries(self) -> tuple[EffectEntry, ...]:
        return (*self.result.effects.last, *self.result.uncertain)

    @property
    def known(self) -> Known:
        if self.result.uncertain:
            return unknown(self.entries[0].attempts)
        return done(self.entries[0].attempts) if self.entries else NOT_DONE

    @property
    def said(self) -> str:
        return str(self.result.uncertain[0].reason if self.result.uncertain else self.told[0].text)


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    """A port where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(scope="module")
async def endings(
    tmp_path_factory: pytest.TempPathFactory, client: Client, closed: str
) -> AsyncIterator[dict[Cell, Ending]]:
    """All cells at once, one run each."""
    folder = tmp_path_factory.mktemp("table")
    async with http_peer() as http:
        http.large = 6_000_000
        site = new_site(folder, client, MANDATE_HTTP_HOSTS=f"{http.host},{closed}")
        peers = Peers(http, closed, folder, f"{site.queue}-remote")
        for number, cell in enumerate(CELLS):
            turns = [{"call": [peers.call(number, cell)]}, {"say": "done"}]
            # Nobody finds an unknown outcome out.
            site.write(f"cell{number}", turns, tools=[peers.tool(number, cell)], people={"expires": "300ms"})
        async with site.serving(), Worker(client, task_queue=peers.queue, activities=[peers.activity()]):
            ended = await asyncio.gather(*(_ending(site, peers, number, cell) for number, cell in enumerate(CELLS)))
            yield dict(zip(CELLS, ended, strict=True))


async def _ending(site: Site, peers: Peers, number: int, cell: Cell) -> Ending:
    result = await (await site.start(f"cell{number}")).result()
    return Ending(result, await results_told(site, result.head or ""), peers.keys(number, cell))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(endings: dict[Cell, Ending], cell: Cell) -> None:
    ending = endings[cell]

    assert ending.known == cell.expected
    assert any(text in ending.said for text in ALIKE.get(cell.told, (cell.told,)))
    assert len(ending.keys) == cell.calls
    assert len({*ending.keys, *(entry.key for entry in ending.entries)}) <= 1
    assert len(ending.entries) == (0 if cell.expected == NOT_DONE else 1)
    uncertain = cell.expected.outcome == "unknown"
    assert ending.result.status is (RunStatus.DECLINED if uncertain else RunStatus.COMPLETED)
    assert uncertain or ending.told[0].error == (cell.expected == NOT_DONE)
