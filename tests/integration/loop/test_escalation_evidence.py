"""What a person reads who is asked how a run goes on, and what the model reads of what they say."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.activities import agent as opening
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site
from tests.support.people import asked, decide, write_people
from tests.support.toolkit import calls_of

ALL = ("retry", "accept", "supply", "stop")
NOTHING_TO_ACCEPT = ("retry", "supply", "stop")
OBJECT = {"type": "object", "required": ["sum"]}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def stopped_over(site: Site, agent: str) -> Request:
    """What a run asks that is then stopped."""
    async with site.serving():
        handle = await site.start(agent)
        (request,) = await asked(handle)
        await decide(handle, request, "stop")
        await handle.result()
    return request


async def test_each_model_of_a_dead_route_says_why(site: Site) -> None:
    models = ["scripted:first.script.yaml", "scripted:second.script.yaml"]
    site.write("second", [{"fail": [{"status": 403}], "say": "never"}])
    site.write("first", [{"fail": [{"status": 401}], "say": "never"}], models=models)

    request = await stopped_over(site, "first")

    first = "scripted:first.script.yaml gave no answer: first.script.yaml: HTTP 401, as the script says for attempt 1"
    second = first.replace("first", "second").replace("401", "403")
    assert (request.kind, request.choices) == ("escalation", NOTHING_TO_ACCEPT)
    assert request.evidence == (first, second)
    assert request.reason == second


EMPTY = ({"finish": "empty"}, "answer not taken: the model answered with nothing")
BLANK = ({"say": " "}, "answer not taken: the answer was empty")
CUT = ({"finish": "truncated", "say": "The sum"}, "answer not taken: the answer was cut at the output limit")
CUT_BEFORE = ({"finish": "truncated"}, CUT[1])
NO_JSON = ({"say": "5"}, "answer not taken: the answer must be a JSON object, not a number")
UNFIT = ({"say": "{}"}, 'answer not taken: "sum" is a required property')
LAST = "3 answers in a row could not be taken; the last: "


@pytest.mark.parametrize(
    ("answers", "choices", "shown"),
    [
        ((EMPTY, EMPTY, EMPTY), NOTHING_TO_ACCEPT, None),
        ((EMPTY, CUT, UNFIT), ALL, "{}"),
        ((UNFIT, NO_JSON, CUT), ALL, "The sum"),
        ((UNFIT, CUT, CUT_BEFORE), NOTHING_TO_ACCEPT, None),
        ((NO_JSON, UNFIT, EMPTY), NOTHING_TO_ACCEPT, None),
    ],
    ids=["empty", "unfit", "cut off", "cut off at once", "empty in the end"],
)
async def test_each_answer_that_was_not_taken(
    site: Site, answers: tuple[tuple[Any, str], ...], choices: tuple[str, ...], shown: str | None
) -> None:
    site.write("unable", [turn for turn, _ in answers], output_schema=OBJECT)

    request = await stopped_over(site, "unable")

    lines = [line for _, line in answers]
    assert (request.kind, request.choices) == ("escalation", choices)
    assert request.evidence == (*lines, *([f"its answer: {shown}"] if shown else []))
    assert request.reason == LAST + lines[-1].removeprefix("answer not taken: ")


async def test_blank_answer_cannot_be_accepted(site: Site) -> None:
    site.write("blank", [BLANK[0]] * 3)

    request = await stopped_over(site, "blank")

    assert request.evidence == (BLANK[1],) * 3
    assert request.choices == NOTHING_TO_ACCEPT


async def test_answer_that_was_taken_makes_those_before_it_forgotten(site: Site) -> None:
    turns = [EMPTY[0], {"call": [{"look": {"what": "x"}}]}, *[CUT_BEFORE[0]] * 3]
    site.write("late", turns)

    assert (await stopped_over(site, "late")).evidence == (CUT[1],) * 3


async def test_attempts_and_effects_are_told(site: Site) -> None:
    turns = [{"call": [{"pay": {"order": 7}}, {"send": {"to": f"n{number}", "refuse": True}}]} for number in range(2)]
    site.write("bad", turns, attempts=2)

    request = await stopped_over(site, "bad")

    assert request.evidence == (
        "attempt 1: send to=n0 refuse=true: error: there is no such address",
        "attempt 2: send to=n1 refuse=true: error: there is no such address",
        "done so far: pay order=7",
        "done so far: pay order=7",
    )
    assert (request.tool, request.effect, request.step) == (None, None, 2)


@pytest.mark.parametrize(
    ("value", "comment", "told"),
    [
        (7, "", "7"),
        (2.5, "roughly", "2.5 roughly"),
        ({"shelf": 3, "at": ["left"]}, "ask Bob", '{"at":["left"],"shelf":3} ask Bob'),
        ([1, 2], "", "[1,2]"),
        (True, "", "true"),
        ("Look again.", "ask Bob", "Look again. ask Bob"),
        (None, "ask Bob", "ask Bob"),
    ],
)
async def test_guidance_reaches_the_model_as_words(site: Site, value: Any, comment: str, told: str) -> None:
    failing = {"call": [{"send": {"to": "ann", "refuse": True}}, {"look": {"what": "x"}}]}
    site.write("guided", [failing, {"say": "done"}], attempts=1)

    async with site.serving():
        handle = await site.start("guided")
        (request,) = await asked(handle)
        await decide(handle, request, "retry", value=value, comment=comment)
        result = await handle.result()

    last = (await conversation(site, result.head or ""))[-2]
    assert last.parts[-1].text == f"[ann@example.com says] Try again. {told}"
    assert result.status is RunStatus.COMPLETED


@pytest.mark.parametrize("kind", ["escalation", "outcome"])
async def test_a_long_comment_stops_the_run(site: Site, kind: str) -> None:
    trouble = "lose_reply" if kind == "outcome" else "refuse"
    site.write("long", [{"call": [{"send": {"to": "ann", trouble: True}}]}, {"say": "done"}], attempts=1)
    comment = "x" * 2000

    async with site.serving():
        handle = await site.start("long")
        (request,) = await asked(handle)
        receipt = await decide(handle, request, "stop", comment=comment)
        async with asyncio.timeout(30):
            result = await handle.result()

    assert (request.kind, receipt.status) == (kind, "settled")
    assert (result.status, result.output) == (RunStatus.STOPPED, None)
    assert result.reason == f"stopped by ann@example.com: {'x' * 471}…"
    assert [entry.call for entry in result.uncertain] == (["send to=ann lose_reply=true"] if kind == "outcome" else [])
    assert len(calls_of(handle.id, "send")) == 1


async def test_failures_of_every_tool_are_told_with_their_reasons_whole(site: Site) -> None:
    missing = {"pay": {"order": "x" * 200}}
    turns = [{"call": [{"send": {"to": "ann", "refuse": True}}, missing, {"look": {"what": "x"}}]} for _ in range(2)]
    site.write("many", turns, attempts=2)

    request = await stopped_over(site, "many")

    assert request.title == "'pay' failed 2 times"
    assert [line.partition(": ")[0] for line in request.evidence] == [
        "attempt 1",
        "attempt 2",
        *["'send' failed 2 times"] * 2,
    ]
    assert request.evidence[2:] == (
        "'send' failed 2 times: send to=ann refuse=true: error: there is no such address",
        "'send' failed 2 times: send to=ann refuse=true: repeated",
    )


async def test_run_from_before_keeps_its_choices(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LOOP", Change.ACCEPTS_RESULTS.first - 1)
    failing = {"call": [{"send": {"to": "ann", "refuse": True}}, {"look": {"what": "x"}}]}
    site.write("older", [failing, {"say": "done"}], attempts=1)

    async with site.serving():
        handle = await site.start("older")
        (request,) = await asked(handle)
        await decide(handle, request, "accept")
        result = await handle.result()

    assert request.choices == ALL
    assert result.status is RunStatus.COMPLETED
