"""Commands of Temporal's own CLI, typed into a shell as they are printed."""

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mandate.workers.dev_server.server import DevServer

JQ = """#!{python}
import json, re, sys
found = json.load(sys.stdin)
for name, index in re.findall(r"\\.(\\w+)|\\[(\\d+)\\]", sys.argv[2]):
    found = found[name] if name else found[int(index)]
print(found)
"""
"""As much of it as `jq -r .a[0].b` needs, for machines that do not have it."""


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell in which `temporal` is the CLI of `server`, and speaks to it."""

    server: DevServer
    bin: Path

    async def run(self, script: str) -> Said:
        path = os.pathsep.join((str(self.bin), os.environ["PATH"]))
        environment = {**os.environ, "PATH": path, "TEMPORAL_ADDRESS": self.server.address}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "sh", "-euc", script, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    async def out(self, script: str) -> str:
        """What a script that succeeds prints."""
        said = await self.run(script)
        assert said.code == 0, f"{script}\n{said.out}\n{said.err}"
        return said.out


def new_shell(server: DevServer, folder: Path) -> Shell:
    """A shell whose programs are in `folder`, which is made."""
    folder.mkdir()
    (folder / "temporal").symlink_to(server.binary)
    if shutil.which("jq") is None:
        (folder / "jq").write_text(JQ.format(python=sys.executable))
        (folder / "jq").chmod(0o700)
    return Shell(server, folder)
