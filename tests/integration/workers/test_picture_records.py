"""Pictures of runs whose payloads a codec encrypts, and of plans: a worker in this process, a real server."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import PayloadCodec

from mandate.workers.converter import data_converter
from mandate.workers.dev_server.server import DevServer
from mandate.workers.history.parts import read_whole
from mandate.workers.history.picture import Picture, read_picture
from mandate.workers.history.record import read_record
from mandate.workers.history.stats import Stats
from mandate.workers.history.timeline_reader import TimelineReader
from mandate.workers.pages.run_page import render_run
from tests.support.agents import Site, new_site

TURNS = [{"call": [{"look": {"what": "a"}}, {"send": {"to": "Ann"}}]}, {"say": "Done."}]
KINDS = ["model", "tool", "tool", "model"]


class Turned(PayloadCodec):
    """A codec that turns each byte around, in place of a cipher."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"binary/turned"}, data=bytes(255 - one for one in payload.SerializeToString())
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(bytes(255 - one for one in payload.data))
            if payload.metadata.get("encoding") == b"binary/turned"
            else payload
            for payload in payloads
        ]


async def picture_of(client: Client, site: Site, workflow_id: str) -> Picture:
    reader = TimelineReader()
    record = await read_record(client, workflow_id, None, reader=reader)
    return await read_picture(site.settings.store, record, reader.timeline, datetime.now(UTC), has_messages=True)


@pytest.fixture(scope="module")
async def encrypted(temporal: DevServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """The site and the workflow id of a run that is over."""
    client = await Client.connect(temporal.address, data_converter=data_converter(Turned()))
    site = new_site(tmp_path_factory.mktemp("encrypted"), client)
    site.write("secret", TURNS)
    _, name = await site.run("secret")
    return site, name


async def test_a_client_with_the_codec_reads_all(encrypted: tuple[Site, str]) -> None:
    site, name = encrypted

    picture = await picture_of(site.client, site, name)

    assert (picture.record.status, picture.timeline.unreadable) == ("completed", 0)
    assert [bar.kind for bar in picture.timeline.drawn()] == KINDS
    assert "send to=Ann" in [bar.label for bar in picture.timeline.drawn()]


async def test_without_the_codec_times_are_drawn_and_the_rest_is_said(
    encrypted: tuple[Site, str], client: Client
) -> None:
    site, name = encrypted

    picture = await picture_of(client, site, name)
    page = render_run(picture, program="mandate")

    assert picture.timeline.unreadable > 0
    assert picture.record.status == "completed"
    assert [bar.kind for bar in picture.timeline.drawn()] == KINDS
    assert all(bar.ended_at is not None for bar in picture.timeline.bars)
    assert "of the history could not be read" in page
    assert "Ann" not in page


async def test_stats_count_a_run_that_nobody_here_can_read_and_say_so(
    encrypted: tuple[Site, str], client: Client
) -> None:
    _, name = encrypted
    described = await client.get_workflow_handle(name).describe()

    line, history = await read_whole(client, described)
    stats = Stats()
    stats.add(line, history, "completed")

    assert line.unreadable > 0
    assert stats.counted == 1
    assert len(stats.lengths) == 1


async def test_a_run_of_a_plan_has_its_steps_as_rows(client: Client, tmp_path: Path) -> None:
    site = new_site(tmp_path, client)
    site.write("works", [{"call": [{"look": {"what": "a"}}]}, {"say": "Done."}])
    steps = [
        {"id": "first", "agent": "works", "input": "'Look.'"},
        {"id": "beside", "agent": "works", "input": "'Look too.'"},
        {"id": "never", "agent": "works", "input": "'No.'", "when": "1 == 2"},
        {"id": "each", "agent": "works", "for_each": "['a', 'b']", "input": "item", "depends_on": ["first"]},
    ]
    async with site.serving():
        run = await site.agents.start_plan({"name": "both", "steps": steps}, requester="eve@example.com")
        await run.result()

    picture = await picture_of(client, site, run.id)
    bars = picture.timeline.drawn()

    assert picture.store_missing is None
    assert {(bar.label, bar.state) for bar in bars if bar.kind == "step"} == {
        ("first", "done"),
        ("beside", "done"),
        ("each 2 of 2 items", "done"),
    }
    assert [bar.plan_step for bar in bars if bar.kind == "child"].count("each") == 2
    assert {step.id: step.status for step in picture.steps}["never"] == "skipped"
    page = render_run(picture, program="mandate")
    assert "Steps of the plan" in page
