"""Another process that uses a store: `python -m tests.support.store_writer URL identity|put|stream|claim|hold COUNT`.

`put` stores blobs 0 to COUNT - 1; `stream` does the same, prints each number once it is stored, and never ends.
`claim` claims keys 0 to COUNT - 1 and prints those that it got; `hold` prints each once it has it, and never ends.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from mandate.activities.stores.address import open_store
from mandate.workflows.contracts.base import digest_of

ROOT = Path(__file__).parents[2]


def numbered(count: int) -> Iterator[tuple[str, bytes]]:
    """Blobs 0 to `count` - 1 of about 2 KB with their addresses: the same in every process."""
    for number in range(count):
        content = f"blob {number} ".encode() * 200
        yield digest_of(content), content


def key(number: int) -> str:
    """A key as calls have them: the same in every process."""
    return digest_of(f"key {number}".encode())


async def start_writer(url: str, action: str, count: int = 0) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.support.store_writer", url, action, str(count))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def finished(writer: asyncio.subprocess.Process) -> str:
    """What `writer` printed; an error if it failed."""
    printed, complaint = await writer.communicate()
    assert writer.returncode == 0, complaint.decode()
    return printed.decode().strip()


async def _main(url: str, action: str, count: int) -> None:
    store = open_store(url)
    if action == "identity":
        print(await store.identity())
    if action in ("claim", "hold"):
        for number in range(count):
            if await store.claim(key(number)):
                print(number, flush=True)
    else:
        for number, (digest, content) in enumerate(numbered(count)):
            await store.put({digest: content})
            if action == "stream":
                print(number, flush=True)
    while action in ("stream", "hold"):
        await asyncio.sleep(1)
    await store.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
