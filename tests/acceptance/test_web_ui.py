"""What operators see of a run in Temporal's Web UI and can do there, in a real browser."""

import asyncio
import json
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer, run_private_server
from mandate.workflows.rules import commands, decisions
from tests.support.agents import new_site
from tests.support.browser import Page, needs_browser, new_page
from tests.support.people import ASK_ALL, asked, decision, open_requests, write_people
from tests.support.toolkit import calls_of, held

pytestmark = needs_browser


def address(server: DevServer, run: WorkflowHandle[Any, Any]) -> str:
    return f"{server.ui_url}/namespaces/default/workflows/{run.id}/{run.first_execution_run_id}"


async def test_a_run_is_readable_while_it_goes_on(tmp_path: Path) -> None:
    turns = [
        {"call": [{"look": {"what": "first"}}]},
        {"call": [{"pay": {"order": 81}}]},
        {"say": "."},
    ]
    async with run_private_server(ui=True) as server, new_page() as page:
        site = new_site(tmp_path, await connect(address=server.address))
        site.write("watched", turns)
        async with site.serving():
            with held("pay"):
                run = await site.start("watched", "Look, and pay.", requester="ann@example.com")
                while not calls_of(run.id, "pay"):
                    await asyncio.sleep(0.05)
                await page.open(f"{address(server, run)}/history")
                await page.shows("call_model scripted:watched.script.yaml, step 1", "pay order=81")
                await page.open(f"{address(server, run)}/search-attributes")
                await page.shows("ann@example.com", "AgentStatus")
                await run.cancel()


async def test_a_waiting_run_says_what_it_asks_and_is_answered_on_its_page(tmp_path: Path) -> None:
    turns = [{"say": "I pay.", "call": [{"pay": {"order": 81, "amount": 120.0}}]}, {"say": "Paid."}]
    async with run_private_server(ui=True) as server, new_page() as page:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
        site.write("paying", turns, policy=ASK_ALL)
        async with site.serving():
            run = await site.start("paying", "Pay order 81.", requester="dan@example.com")
            (request,) = await asked(run)

            await page.open(f"{server.ui_url}/namespaces/default/workflows")
            await page.shows(run.id)
            await page.open(f"{address(server, run)}/user-metadata")
            await page.shows(
                "pay order=81 amount=120.0?",
                "finance",
                f"until {decisions.format_time(request.expires_at)}",
                f"mandate approve {run.id}:r1",
                "(or reject)",
                "temporal workflow update execute",
                request.digest,
            )
            await page.photograph(tmp_path / "waiting.png")

            await send(page, "update", "decide", decision(request, by="dan@example.com"))
            await page.shows("by: 'dan@example.com' asked for this run and cannot decide for it")
            await page.fill(DATA, json.dumps(decision(request, by="ann@example.com")))
            await page.click(SUBMIT)
            await page.shows("Update successful")
            result = await run.result()

    assert result.output == "Paid."
    assert [call.arguments for call in calls_of(run.id, "pay")] == [{"order": 81, "amount": 120.0}]


async def test_a_waiting_run_takes_a_signal_from_its_page(tmp_path: Path) -> None:
    turns = [{"call": [{"pay": {"order": 82}}]}, {"say": "Not paid."}]
    async with run_private_server(ui=True) as server, new_page() as page:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
        site.write("paying", turns, policy=ASK_ALL)
        async with site.serving():
            run = await site.start("paying", "Pay order 82.", requester="dan@example.com")
            (request,) = await asked(run)

            await page.open(f"{address(server, run)}/user-metadata")
            await send(page, "signal", "decide", decision(request, "reject", "ann@example.com", comment="Too much."))
            result = await run.result()
            (closed,) = (await open_requests(run)).closed

    assert result.output == "Not paid."
    assert (closed.outcome, closed.reason) == ("rejected", "ann@example.com rejected it")
    assert calls_of(run.id, "pay") == []


async def test_data_that_a_run_shows_is_sent_with_one_click(tmp_path: Path) -> None:
    """Data that the form lays out anew when its field is left moves the button, and the click is lost."""
    turns = [{"call": [{"pay": {"order": 83}}]}, {"say": "Paid."}]
    async with run_private_server(ui=True) as server, new_page() as page:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
        site.write("paying", turns, policy=ASK_ALL)
        async with site.serving():
            run = await site.start("paying", "Pay order 83.", requester="dan@example.com")
            (request,) = await asked(run)
            data = commands.format_decision(request, "approve").replace(commands.YOUR_NAME, "ann@example.com")

            await page.open(f"{address(server, run)}/user-metadata")
            await page.shows("if Submit does nothing, press it again")
            await fill_form(page, "update", "decide", data)
            await page.press(SUBMIT)
            await page.shows("Update successful")
            result = await run.result()

    assert result.output == "Paid."


async def test_a_limit_is_raised_with_one_click(tmp_path: Path) -> None:
    turns = [{"repeat": 2, "call": [{"look": {"what": "x"}}]}, {"say": "Looked twice."}]
    async with run_private_server(ui=True) as server, new_page() as page:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
        site.write("looking", turns, budget={"model_calls": 2, "when_used_up": "ask"})
        async with site.serving():
            run = await site.start("looking", "Look twice.", requester="dan@example.com")
            (request,) = await asked(run)
            data = commands.format_decision(request, "raise").replace(commands.YOUR_NAME, "ann@example.com")

            await page.open(f"{address(server, run)}/user-metadata")
            await page.shows("the limit of 2 model calls is used up: raise it?", "the next step would take up to")
            await fill_form(page, "update", "decide", data)
            await page.press(SUBMIT)
            await page.shows("Update successful")
            result = await run.result()

    assert (result.output, result.usage.model_calls) == ("Looked twice.", 3)


DATA = "dialog[open] [contenteditable=true]"
SUBMIT = "dialog[open] [data-testid=confirm-modal-button]"


async def send(page: Page, kind: str, name: str, value: object) -> None:
    """Send a `signal` or an `update` by the form of the run's page."""
    await fill_form(page, kind, name, json.dumps(value))
    await page.click(SUBMIT)


async def fill_form(page: Page, kind: str, name: str, data: str) -> None:
    await page.click("button", "More Actions")
    await page.click(f"[data-testid={kind}-button]")
    await page.click(f"dialog[open] [data-testid={kind}-select-button]")
    await page.click("dialog[open] li[role=option]", name)
    await page.fill(DATA, data)
