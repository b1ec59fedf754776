"""The stderr of a server, read on the event loop of workers."""

import asyncio
import os

from mandate.activities.toolbox.mcp.transport import Stderr
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workers.interpreter import make_event_loop


def test_a_server_that_floods_waits() -> None:
    async def read_before_and_after() -> tuple[bool, bool]:
        stderr = Stderr("peer", SecretValues(lambda text: text))
        reading, writing = os.pipe()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: stderr, os.fdopen(reading, "rb"))
        before = transport.is_reading()
        stderr.data_received(b"x" * 100_000)
        after = transport.is_reading()
        transport.close()
        os.close(writing)
        return before, after

    with asyncio.Runner(loop_factory=make_event_loop) as runner:
        assert runner.run(read_before_and_after()) == (True, False)
