"""What operators see of a run in Temporal's Web UI, in a real browser."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.agents import new_site
from tests.support.toolkit import calls_of
from workers.client import connect
from workers.dev_server import run_private_server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None and "CI" not in os.environ, reason="needs Chromium; on Debian: apt-get install chromium"
)


async def page(url: str) -> str:
    """The page as the browser has it after its scripts have run for some seconds."""
    assert BROWSER is not None, "needs Chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        content, _ = await asyncio.wait_for(browser.communicate(), 60)
        return content.decode()


async def test_a_run_is_readable_while_it_goes_on(tmp_path: Path) -> None:
    turns = [
        {"call": [{"look": {"what": "first"}}]},
        {"call": [{"look": {"what": "slow", "seconds": 15}}]},
        {"say": "."},
    ]
    async with run_private_server(ui=True) as server:
        site = new_site(tmp_path, await connect(address=server.address))
        site.write("watched", turns)
        async with site.serving():
            handle = await site.start("watched", "Look twice.", requester="ann@example.com")
            while len(calls_of(handle.id, "look")) < 2:
                await asyncio.sleep(0.05)
            base = f"{server.ui_url}/namespaces/default/workflows/{handle.id}/{handle.first_execution_run_id}"
            history = await page(f"{base}/history")
            attributes = await page(f"{base}/search-attributes")
            await handle.cancel()

    # The current details are Markdown in a frame of their own, which is not part of the dumped page.
    assert "call_model scripted:watched.script.yaml, step 1" in history
    assert "look what=slow seconds=15" in history
    assert "ann@example.com" in attributes
    assert "AgentStatus" in attributes
