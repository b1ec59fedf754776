"""What a benchmark runs against: a private server, the fake provider and workers, each a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = """
from mandate.activities.toolbox.decorator import tool

@tool(effect="read")
def note(text: str) -> str:
    "Take a note."
    return "x" * {output_bytes}
"""

AGENT = """
name: {name}
instructions: You take notes.
models: ["{model}"]
tools:
  - python: bench_tools:note
requester: anyone
budget: {{steps: 1000000}}
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU of a process so far, in seconds, and its resident memory."""

    cpu_seconds: float
    memory_bytes: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python <arguments>`, ended with the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "NO_PROXY": "127.0.0.1,localhost", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.communicate()


@asynccontextmanager
async def fake_provider() -> AsyncIterator[str]:
    """The URL of a fake provider."""
    async with process("-m", "tests.support.fake_provider", "--port", "0") as fake:
        assert fake.stdout is not None
        yield (await fake.stdout.readline()).decode().strip().removesuffix("/")


def write_agent(folder: Path, *, model: str, output_bytes: int, name: str = "bench") -> Path:
    """An agent with one tool that returns `output_bytes`; the folder to give to a worker."""
    (folder / "bench_tools.py").write_text(TOOLS.format(output_bytes=output_bytes))
    agents = folder / "agents"
    agents.mkdir(exist_ok=True)
    (agents / f"{name}.yaml").write_text(AGENT.format(name=name, model=model))
    return agents


def name_environment(address: str, folder: Path, agents: Path, provider: str) -> dict[str, str]:
    """Return what a worker of `write_agent`'s folder reads: server, agents, store, tools and the fake provider."""
    return {
        "TEMPORAL_ADDRESS": address,
        "MANDATE_AGENTS": str(agents),
        "MANDATE_FOLDER": str(folder),
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{provider}/v1",
        "PYTHONPATH": str(folder),
    }
