"""`mandate inbox` with its filters: each leaves out what does not fit, and nothing else."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, PEOPLE, asked, write_people
from tests.support.place import Done, Place

PAY = {"pay": {"order": 1, "amount": 120.0}}
QUESTION = {"ask_person": {"question": "Which colour?", "options": ["red", "blue"]}}
DONE = {"say": "done"}


def asks(*groups: str, **keys: Any) -> list[dict[str, Any]]:
    return [{**ASK_ALL[0], "approvers": {"groups": list(groups)}, **keys}, ASK_ALL[1]]


RUNS = {
    # name: agent, turns, policy, who asks for it
    "payment": ("payer", [{"call": [PAY]}, DONE], asks("finance"), "eve@example.com"),
    "own": ("boss", [{"call": [PAY]}, DONE], asks("finance"), "ann@example.com"),
    "letter": ("clerk", [{"call": [{"send": {"to": "Ada"}}]}, DONE], asks("legal"), "eve@example.com"),
    "both": ("board", [{"call": [PAY, QUESTION]}, DONE], asks("finance", "legal", quorum=2), "eve@example.com"),
}
"""Waiting: `payment:r1` and `own:r1` for finance, `letter:r1` for legal, `both:r1` for either, `both:r2` for anyone."""

ALL = {"payment:r1", "own:r1", "letter:r1", "both:r1", "both:r2"}


@dataclass(frozen=True, slots=True)
class Desk:
    """A place whose runs all wait."""

    place: Place
    site: Site

    async def inbox(self, *words: str) -> Done:
        return await self.place.run("inbox", *words)

    async def listed(self, *words: str) -> list[dict[str, Any]]:
        done = await self.inbox(*words, "-o", "json")
        assert done.code == 0, done.err
        requests: list[dict[str, Any]] = json.loads(done.out)["requests"]
        return requests

    async def names(self, *words: str) -> set[str]:
        found = [request["name"] for request in await self.listed(*words)]
        assert len(set(found)) == len(found)
        return set(found)


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """Commands are ann's unless they say otherwise."""
    folder = tmp_path_factory.mktemp("filters")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        people = str(write_people(folder, PEOPLE))
        site = new_site(folder, client, MANDATE_PEOPLE=people)
        for agent, turns, policy, _ in RUNS.values():
            site.write(agent, turns, policy=policy, people={"expires": "2h"})
        env = {
            **os.environ,
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_CONFIG_FILE": str(folder / "none.toml"),
            "MANDATE_FOLDER": str(folder / "state"),
            "MANDATE_PEOPLE": people,
            "MANDATE_USER": "ann@example.com",
        }
        found = Desk(Place(folder, server.address, client, env), site)
        async with site.serving():
            for name, (agent, _, _, requester) in RUNS.items():
                handle = await site.agents.start(agent, "Go on.", workflow_id=name, requester=requester)
                await asked(handle, 2 if name == "both" else 1)
            async with asyncio.timeout(30):
                while await found.names() != ALL:
                    await asyncio.sleep(0.1)
            yield found


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("", ALL),
        ("--group finance", {"payment:r1", "own:r1", "both:r1"}),
        ("--group legal", {"letter:r1", "both:r1"}),
        ("--group anyone", {"both:r2"}),
        ("--group nobody", set()),
        ("--kind approval", ALL - {"both:r2"}),
        ("--kind question", {"both:r2"}),
        ("--agent clerk", {"letter:r1"}),
        ("--agent board", {"both:r1", "both:r2"}),
        ("--agent nobody", set()),
        ("--mine", {"payment:r1", "both:r1", "both:r2"}),
        ("--mine --by cleo@example.com", {"letter:r1", "both:r1", "both:r2"}),
        ("--mine --by bob@example.com", ALL - {"letter:r1"}),
        ("--mine --by dan@example.com", {"both:r2"}),
        ("--group finance --agent boss", {"own:r1"}),
        ("--mine --agent boss", set()),
        ("--agent board --kind approval --group legal --mine", {"both:r1"}),
    ],
)
async def test_a_filter_leaves_out_what_does_not_fit(desk: Desk, words: str, left: set[str]) -> None:
    assert await desk.names(*words.split()) == left


async def test_what_is_left_out_is_not_said_to_be_open(desk: Desk) -> None:
    done = await desk.inbox("--kind", "outcome")

    assert (done.code, done.out) == (0, "nothing is open\n")


async def test_numbers_are_those_of_what_is_left(desk: Desk) -> None:
    """The first of a filtered inbox is request 1 of the commands that follow."""
    listed = await desk.listed("--group", "legal", "--agent", "clerk")
    shown = await desk.place.run("show", "1")

    assert [(request["number"], request["name"]) for request in listed] == [(1, "letter:r1")]
    assert shown.out.splitlines()[0] == "send to=Ada?"


async def test_age_is_the_time_since_it_was_asked(desk: Desk) -> None:
    (request,) = await desk.listed("--agent", "payer")
    asked_at = datetime.fromisoformat(request["requested_at"])
    await asyncio.sleep(max(0.0, 2.0 - (datetime.now(UTC) - asked_at).total_seconds()))
    least = (datetime.now(UTC) - asked_at).total_seconds()
    done = await desk.inbox("--agent", "payer")
    most = (datetime.now(UTC) - asked_at).total_seconds()

    head, row = done.out.splitlines()
    assert head.split()[:3] == ["age", "expires", "request"]
    number, age, left, name, *_ = row.split()
    size = {"s": 1, "m": 60}[age[-1]]
    assert (number, left, name) == ("1", "2h", "payment:r1")
    assert least - size / 2 <= int(age[:-1]) * size <= most + size / 2
    assert datetime.fromisoformat(request["expires_at"]).timestamp() - asked_at.timestamp() == pytest.approx(7200)


async def test_those_that_expire_first_are_at_the_top(desk: Desk) -> None:
    listed = await desk.listed()

    ends = [datetime.fromisoformat(request["expires_at"]) for request in listed]
    assert ends == sorted(ends)
    assert [request["number"] for request in listed] == [1, 2, 3, 4, 5]
