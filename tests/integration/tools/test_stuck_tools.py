"""A tool that never returns does not keep its process alive."""

import subprocess
import sys
import time

PROGRAM = """
import asyncio, sys, time
from datetime import timedelta
from mandate.activities.toolbox.base import CallContext
from mandate.activities.toolbox.python import PythonToolbox
from mandate.activities.toolbox.decorator import define_tool, tool

@tool(effect="read")
def stuck() -> str:
    time.sleep(600)

async def main():
    made = define_tool(stuck, None)
    sys.modules["stuck_tools"] = sys.modules["__main__"]
    made = made.model_copy(update={"binding": made.binding.model_copy(update={"function": "stuck_tools:stuck"})})
    toolbox = PythonToolbox()
    call = asyncio.create_task(toolbox.call(made, {}, CallContext("w", "r", 1, "k", 1, timedelta(seconds=1))))
    await asyncio.sleep(0.2)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await toolbox.close()

asyncio.run(main())
print("ended")
"""


def test_a_tool_that_never_returns_does_not_keep_its_worker_alive() -> None:
    began = time.monotonic()

    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert time.monotonic() - began < 30
