"""The fake provider as a process: `python -m tests.support.fake_provider --port 4720`."""

import argparse
import asyncio
import contextlib

from tests.support.fake_provider.server import FakeProvider


async def _serve_forever(host: str, port: int) -> None:
    async with FakeProvider(host, port) as fake:
        print(fake.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fake_provider")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(options.host, options.port))


if __name__ == "__main__":
    main()
