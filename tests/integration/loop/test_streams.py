"""Texts of models, read along with a run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.activities.stores.address import open_store
from mandate.workers.client.streams import StreamEvent
from tests.support.agents import Site, new_site
from tests.support.fake_provider.behaviours import Answer, Broken
from tests.support.fake_provider.server import FakeProvider

TEXT = "I look it up, and then I tell you what I found, in so many words that they come in several pieces."


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    made = new_site(tmp_path, client)
    looks = {"say": TEXT, "call": [{"look": {"what": "x"}}], "delay": "600ms"}
    made.write("talks", [looks, {"say": TEXT[::-1], "delay": "600ms"}])
    return made


async def read(site: Site, workflow_id: str, after: int = 0, most: int | None = None) -> list[StreamEvent]:
    """All events of a run, or the first of them."""
    found = list[StreamEvent]()
    async for event in site.agents.stream(workflow_id, after=after, store=site.settings.store):
        found.append(event)
        if most is not None and len(found) >= most:
            break
    return found


async def read_history(run: Any) -> bytes:
    """All events of a run as the server has them."""
    return b"".join([event.SerializeToString() async for event in run.fetch_history_events()])


async def begun(site: Site, name: str) -> tuple[Any, asyncio.Task[list[StreamEvent]]]:
    """A run, and who reads along from before it began."""
    workflow_id = f"{name}-{site.queue}"
    reading = asyncio.create_task(read(site, workflow_id))
    # Workers look twice a second who reads.
    await asyncio.sleep(0.7)
    return await site.start(name, workflow_id=workflow_id), reading


async def test_answers_come_in_pieces_whose_offsets_rise(site: Site) -> None:
    async with site.serving():
        run, reading = await begun(site, "talks")
        result = await run.result()
        events = await reading

    assert [event.kind for event in events if event.kind != "text"] == ["begin", "end"] * 2
    by_step = {step: [event.text for event in events if event.step == step and event.text] for step in (1, 2)}
    assert ("".join(by_step[1]), "".join(by_step[2])) == (TEXT, result.output)
    assert min(map(len, by_step.values())) > 2
    offsets = [event.offset for event in events]
    assert offsets == sorted(set(offsets))


async def test_reading_goes_on_after_an_offset_without_loss_or_repetition(site: Site) -> None:
    async with site.serving():
        run, reading = await begun(site, "talks")
        first = await read(site, run.id, most=4)
        rest = await read(site, run.id, after=first[-1].offset)
        whole = await reading

    assert [*first, *rest] == whole


async def test_attempt_that_begins_anew_is_told_as_that(site: Site) -> None:
    """Its connection breaks in the middle of the text, and the next attempt says all of it."""
    answer = Answer(text=TEXT, reasoning=False)
    async with FakeProvider() as fake:
        fake.will(Broken("cut", lost=answer), answer)
        site.environment |= {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
        site.write("breaks", [], models=["vllm:breaks"])
        async with site.serving():
            run, reading = await begun(site, "breaks")
            await run.result()
            events = await reading

    told = [(event.kind, event.attempt) for event in events if event.kind != "text"]
    texts = {number: "".join(event.text for event in events if event.attempt == number) for number in (1, 2)}
    assert told == [("begin", 1), ("end", 1), ("restart", 2), ("end", 2)]
    assert texts[2] == TEXT
    assert TEXT.startswith(texts[1])


async def test_nothing_is_written_where_nobody_reads_and_nothing_more_is_in_history(site: Site) -> None:
    store = open_store(site.settings.store)
    async with site.serving():
        run, reading = await begun(site, "talks")
        await asyncio.gather(run.result(), reading)
        alone = await site.start("talks")
        await alone.result()
        assert await store.read_stream(f"default/{alone.id}", 0) == ()
        histories = [await read_history(each) for each in (run, alone)]
    await store.close()

    # The text beside the call is there by its beginning, and the answer once, as the result of its activity and of the
    # run: as in the run that nobody read along with.
    assert [history.count(TEXT[:40].encode()) for history in histories] == [1, 1]
    assert [history.count(TEXT[::-1].encode()) for history in histories] == [2, 2]
