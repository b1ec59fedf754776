"""What one can type after `mandate demo`."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

from tests.support.demo import npx
from tests.support.processes import PROJECT, processes


async def test_commands_it_names_work_as_typed(tmp_path: Path) -> None:
    told = {"MANDATE_FOLDER": str(tmp_path / "state"), **npx(tmp_path, "exit 1")}
    with processes(tmp_path / "processes", **told) as started:
        demo = started.mandate("demo", "--fast", "--yes", "--keep", "-o", "json")
        await demo.said("}\n")
        look = json.loads(demo.stdout())["look"]

        typed = [
            await asyncio.to_thread(
                subprocess.run,
                ["sh", "-c", command],
                cwd=PROJECT,
                env={**os.environ, **started.environment},
                capture_output=True,
                text=True,
            )
            for command in look
        ]
        demo.send(signal.SIGINT)

        assert [done.returncode for done in typed] == [0, 0], [done.stderr for done in typed]
        assert all(" completed" in done.stdout.lower() for done in typed)
        assert await demo.ended() == 0
