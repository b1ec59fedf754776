"""What a person's choice on an escalation leads to: every kind of trouble with every choice that it has."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, conversation, new_site
from tests.support.people import asked, decide, decision, open_requests, refusal_of, told_of, write_people
from tests.support.toolkit import calls_of

ALL = ("retry", "accept", "supply", "stop")
NOTHING_TO_ACCEPT = ("retry", "supply", "stop")


@dataclass(frozen=True)
class Trouble:
    """A run that cannot go on by itself: three times nothing, then what it does if it may."""

    turns: list[Any]
    title: str
    choices: tuple[str, ...] = ALL
    settings: dict[str, Any] | None = None


def refused(number: int) -> dict[str, Any]:
    return {"send": {"to": f"shelf {number}", "refuse": True}}


LOOK = {"look": {"what": "x"}}
SAME = [{"repeat": 5, "call": [LOOK]}, {"say": "done"}]
SCHEMA = {"checks": [{"name": "form", "after": "final", "schema": {"type": "object"}}]}
TROUBLES = {
    "tool": Trouble(
        [*({"call": [refused(number), LOOK]} for number in range(4)), {"say": "done"}],
        "'send' failed 3 times",
        NOTHING_TO_ACCEPT,
    ),
    "checked": Trouble(
        [*({"call": [{"look": {"what": f"shelf {number}"}}]} for number in range(4)), {"say": "done"}],
        "'look' failed 3 times",
        ALL,
        {"checks": [{"after": "look", "expect": "result == 'nothing'"}]},
    ),
    "turns": Trouble(
        [{"call": [refused(1)]}, {"call": [{"no_tool": {}}]}, {"call": [{"pay": {}}]}, {"say": "done"}],
        "3 turns in a row had no call that worked",
        NOTHING_TO_ACCEPT,
    ),
    "same": Trouble(SAME, "the agent makes the same call again and again, with the same result", ALL, {"same_call": 2}),
    "final": Trouble(
        [{"repeat": 3, "say": "no json"}, {"say": "{}"}], "the final answer could not be taken 3 times", ALL, SCHEMA
    ),
    "model": Trouble(
        [{"fail": [{"status": 401}], "say": "done"}],
        "scripted:model.script.yaml gave no answer: ",
        ("retry", "supply", "stop"),
    ),
}


@dataclass(frozen=True)
class Row:
    """What becomes of a run; `ALL` stands in `reason` for whatever its trouble is called."""

    trouble: str
    choice: str
    status: RunStatus
    output: Any
    reason: str | None
    steps: int
    """Answers of the model, those before the choice included."""
    said: str | None = None
    """What the model is told after it."""

    def __str__(self) -> str:
        return f"{self.trouble}: {self.choice}"


DONE, OVER, STOPPED = RunStatus.COMPLETED, RunStatus.DECLINED, RunStatus.STOPPED
ENOUGH, LATE = "stopped by ann@example.com: enough", "; nobody decided before "
AGAIN = "[ann@example.com says] Try again. Look in the cellar. enough"
GO_ON = "[ann@example.com says] I accept it as it is; go on. enough"
HAVE = "[ann@example.com says] I have supplied the result. enough"
MINE = "its answer is a person's: ann@example.com chose supply (enough)"
ROWS = [
    Row("tool", "retry", DONE, "done", None, 5, AGAIN),
    Row("tool", "supply", DONE, "done", None, 5, HAVE),
    Row("tool", "stop", STOPPED, None, ENOUGH, 3),
    Row("tool", "expired", OVER, None, LATE, 3),
    Row("checked", "retry", DONE, "done", None, 5, AGAIN),
    Row("checked", "accept", DONE, "done", None, 5, GO_ON),
    Row("turns", "retry", DONE, "done", None, 4, AGAIN),
    Row("turns", "supply", DONE, "done", None, 4, HAVE),
    Row("turns", "stop", STOPPED, None, ENOUGH, 3),
    Row("turns", "expired", OVER, None, LATE, 3),
    Row("same", "retry", DONE, "done", None, 6, AGAIN),
    Row("same", "supply", DONE, "done", None, 6, HAVE),
    Row("same", "stop", STOPPED, None, ENOUGH, 4),
    Row("same", "expired", OVER, None, LATE, 4),
    Row("final", "retry", DONE, "{}", None, 4, AGAIN),
    Row("final", "supply", DONE, "Look in the cellar.", MINE, 3),
    Row("final", "stop", STOPPED, None, ENOUGH, 3),
    Row("final", "expired", OVER, "no json", LATE, 3),
    Row("model", "supply", DONE, "Look in the cellar.", MINE, 0),
    Row("model", "expired", OVER, None, LATE, 0),
]


@dataclass(frozen=True)
class Ending:
    """One run of the table."""

    run: str
    request: Request
    result: RunResult
    words: list[str]
    """All texts that the model was told."""
    answers: list[str]
    """All answers to its calls, the notes beside them included."""


@pytest.fixture(scope="module")
async def endings(tmp_path_factory: pytest.TempPathFactory, client: Client) -> AsyncIterator[dict[Row, Ending]]:
    """All rows at once, one run each."""
    folder = tmp_path_factory.mktemp("escalations")
    site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
    for name, trouble in TROUBLES.items():
        for agent, people in ((name, {}), (f"{name}_late", {"people": {"expires": "1s"}})):
            models = {"models": [f"scripted:{name}.script.yaml"]}
            site.write(agent, trouble.turns, **models, **(trouble.settings or {}), **people)
    async with site.serving():
        ended = await asyncio.gather(*(_ending(site, row) for row in ROWS))
        yield dict(zip(ROWS, ended, strict=True))


async def _ending(site: Site, row: Row) -> Ending:
    is_late = row.choice == "expired"
    handle = await site.start(f"{row.trouble}_late" if is_late else row.trouble, "Find the kettle.")
    if not is_late:
        (request,) = await asked(handle)
        value = {"value": "Look in the cellar."} if row.choice in {"retry", "supply"} else {}
        await decide(handle, request, row.choice, comment="enough", **value)
    result = await handle.result()
    if is_late:
        (request,) = await told_of(site.client, handle)
    parts = [part for message in await conversation(site, result.head or "") for part in message.parts]
    words = [part.text for part in parts if part.kind == "text"]
    return Ending(handle.id, request, result, words, [part.text for part in parts if part.kind == "result"])


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_escalation(endings: dict[Row, Ending], row: Row) -> None:
    ending, trouble = endings[row], TROUBLES[row.trouble]
    result, request = ending.result, ending.request

    assert (request.kind, request.choices, request.goal) == ("escalation", trouble.choices, "Find the kettle.")
    assert request.title.startswith(trouble.title)
    assert (result.status, result.output, result.usage.model_calls) == (row.status, row.output, row.steps)
    if row.choice == "expired":
        assert (result.reason or "").startswith(f"{request.reason}{row.reason}")
    else:
        assert result.reason == row.reason
    assert [text for text in ending.words if text.startswith("[ann")] == ([row.said] if row.said else [])
    assert result.uncertain == ()


@pytest.mark.parametrize("choice", ["retry", "supply"])
def test_attempts_of_a_tool_count_anew(endings: dict[Row, Ending], choice: str) -> None:
    ending = next(ending for row, ending in endings.items() if (row.trouble, row.choice) == ("tool", choice))

    of_send = ending.answers[::2]
    supplied = "[supplied by ann@example.com]\nLook in the cellar."
    third = "[attempt 3 of 3 of 'send' failed; a person is asked]\nthere is no such address"
    assert of_send == [
        "there is no such address",
        "[attempt 2 of 3 of 'send' failed]\nthere is no such address",
        supplied if choice == "supply" else third,
        "there is no such address",
    ]
    assert len(calls_of(ending.run, "send")) == 4


@pytest.mark.parametrize(("trouble", "place"), [("turns", 2), ("same", 3)])
def test_supplied_result_stands_for_the_last_call(endings: dict[Row, Ending], trouble: str, place: int) -> None:
    ending = next(ending for row, ending in endings.items() if (row.trouble, row.choice) == (trouble, "supply"))

    supplied = [number for number, text in enumerate(ending.answers) if "Look in the cellar." in text]
    assert supplied == [place]
    assert ending.answers[place] == "[supplied by ann@example.com]\nLook in the cellar."


def test_same_call_counts_anew(endings: dict[Row, Ending]) -> None:
    ending = next(ending for row, ending in endings.items() if (row.trouble, row.choice) == ("same", "retry"))

    told = "[you have made this call 2 times with the same result; do something else, or give your answer]\n"
    assert ending.answers == ["looked at x", f"{told}looked at x", *["looked at x"] * 3]


async def test_a_model_that_answers_again_is_told_the_guidance(tmp_path: Path, client: Client) -> None:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    site.write("model", TROUBLES["model"].turns)

    async with site.serving():
        handle = await site.start("model")
        (request,) = await asked(handle)
        site.write("model", [{"expect": {"user": f"*{AGAIN}"}, "say": "done"}])
        await decide(handle, request, "retry", value="Look in the cellar.", comment="enough")
        result = await handle.result()

    assert (result.status, result.output, result.usage.model_calls) == (DONE, "done", 1)


async def escalating(tmp_path: Path, client: Client, *, first: str, then: str) -> Site:
    """A run of which finance is asked for a while, then legal too."""
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    further = {"escalate": {"groups": ["legal"], "expires": then}}
    people = {"approvers": {"groups": ["finance"]}, "expires": first, "on_expiry": further}
    site.write("tool", TROUBLES["tool"].turns, people=people)
    return site


async def test_nobody_of_the_next_group_either(tmp_path: Path, client: Client) -> None:
    site = await escalating(tmp_path, client, first="5s", then="4s")

    async with site.serving():
        handle = await site.start("tool")
        (first,) = await asked(handle)
        refusal = await refusal_of(handle, "decide", decision(first, "retry", "cleo@example.com"))
        async with asyncio.timeout(30):
            while (second := (await open_requests(handle)).requests[0]).waits_for == first.waits_for:
                await asyncio.sleep(0.05)
        result = await handle.result()

    assert (first.waits_for, second.waits_for) == (("finance",), ("finance", "legal"))
    assert refusal == "by: 'cleo@example.com' may not decide on r1: group finance"
    assert (second.id, second.digest, second.choices) == (first.id, first.digest, NOTHING_TO_ACCEPT)
    assert (result.status, result.output) == (OVER, None)
    assert (result.reason or "").startswith("'send' failed 3 times; nobody decided before ")
    assert result.usage.model_calls == 3


async def test_the_next_group_helps(tmp_path: Path, client: Client) -> None:
    site = await escalating(tmp_path, client, first="1s", then="1m")

    async with site.serving():
        handle = await site.start("tool")
        async with asyncio.timeout(30):
            while (request := (await asked(handle))[0]).waits_for == ("finance",):
                await asyncio.sleep(0.05)
        await decide(handle, request, "retry", "cleo@example.com")
        result = await handle.result()

    assert (result.status, result.output, result.reason) == (DONE, "done", None)
