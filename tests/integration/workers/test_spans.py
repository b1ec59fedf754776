"""Spans of runs as an OTLP receiver gets them: each once, none missing, nothing that people or models said."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.support.agents import Site, new_site
from tests.support.otlp_receiver import Receiver, receiving, tree
from tests.support.people import ASK_ALL, asked, decide, write_people

PAY = [{"call": [{"look": {"what": "shelf"}}]}, {"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "all done"}]

PAID = [
    "invoke_agent asks",
    "  chat asks.script.yaml",
    "    judge look",
    "    execute_tool look",
    "  chat asks.script.yaml",
    "    judge pay",
    "    ask approval",
    "      answer approved",
    "      decide approve",
    "    execute_tool pay",
    "  chat asks.script.yaml",
    "  end completed",
]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def site(tmp_path: Path, client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    people = str(write_people(tmp_path))
    return new_site(tmp_path, client, MANDATE_PEOPLE=people, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)


@pytest.mark.parametrize("cached", [1000, 0])
async def test_a_run_is_one_tree_of_spans_each_once(site: Site, receiver: Receiver, cached: int) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving(max_cached_workflows=cached):
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await receiver.until(lambda: "ask approval" in receiver.names(handle.id))
        await decide(handle, request, comment="as agreed")
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    spans = receiver.of(handle.id)
    assert tree(spans) == PAID
    assert receiver.repeated() == []
    assert len({span.trace_id for span in spans}) == 1
    waits = [span for span in spans if span.name in {"invoke_agent asks", "ask approval", "decide approve"}]
    assert [span.seconds for span in waits] == [0.0, 0.0, 0.0]
    (asking, deciding) = (next(s for s in spans if s.name == name) for name in ("ask approval", "decide approve"))
    assert deciding.attributes["mandate.request.waited_seconds"] == (deciding.began - asking.began) / 1e9
    said = json.dumps([span.attributes for span in spans])
    for secret in ("all done", "as agreed", "120", "Go on", "ann@example.com", "eve@example.com"):
        assert secret not in said
