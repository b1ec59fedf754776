"""Lines that a person types while a command goes on."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator


def is_attended() -> bool:
    """Tell whether a person can type here; a process in the background would be stopped for reading."""
    with contextlib.suppress(OSError):
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


async def read_lines() -> AsyncIterator[str]:
    """Yield the lines that are typed from now on; a thread that reads would hold the end of the command up."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        typed = b""
        with contextlib.suppress(OSError):
            typed = os.read(stdin, 4096)
        for line in typed.decode(errors="replace").splitlines() if typed else (None,):
            lines.put_nowait(line)
        if not typed:
            loop.remove_reader(stdin)

    loop.add_reader(stdin, read)
    try:
        while (line := await lines.get()) is not None:
            yield line.strip()
    finally:
        loop.remove_reader(stdin)
