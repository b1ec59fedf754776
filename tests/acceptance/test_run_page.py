"""The page of a run in a real browser: what it shows, and that it asks for nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.history.picture import read_picture
from mandate.workers.history.record import read_record
from mandate.workers.history.timeline_reader import TimelineReader
from mandate.workers.pages.run_page import render_run
from tests.support.agents import new_site
from tests.support.browser import Page, needs_browser, new_page
from tests.support.people import ASK_ALL, asked, decide, write_people

pytestmark = needs_browser

ATTACKS = (
    "<script>document.title = 'taken'</script>",
    "<img src='http://127.0.0.1:9/pixel.png' onerror=\"document.title = 'taken'\">",
    "<style>@import url('http://127.0.0.1:9/style.css');</style>",
    "<iframe src='http://127.0.0.1:9/'></iframe><link rel=stylesheet href='http://127.0.0.1:9/a.css'>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href='http://127.0.0.1:9/'>",
    "\u202egnp.exe \u2067right",
)


@pytest.fixture(scope="module")
async def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a run with calls, a decision, and a model and a person that attack whoever reads it."""
    folder = tmp_path_factory.mktemp("page")
    turns = [
        {"say": " ".join(ATTACKS), "call": [{"look": {"what": "".join(ATTACKS)}}, {"pay": {"order": 81}}]},
        {"say": " ".join(ATTACKS)},
    ]
    async with run_private_server() as server:
        client = await connect(address=server.address)
        site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
        site.write("shown", turns, policy=ASK_ALL)
        async with site.serving():
            run = await site.start("shown", " ".join(ATTACKS))
            (request,) = await asked(run)
            await decide(run, request, comment=ATTACKS[0])
            await run.result()
        reader = TimelineReader()
        record = await read_record(client, run.id, None, reader=reader)
        picture = await read_picture(site.settings.store, record, reader.timeline, datetime.now(UTC), has_messages=True)
    assert picture.store_missing is None
    page = folder / "run.html"
    page.write_text(render_run(picture, program="mandate"))
    return page


@asynccontextmanager
async def opened(file: Path, *, width: int = 1200, scheme: str = "light", media: str = "") -> AsyncIterator[Page]:
    async with new_page() as page:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        await page._call("Emulation.setDeviceMetricsOverride", **size)
        await page._call("Emulation.setEmulatedMedia", media=media, features=features)
        await page.open(file.as_uri())
        await page.shows("Time line", "Conversation")
        yield page


async def value(page: Page, expression: str) -> Any:
    return await page._value(expression)


async def test_the_page_asks_for_nothing_and_runs_nothing(file: Path) -> None:
    async with opened(file) as page:
        await asyncio.sleep(0.5)
        asked_for = await value(page, "performance.getEntriesByType('resource').map(one => one.name)")
        title = await value(page, "document.title")
        address = await value(page, "location.protocol")
        text = await page.text()
        drawn = await value(page, "document.querySelectorAll('rect.bar').length")
        styled = await value(page, "getComputedStyle(document.querySelector('.row')).display")

    assert asked_for == []
    assert title.startswith("shown-")
    assert address == "file:"
    assert "<script>document.title = 'taken'</script>" in text
    assert "\ufffdgnp.exe" in text
    assert drawn > 4
    assert styled == "grid"


async def test_its_own_policy_forbids_what_a_script_would_ask_for(file: Path) -> None:
    """A script that DevTools lets in meets the policy all the same."""
    code = "fetch('http://127.0.0.1:9/').then(() => 'sent', error => String(error))"
    async with opened(file) as page:
        await value(page, f"window.told = []; {code}.then(one => window.told.push(one))")
        await value(
            page,
            "document.addEventListener('securitypolicyviolation', one => window.told.push(one.effectiveDirective));"
            "const picture = new Image(); picture.src = 'http://127.0.0.1:9/a.png'; document.body.append(picture)",
        )
        await asyncio.sleep(0.5)
        told = await value(page, "window.told")

    assert "img-src" in told
    assert any("Failed to fetch" in one for one in told)


@pytest.mark.parametrize("width", [390, 800, 1200])
async def test_no_part_of_the_page_is_wider_than_the_screen(file: Path, width: int) -> None:
    async with opened(file, width=width) as page:
        wide = await value(page, "document.documentElement.scrollWidth")

    assert wide <= width


async def test_dark_screens_get_a_dark_page(file: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        async with opened(file, scheme=scheme) as page:
            grounds.append(await value(page, "getComputedStyle(document.body).backgroundColor"))

    assert grounds == ["rgb(255, 255, 255)", "rgb(18, 22, 28)"]


async def test_on_paper_all_is_unfolded_and_light(file: Path) -> None:
    heights = "[...document.querySelectorAll('details pre')].map(one => one.getBoundingClientRect().height)"
    async with opened(file, scheme="dark", media="print") as page:
        ground = await value(page, "getComputedStyle(document.body).backgroundColor")
        shown = await value(page, heights)

    assert ground == "rgb(255, 255, 255)"
    assert shown
    assert min(shown) > 10
