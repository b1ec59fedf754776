"""Limits of runs at the terminal: lowered by `run --budget`, raised by people, with our CLI and Temporal's."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from mandate.workers.client.client import AgentClient
from mandate.workers.dev_server.binary import find_binary
from tests.support.people import asked
from tests.support.place import BIN, Done, Place, new_place

TOOLS = '''
from mandate import tool

@tool(effect="read")
def look(shelf: int) -> str:
    """Look."""
    return f"shelf {shelf} is empty"
'''

AGENT = {
    "name": "clerk",
    "instructions": "Look.",
    "models": [{"model": "scripted:clerk.script.yaml", "price": {"input": "1", "output": "10"}}],
    "tools": [{"python": "clerk_tools:look"}],
    "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
    "max_output_tokens": 1000,
    "same_call": 1000,
    "people": {"expires": "1h"},
    "budget": {
        "steps": 20,
        "model_calls": 4,
        "cost_usd": "0.50",
        "when_used_up": "ask",
        "raise_at_most": {"model_calls": 9, "cost_usd": "5.00"},
    },
}
LOOK = {"repeat": 100, "call": [{"look": {"shelf": 1}}], "usage": {"input_tokens": 1000, "output_tokens": 200}}
SCRIPT = {
    "conversations": [
        {"match": "look*", "turns": [LOOK]},
        {"match": "*", "turns": [{"say": "Done."}]},
    ]
}
UNCHECKED = "start request: it cannot be checked now who asks"
LIMITS = "steps, model_calls, tool_calls, tokens, cost_usd, wall_time, work_time, depth, children"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A place with a worker that serves `clerk`; commands are ann's."""
    files = {
        "clerk_tools.py": TOOLS,
        "agents/clerk.yaml": json.dumps(AGENT),
        "agents/hasty.yaml": json.dumps({**AGENT, "name": "hasty", "people": {"expires": "1s"}}),
        "agents/clerk.script.yaml": json.dumps(SCRIPT),
        "people.yaml": "people: [{name: ann@example.com}, {name: cy@example.com}]",
        "budgets.yaml": "budgets: []",
    }
    folder = tmp_path_factory.mktemp("clerk")
    (folder / "bin").mkdir()
    (folder / "bin" / "temporal").symlink_to(find_binary(lambda _: None))
    (folder / "bin" / "mandate").symlink_to(BIN / "mandate")
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "MANDATE_BUDGETS": str(folder / "budgets.yaml"),
        "MANDATE_PEOPLE": str(folder / "people.yaml"),
        "MANDATE_USER": "ann@example.com",
    }
    async with new_place(folder, files, **env) as place, place.serving("clerk"):
        yield place


async def parked(desk: Place) -> str:
    """The workflow id of a new run that asks for a higher limit."""
    name = f"look-{uuid4().hex[:6]}"
    run = await AgentClient(desk.client, "agents").start("clerk", "look", workflow_id=name, requester="cy@example.com")
    await asked(run)
    return run.id


async def raised(desk: Place, name: str) -> dict[str, Any]:
    """The limits of a run that asks again."""
    await asked(AgentClient(desk.client, "agents").handle(name))
    told: dict[str, Any] = json.loads((await desk.run("show", name, "-o", "json")).out)["budget"]["limits"]
    return told


async def commands(desk: Place, request: str, choice: str) -> tuple[str, str]:
    """Our command and Temporal's for a choice, as `mandate show` prints them."""
    told = json.loads((await desk.run("show", request, "-o", "json")).out)
    way = next(way for way in told["commands"] if way["choice"] == choice)
    return way["mandate"], way["temporal"]


async def typed(desk: Place, command: str) -> Done:
    return await desk.run("-c", command, program="sh")


async def test_printed_commands_raise_limits_as_they_are(desk: Place) -> None:
    name = await parked(desk)

    ours, _ = await commands(desk, f"{name}:r1", "raise")
    done = await typed(desk, ours)
    limits = await raised(desk, name)

    assert ours == f"""mandate decide {name}:r1 --choice raise --value '{{"model_calls":8}}'"""
    assert (done.code, done.out) == (0, f"{name}:r1  r1 is settled: ann@example.com chose raise: 8 model calls\n")
    assert limits["model_calls"] == 8

    _, temporals = await commands(desk, f"{name}:r2", "raise")
    done = await typed(desk, temporals.replace("<your name>", "ann@example.com"))
    limits = await raised(desk, name)

    assert (done.code, done.err) == (0, "")
    assert limits["model_calls"] == 9

    _, temporals = await commands(desk, f"{name}:r3", "answer")
    done = await typed(desk, temporals.replace("<your name>", "ann@example.com"))
    ended = await AgentClient(desk.client, "agents").handle(name).result()

    assert done.code == 0
    assert (ended.status, ended.output) == ("exhausted", "This is all that I have.")
    assert ended.reason == "the limit of 9 model calls is used up"


async def test_raise_is_short_for_the_choice_with_its_value(desk: Place) -> None:
    name = await parked(desk)

    done = await desk.run("decide", f"{name}:r1", "--raise", "model_calls=6", "--raise", "cost_usd=1.50")
    limits = await raised(desk, name)

    assert (done.code, done.out) == (
        0,
        f"{name}:r1  r1 is settled: ann@example.com chose raise: 6 model calls, $1.50\n",
    )
    assert (limits["model_calls"], limits["cost_usd"]) == (6, "1.50")


async def test_request_tells_what_was_spent_and_what_can_be_chosen(desk: Place) -> None:
    name = await parked(desk)

    listed = (await desk.run("inbox")).out
    shown = (await desk.run("show", f"{name}:r1")).out.splitlines()
    run = (await desk.run("show", name)).out.splitlines()

    assert f"{name}:r1  clerk  anyone     the limit of 4 model calls is used up: raise it?" in listed
    for line in (
        "the limit of 4 model calls is used up: raise it?",
        f"request  {name}:r1, about a budget",
        "  spent so far: $0.0090, 3,600 tokens",
        "  on: 3 steps, 3 model calls; calls of look 3",
        "  it may be raised to 9 model calls, $5.00 at most",
        "  raise         the run goes on with new limits: --raise LIMIT=VALUE, or --value with them as JSON",
        f"""  mandate decide {name}:r1 --choice raise --value '{{"model_calls":8}}'""",
    ):
        assert line in shown, line
    assert any(line.startswith("until ") and line.endswith("; then the agent gives its last answer") for line in shown)
    assert run[run.index("limits") :] == [
        "limits",
        "  limit        at most  spent   left",
        "  steps        20       3       17",
        "  model calls  4        3       1",
        "  cost         $0.50    $0.009  $0.491",
        "",
        "models",
        "  model                       answers  tokens in  out  cost",
        "  scripted:clerk.script.yaml  3        3,000      600  $0.009",
    ]
    assert json.loads((await desk.run("show", name, "-o", "json")).out)["models"] == [
        {
            "model": "scripted:clerk.script.yaml",
            "answers": 3,
            "input_tokens": 3000,
            "output_tokens": 600,
            "cost_usd": "0.009",
        }
    ]


async def test_inbox_lists_only_requests_about_budgets(desk: Place, limited: str) -> None:
    """`mandate inbox --kind budget` is a command of budgets.md."""
    done = await desk.run("inbox", "--kind", "budget", "-o", "json")
    usage = await desk.run("inbox", "--help")

    assert done.code == 0, done.err
    told = json.loads(done.out)["requests"]
    assert f"{limited}:r1" in [request["name"] for request in told]
    assert {request["kind"] for request in told} == {"budget"}
    assert "outcome, budget." in " ".join(usage.out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--choice", "raise"], 'value: must be an object with the new limits, for example {"cost_usd": "5.00"}'),
        (["--choice", "raise", "--value", "model_calls=6"], "value: must be an object with the new limits, "),
        (["--choice", "raise", "--value", "{}"], "value: names no limit; give at least one, "),
        (["--choice", "raise", "--value", '{"money": 5}'], "value: money: is not a known key"),
        (["--choice", "raise", "--value", '{"cost_usd": 1.5}'], "value: cost_usd: 1.5: an amount is exact: "),
        (["--raise", "cost_usd=abc"], "value: cost_usd: 'abc': an amount is digits, with up to nine decimals"),
        (["--raise", "cost_usd=-1"], "value: cost_usd: '-1': must be more than 0"),
        (["--raise", "cost_usd=0.40"], "value: cost_usd: 0.40 is not more than the limit of now, 0.50"),
        (["--raise", "cost_usd=5.01"], "value: cost_usd: it may be raised to 5.00 at most"),
        (["--raise", "model_calls=4"], "value: model_calls: 4 is not more than the limit of now, 4"),
        (["--raise", "model_calls=6.5"], "value: model_calls: '6.5' is not a whole number"),
        (["--raise", "model_calls=-6"], "value: model_calls: -6: must be at least 1"),
        (["--raise", "steps=30"], "value: steps: it is not to be raised"),
        (["--raise", "tokens=30"], "value: tokens: the run has no such limit"),
        (["--raise", "wall_time=0s"], "value: wall_time: '0s': must be longer than 0s"),
        (["--raise", "money=3"], f"--raise 'money=3' is not LIMIT=VALUE with a limit of {LIMITS}"),
        (["--raise", "model_calls"], f"--raise 'model_calls' is not LIMIT=VALUE with a limit of {LIMITS}"),
        (["--raise", "steps=30", "--raise", "steps=31"], "--raise 'steps=31': steps is given twice"),
        (["--choice", "answer", "--value", '{"model_calls": 6}'], "value: goes with raise, not with 'answer'"),
        (["--choice", "answer", "--raise", "model_calls=6"], "--raise is the choice 'raise' with its value; "),
        ([], "--choice is missing; `show REQUEST` tells the choices of a request"),
        (["--choice", "raise", "--set", "model_calls=6"], "has no arguments to change; nothing was sent"),
    ],
)
async def test_limits_that_do_not_fit_are_told_and_nothing_is_sent(
    desk: Place, limited: str, words: list[str], sentence: str
) -> None:
    done = await desk.run("decide", f"{limited}:r1", *words)
    (request,) = await asked(AgentClient(desk.client, "agents").handle(limited))

    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert (request.id, request.decisions) == ("r1", ())


async def test_refused_choice_names_commands_that_are_taken(desk: Place, limited: str) -> None:
    listed = json.loads((await desk.run("inbox", "-o", "json")).out)["requests"]
    number = next(str(request["number"]) for request in listed if request["workflow_id"] == limited)
    how = (
        f"choose with `mandate decide {number} --choice ...`, "
        f"or raise a limit with `mandate decide {number} --raise LIMIT=VALUE`; nothing was sent\n"
    )

    approved = await desk.run("approve", number)
    rejected = await desk.run("reject", number)
    decided = await desk.run("decide", number, "--choice", "foo")
    answered = await desk.run("answer", number, "go on")

    allowed = f"error: {number} ({limited}:r1) takes the choices raise, answer, stop, not"
    assert approved.err.endswith(f"{allowed} 'approve'; {how}")
    assert rejected.err.endswith(f"{allowed} 'reject'; {how}")
    assert decided.err.endswith(f"{allowed} 'foo'; {how}")
    assert answered.err.endswith(f"error: {number} ({limited}:r1): value: goes with raise, not with 'answer'; {how}")


@pytest.fixture(scope="module")
async def limited(desk: Place) -> str:
    return await parked(desk)


async def test_request_that_nobody_answers_brings_the_last_answer(desk: Place) -> None:
    done = await desk.run("run", "hasty", "look", "--requester", "cy@example.com", "--id", "hasty-1")

    assert done.code == 1
    assert "no answer" not in done.out
    assert "exhausted: the limit of 4 model calls is used up; nobody decided before " in done.out
    assert "This is all that I have." in done.out


async def test_a_run_may_be_limited_further_and_says_what_counts(desk: Place) -> None:
    words = ("--budget", "cost_usd=0.05", "--budget", "model_calls=99", "--budget", "wall_time=1h")

    done = await desk.run("run", "clerk", "hello", "--id", "hello-1", *words)
    told = json.loads((await desk.run("show", "hello-1", "-o", "json")).out)["budget"]["limits"]

    assert done.code == 0
    expected = "limited to 4 model calls, the agent's, which is lower than 99 model calls; $0.05; 1h since the start"
    assert expected in done.err.splitlines()
    assert (told["cost_usd"], told["model_calls"], told["wall_time"], told["steps"]) == ("0.05", 4, "1h", 20)


async def test_detached_run_is_told_that_the_lower_limit_counts(desk: Place) -> None:
    limited = await desk.run("run", "clerk", "hello", "--id", "later-1", "-d", "--budget", "model_calls=99")
    stepped = await desk.run("run", "clerk", "hello", "--id", "later-2", "-d", "--steps", "99", "-o", "json")
    unlimited = await desk.run("run", "clerk", "hello", "--id", "later-3", "-d")

    told = "where the agent file has a lower limit, that one counts; see the limits with `mandate show {}`"
    assert told.format("later-1") in limited.err.splitlines()
    assert told.format("later-2") in stepped.err.splitlines()
    assert "lower limit" not in unlimited.err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("budgets.yaml", "pin_agent fails and is tried again: the file of budgets has a fault in line 1; "),
        (
            "people.yaml",
            f"pin_agent fails and is tried again: {UNCHECKED} (the file of people has a fault in line 1; ",
        ),
    ],
)
async def test_run_that_waits_for_a_file_to_be_mended_says_so_once(desk: Place, name: str, says: str) -> None:
    file = desk.folder / name
    whole = file.read_text()
    run = f"waits-{name[:3]}"

    file.write_text("faulty: 1")
    following = asyncio.create_task(desk.run("run", "clerk", "hello", "--id", run))
    try:
        await _tried_again(desk, run, attempts=6)
    finally:
        file.write_text(whole)
    done = await following

    told = [line for line in done.err.splitlines() if "tried again" in line]
    assert done.code == 0
    assert len(told) == 1
    assert told[0].startswith(f"{says}`mandate validate {file}` tells more")


async def _tried_again(desk: Place, run: str, *, attempts: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(RPCError):
                described = (await desk.client.get_workflow_handle(run).describe()).raw_description
                if any(activity.attempt >= attempts for activity in described.pending_activities):
                    return
            await asyncio.sleep(0.2)


async def test_help_names_the_limits(desk: Place) -> None:
    told = " ".join((await desk.run("run", "--help")).out.split())

    assert f"LIMIT is one of {LIMITS}. Can be repeated." in told
    assert "The same as `--budget steps=...`" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--budget", "money=3"], f"--budget 'money=3' is not LIMIT=VALUE with a limit of {LIMITS}"),
        (["--budget", "cost_usd"], f"--budget 'cost_usd' is not LIMIT=VALUE with a limit of {LIMITS}"),
        (["--budget", "cost_usd="], "start request: budget.cost_usd: '': an amount is digits, "),
        (["--budget", "cost_usd=abc"], "start request: budget.cost_usd: 'abc': an amount is digits, "),
        (["--budget", "cost_usd=-1"], "start request: budget.cost_usd: '-1': must be more than 0"),
        (["--budget", "cost_usd=0"], "start request: budget.cost_usd: '0': must be more than 0"),
        (["--budget", "steps=0"], "start request: budget.steps: 0: must be at least 1"),
        (["--budget", "steps=1.5"], "start request: budget.steps: '1.5' is not a whole number"),
        (["--budget", "tokens=-4"], "start request: budget.tokens: -4: must be at least 1"),
        (["--budget", "steps=-1"], "start request: budget.steps: -1: must be at least 1"),
        (["--budget", "tokens=-4.5"], "start request: budget.tokens: '-4.5' is not a whole number"),
        (["--budget", "wall_time=0s"], "start request: budget.wall_time: '0s': must be longer than 0s"),
        (["--budget", "work_time=10"], "start request: budget.work_time: '10': a duration is a number and a unit, "),
        (["--budget", "steps=2", "--budget", "steps=3"], "--budget 'steps=3': steps is given twice"),
        (["--budget", "steps=2", "--steps", "3"], "--steps and --budget steps=... are the same limit"),
    ],
)
async def test_limits_of_a_start_that_do_not_fit_are_told_and_nothing_is_started(
    desk: Place, words: list[str], sentence: str
) -> None:
    done = await desk.run("run", "clerk", "hello", "--id", "never", *words)
    shown = await desk.run("show", "never")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {sentence}")
    assert shown.code == 2


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"cost_usd": 0.5}, "budget.cost_usd: 0.5: an amount is exact: write it as a text in quotes, for example "),
        ({"step": 3}, "budget.step: is not a known key; did you mean 'steps'?"),
        ({"steps": True}, "budget.steps: true is not a whole number"),
        ({"wall_time": 60}, "budget.wall_time: 60: a duration needs a unit, "),
        ({"when_used_up": "stop"}, "budget.when_used_up: is not a known key"),
        ("0.50", "budget: '0.50' is not an object"),
    ],
)
async def test_start_of_another_client_is_told_the_field(desk: Place, budget: Any, sentence: str) -> None:
    request = {"agent": "clerk", "input": "hello", "requester": "cy@example.com", "budget": budget}
    start = ("workflow", "execute", "--type", "AgentWorkflow", "--task-queue", "agents", "--input", json.dumps(request))

    handle = await desk.client.start_workflow(
        "AgentWorkflow", request, id=f"odd-{uuid4().hex[:6]}", task_queue="agents"
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    done = await desk.run(*start, program="temporal")

    assert isinstance(failed.value.cause, ApplicationError)
    assert sentence in failed.value.cause.message
    assert done.code != 0
    assert sentence.split(":", 1)[0] in done.out + done.err


async def test_start_with_temporals_cli_takes_limits(desk: Place) -> None:
    request = {"agent": "clerk", "input": "hello", "requester": "cy@example.com", "budget": {"cost_usd": "0.05"}}
    start = ("workflow", "execute", "--type", "AgentWorkflow", "--task-queue", "agents", "--workflow-id", "cli-1")

    done = await desk.run(*start, "--input", json.dumps(request), program="temporal")
    told = json.loads((await desk.run("show", "cli-1", "-o", "json")).out)["budget"]["limits"]

    assert done.code == 0, done.err
    assert told["cost_usd"] == "0.05"
