"""A real browser without a window, for tests that look at pages: Chromium, spoken to by its DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium; on Debian: apt-get install chromium"
)

SECONDS = 30.0
"""How long a page may take to show something, on a busy machine."""

SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1400,1600"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
)

TEXTS = """
[document, ...[...document.querySelectorAll('iframe')].map(frame => frame.contentDocument)]
  .map(part => part?.body?.innerText ?? '').join('\\n')
"""
"""What a person can read on the page, frames included."""

VISIBLE = """
(selector, words) => [...document.querySelectorAll(selector)].find(
  one => one.getClientRects().length && one.innerText.trim().startsWith(words))
"""
"""The first element that fits a selector, can be seen and begins with these words."""


class Page:
    """One page in the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0

    async def open(self, url: str) -> None:
        await self._call("Page.navigate", url=url)

    async def text(self) -> str:
        """All that can be read on the page."""
        return str(await self._value(TEXTS))

    async def shows(self, *words: str) -> str:
        """The text of the page, once all of `words` are in it."""
        deadline = time.monotonic() + SECONDS
        while missing := [one for one in words if one not in (text := await self.text())]:
            assert time.monotonic() < deadline, f"the page does not show {missing}: {text}"
            await asyncio.sleep(0.1)
        return text

    async def click(self, selector: str, words: str = "") -> None:
        """Click on the first visible element that fits, once there is one."""
        found = f"({VISIBLE})({json.dumps(selector)}, {json.dumps(words)})"
        deadline = time.monotonic() + SECONDS
        while not await self._value(f"(one => one && (one.click(), one.focus(), true))({found})"):
            assert time.monotonic() < deadline, f"there is no {selector} {words!r}: {await self.text()}"
            await asyncio.sleep(0.1)

    async def fill(self, selector: str, text: str) -> None:
        """Put `text` in place of what stands in a text field."""
        deadline = time.monotonic() + SECONDS
        field = f"document.querySelector({json.dumps(selector)}).innerText"
        while True:
            await self.click(selector)
            await self._value("document.execCommand('selectAll')")
            await self._call("Input.insertText", text=text)
            await asyncio.sleep(0.1)
            # An editor that has only just got the focus may not have selected anything.
            if "".join(str(await self._value(field)).split()) == "".join(text.split()):
                return
            assert time.monotonic() < deadline, f"{selector} does not take {text!r}: {await self.text()}"

    async def press(self, selector: str) -> None:
        """Press the mouse where the middle of an element is, and let go there, wherever the element may be then."""
        middle = "(place => [place.x + place.width / 2, place.y + place.height / 2])"
        x, y = await self._value(f"{middle}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            await self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def photograph(self, file: Path) -> None:
        """The page as a person sees it, as PNG."""
        shot = await self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    async def _value(self, expression: str) -> Any:
        found = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        async with asyncio.timeout(SECONDS):
            while (answer := await self._socket.receive_json()).get("id") != self._calls:
                pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def new_page() -> AsyncIterator[Page]:
    """A browser of its own with an empty page."""
    assert CHROMIUM is not None, "needs Chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *(*SWITCHES, f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await _page(session, port), max_msg_size=0) as socket,
            ):
                yield Page(socket)
        finally:
            chromium.kill()
            await chromium.wait()


async def _port(file: Path) -> int:
    """Where the browser listens, which it writes when it does."""
    deadline = time.monotonic() + SECONDS
    while not (file.exists() and (lines := file.read_text().split("\n"))[1:]):
        assert time.monotonic() < deadline, "the browser does not start"
        await asyncio.sleep(0.05)
    return int(lines[0])


async def _page(session: aiohttp.ClientSession, port: int) -> str:
    """Address of the first page, which comes a moment after the browser listens."""
    deadline = time.monotonic() + SECONDS
    while True:
        async with session.get(f"http://127.0.0.1:{port}/json") as listed:
            for target in await listed.json():
                if target["type"] == "page":
                    return str(target["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline, "the browser opens no page"
        await asyncio.sleep(0.05)
