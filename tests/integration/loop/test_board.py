"""The board of a tree: one version after another, whoever writes, read by all below one root and by nobody else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from tests.support.agents import Site, continued, new_site, results_told
from tests.support.toolkit import LET_GO, calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def put(key: str, value: Any, expected: int) -> dict[str, Any]:
    return {"call": [{"write_board": {"key": key, "value": value, "expected_version": expected}}]}


READ: dict[str, Any] = {"call": [{"read_board": {}}]}
DONE = {"say": "done"}


async def head_of(site: Site, workflow_id: str) -> str:
    return str((await site.agents.handle(workflow_id).query("progress"))["head"])


async def told(site: Site, head: str | None) -> list[Any]:
    assert head is not None
    return [json.loads(part.text) for part in await results_told(site, head)]


async def test_a_value_has_one_version_after_another(site: Site) -> None:
    turns = [READ, put("found", {"order": 7}, 0), put("found", "late", 0), put("found", "next", 1), READ, DONE]
    site.write("writer", turns, board="write")

    result, workflow_id = await site.run("writer")

    first, written, conflict, again, last = await told(site, result.head)
    assert first == {}
    assert written == {"written": True, "version": 1}
    assert conflict == {"written": False, "version": 1, "value": {"order": 7}, "by": workflow_id}
    assert again == {"written": True, "version": 2}
    assert last == {"found": {"version": 2, "value": "next", "by": workflow_id}}


async def test_all_runs_of_a_tree_share_it_and_no_other_does(site: Site) -> None:
    site.write(
        "boss",
        [put("task", "a", 0), {"call": [{"worker": {"task": "go"}}]}, READ, DONE],
        tools=[{"agent": "worker"}],
        board="write",
    )
    site.write("worker", [READ, put("task", "b", 1), DONE], tools=[], board="write")
    site.write("reader", [READ, DONE], board="read")

    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        child = await head_of(site, f"{handle.id}/c1")
        other = await (await site.start("reader")).result()

    assert (await told(site, child))[0]["task"]["value"] == "a"
    assert (await results_told(site, result.head or ""))[-1].text.find(f'"by":"{handle.id}/c1"') > 0
    assert await told(site, other.head) == [{}]


async def test_of_many_that_write_at_once_one_is_first(site: Site) -> None:
    workers = [{"worker": {"task": f"{number}"}} for number in range(8)]
    site.write("boss", [{"call": workers}, READ, DONE], tools=[{"agent": "worker"}], board="read")
    site.write("worker", [put("first", "mine", 0), DONE], tools=[], board="write")

    async with site.serving():
        handle = await site.start("boss")
        result = await handle.result()
        heads = [await head_of(site, f"{handle.id}/c{number}") for number in range(1, 9)]

    written = [(await told(site, head))[0] for head in heads]
    assert sum(one["written"] for one in written) == 1
    assert (await results_told(site, result.head or ""))[-1].text.count('"version":1') == 1


async def test_it_stays_when_the_root_continues_as_new(site: Site) -> None:
    held = {"call": [{"look": {"what": "a", "held": True}}]}
    site.write("boss", [put("a", 1, 0), {"call": [{"worker": {"task": "go"}}]}, READ, DONE], board="write")
    agents = site.folder / "agents"
    text = (agents / "boss.yaml").read_text()
    (agents / "boss.yaml").write_text(text.replace('"tools": [', '"tools": [{"agent": "worker"}, '))
    site.write("worker", [held, put("a", 2, 1), DONE], board="write")

    async with site.serving():
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        async with asyncio.timeout(30):
            while not calls_of(child):
                await asyncio.sleep(0.05)
        await continued(handle)
        LET_GO.add(child)
        result = await handle.result()

    assert (await results_told(site, result.head or ""))[-1].text.find('"a":{"by":') > 0
    assert '"version":2' in (await results_told(site, result.head or ""))[-1].text


async def test_what_a_tainted_run_wrote_taints_its_readers(site: Site) -> None:
    untrusted = {"python": "tests.support.toolkit:look", "untrusted": True}
    site.write("boss", [{"call": [{"worker": {"task": "go"}}]}, DONE], tools=[{"agent": "worker"}], board="read")
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, put("a", 1, 0), DONE], tools=[untrusted], board="write")
    site.write("other", [{"call": [{"reader": {"task": "go"}}]}, DONE], tools=[{"agent": "reader"}], board="write")
    site.write("reader", [READ, DONE], tools=[], board="read")
    site.write(
        "root",
        [{"call": [{"worker": {"task": "go"}}]}, {"call": [{"reader": {"task": "go"}}]}, DONE],
        tools=[{"agent": "worker"}, {"agent": "reader"}],
    )

    async with site.serving():
        handle = await site.start("root")
        await handle.result()
        reader = await site.agents.handle(f"{handle.id}/c2").result()
        clean = await site.start("other")
        await clean.result()
        untouched = await site.agents.handle(f"{clean.id}/c1").result()

    assert reader.tainted
    assert not untouched.tainted


@pytest.mark.parametrize(
    ("value", "said"),
    [("x" * 5000, "a value of the board has at most 4096"), ("x" * 100, None)],
)
async def test_a_value_is_bounded(site: Site, value: str, said: str | None) -> None:
    site.write("writer", [put("a", value, 0), DONE], board="write")

    result, _ = await site.run("writer")

    (part,) = await results_told(site, result.head or "")
    assert part.error is (said is not None)
    assert (said or "written") in part.text


async def test_rules_judge_writes(site: Site) -> None:
    rules = [
        {"id": "closed", "match": {"tools": ["write_board"]}, "when": "args.key == 'a'", "verdict": "deny"},
        {"id": "rest", "match": {}, "verdict": "allow"},
    ]
    site.write("writer", [put("a", 1, 0), put("b", 2, 0), READ, DONE], board="write", policy=rules)

    result, _ = await site.run("writer")

    refused, _, board = await results_told(site, result.head or "")
    assert refused.text.startswith("refused:")
    assert list(json.loads(board.text)) == ["b"]


async def test_an_agent_without_it_has_none_of_the_tools(site: Site) -> None:
    site.write("plain", [READ, DONE])
    site.write("reader", [put("a", 1, 0), DONE], board="read")

    plain, _ = await site.run("plain")
    reader, _ = await site.run("reader")

    for result in (plain, reader):
        (part,) = await results_told(site, result.head or "")
        assert "there is no tool" in part.text
