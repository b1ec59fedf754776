"""The judge of runs over outages: it finds what is lost and what is doubled."""

import asyncio

import pytest

from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.acceptance.outages import OUTAGES, Ended, Played, show
from tests.support.wire import open_wire

TOLD = ('{"receipt": 7, "item": "0"}', '{"receipt": 9, "item": "1"}')
DONE = {"0": 1, "1": 1}


def ended(**changes: object) -> Ended:
    """A run of two payments, as it should end."""
    whole = {"name": "r", "payments": 2, "result": _result(), "told": TOLD, "done": DONE}
    return Ended(**{**whole, **changes})  # type: ignore[arg-type]


def _result(status: RunStatus = RunStatus.COMPLETED, reason: str | None = None) -> RunResult:
    return RunResult.model_validate({"status": status, "reason": reason, "usage": {}, "head": None, "output": "done"})


def test_a_run_that_paid_each_thing_once_has_no_fault() -> None:
    assert (ended().lost, ended().doubled) == ([], [])


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"result": None}, ["r: it did not end"]),
        ({"result": _result(RunStatus.DECLINED, "nobody")}, ["r: declined (nobody)"]),
        ({"told": TOLD[:1]}, ["r: its model was told ['0']"]),
        ({"told": (TOLD[1], TOLD[0])}, ["r: its model was told ['1', '0']"]),
        ({"told": (*TOLD, TOLD[1])}, ["r: its model was told ['0', '1', '1']"]),
        ({"told": (TOLD[0], "it is not known")}, ["r: its model was told ['0', 'it is not known']"]),
        ({"done": {"0": 1}}, ["r: 1 was not paid"]),
    ],
)
def test_what_is_lost_is_named(changes: dict[str, object], lost: list[str]) -> None:
    assert ended(**changes).lost == lost


def test_what_is_doubled_is_named_and_reported() -> None:
    played = Played(OUTAGES["disk"], [ended(done={"0": 1, "1": 2}), ended()])

    assert played.faults() == ["r: 1 was paid 2 times"]
    assert (played.report()["lost"], played.report()["doubled"]) == (0, 1)
    assert show(played).splitlines()[1] == "  r: 1 was paid 2 times"


async def test_a_wire_passes_falls_silent_and_is_cut() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, open_wire(server.sockets[0].getsockname()[1]) as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(b"one\n")
        passed = await reader.readline()
        wire.silence()
        writer.write(b"two\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(later := asyncio.ensure_future(reader.readline())), 0.1)
        wire.mend()
        held = await asyncio.wait_for(later, 5)
        wire.cut()
        is_ended = await ends(reader)
        other, _ = await asyncio.open_connection("127.0.0.1", wire.port)
        is_refused = await ends(other)
        wire.mend()
        again, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(b"three\n")
        mended = await again.readline()

    assert (is_ended, is_refused) == (True, True)
    assert (passed, held, mended) == (b"one\n", b"two\n", b"three\n")


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the connection is ended, with a reset or without."""
    try:
        return await asyncio.wait_for(reader.readline(), 5) == b""
    except ConnectionError:
        return True
