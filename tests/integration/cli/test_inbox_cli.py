"""Requests at the terminal: real commands, a real worker, a real server."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mandate.workers.client.client import AgentClient
from tests.support.place import BIN, Done, Place, line_with, new_place

TOOLS = '''
from pathlib import Path
from mandate.activities.toolbox.decorator import tool

@tool(effect="keyed", sensitive=["card"])
def pay(amount: float, card: str, note: str = "") -> str:
    """Pay."""
    Path(__file__).with_name("paid.txt").open("a").write(f"{amount} {card} {len(note)}\\n")
    return f"paid {amount}"

@tool(effect="once")
def note(text: str) -> str:
    """Write a note."""
    return "noted"
'''

AGENT = """
name: till
instructions: Serve.
models: [scripted:till.script.yaml]
tools:
  - python: inbox_till_tools:pay
  - python: inbox_till_tools:note
policy:
  - {id: large, match: {tools: [pay]}, verdict: ask, approvers: {groups: [finance]}, expires: 24h}
  - {id: never, match: {tools: [pay]}, when: "args.amount >= 1000.0", verdict: deny}
  - {id: notes, match: {tools: [note]}, verdict: ask, quorum: 2, expires: 2h}
"""

LETTER = "Dear customer,\n" + "we are sorry.\n" * 100

SCRIPT: dict[str, Any] = {
    "strict": False,
    "conversations": [
        {"match": "pay*", "turns": [{"call": [{"pay": {"amount": 120.5, "card": "4000-1234"}}]}, {"say": "Done."}]},
        {
            "match": "letter*",
            "turns": [{"call": [{"pay": {"amount": 120.5, "card": "4000-1234", "note": LETTER}}]}, {"say": "Done."}],
        },
        {"match": "notes*", "turns": [{"call": [{"note": {"text": "a"}}, {"note": {"text": "b"}}]}, {"say": "Done."}]},
        {
            "match": "ask*",
            "turns": [{"call": [{"ask_person": {"question": "Which?", "options": ["red", "blue"]}}]}, {"say": "Done."}],
        },
    ],
}

PEOPLE = """
people:
  - {name: ann@example.com, groups: [finance]}
  - {name: bob@example.com}
  - {name: cy@example.com}
  - {name: req@example.com}
"""


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A place with a worker that serves the agent `till`; commands are ann's unless they say otherwise."""
    files = {
        "inbox_till_tools.py": TOOLS,
        "agents/till.yaml": AGENT,
        "agents/till.script.yaml": json.dumps(SCRIPT),
        "people.yaml": PEOPLE,
    }
    folder = tmp_path_factory.mktemp("inbox")
    ann = {"MANDATE_PEOPLE": str(folder / "people.yaml"), "MANDATE_USER": "ann@example.com"}
    async with new_place(folder, files, **ann) as place, place.serving("till"):
        yield place


async def parked(desk: Place, what: str, requests: int = 1) -> str:
    """The workflow id of a new run that wants so much from people, and is listed with it."""
    name = f"{what}-{uuid4().hex[:6]}"
    agents = AgentClient(desk.client, "agents")
    await agents.start("till", f"{what} it", workflow_id=name, requester="req@example.com")
    async with asyncio.timeout(60):
        while (name, requests) not in [(run.workflow_id, len(run.requests)) for run in (await agents.inbox()).runs]:
            await asyncio.sleep(0.05)
    return name


async def inbox(desk: Place, *words: str) -> list[dict[str, Any]]:
    done = await desk.run("inbox", "-o", "json", *words)
    assert done.code == 0, done.err
    requests: list[dict[str, Any]] = json.loads(done.out)["requests"]
    return requests


async def result(desk: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = await desk.client.get_workflow_handle(name).result()
    return found


def paid(desk: Place) -> str:
    """What the tool was last called with."""
    return (desk.folder / "paid.txt").read_text().splitlines()[-1]


async def test_request_is_found_looked_at_and_approved_by_its_number(desk: Place) -> None:
    name = await parked(desk, "pay")

    listed = await desk.run("inbox", "--mine", "--group", "finance", "--agent", "till", "--kind", "approval")
    number = next(entry["number"] for entry in await inbox(desk) if entry["workflow_id"] == name)
    shown = await desk.run("show", str(number))
    done = await desk.run("approve", str(number), "--comment", "fine")

    row = next(line for line in listed.out.splitlines() if name in line)
    assert row.split()[-7:] == ["24h", f"{name}:r1", "till", "finance", "pay", "amount=120.5", "card=***?"]
    assert "as ann@example.com" in listed.err
    lines = shown.out.splitlines()
    assert lines[0] == "pay amount=120.5 card=***?"
    for line in (
        f"request  {name}:r1, an approval",
        "effect   keyed",
        "  amount: 120.5",
        "  card: '***'",
        "  1 of finance (rule 'large'): nobody has decided",
        f"  mandate approve {name}:r1",
        f"  mandate reject {name}:r1",
    ):
        assert line in lines, line
    assert any("asked for by req@example.com" in line for line in lines)
    assert any("then it counts as rejected" in line for line in lines)
    assert "4000" not in shown.out + shown.err
    expected = f"{number} ({name}:r1)  r1 is approved: ann@example.com approved it\n"
    assert (done.code, done.out, done.err) == (0, expected, "as ann@example.com\n")
    assert (await result(desk, name))["status"] == "completed"
    assert paid(desk) == "120.5 4000-1234 0"


@pytest.mark.parametrize(
    ("by", "words", "sentence"),
    [
        ("req@example.com", [], "by: 'req@example.com' asked for this run and cannot decide for it"),
        ("bob@example.com", [], "by: 'bob@example.com' may not decide on r1: group finance"),
        ("nobody", [], "by: 'nobody' is not in the file of people; who may decide on r1: group finance"),
        ("ann@example.com", ["--set", "amount=5000"], "value: rule 'never' denies 'pay'"),
        ("ann@example.com", ["--set", "amount=abc"], 'value: amount: "abc" is not of type "number"'),
        (
            "ann@example.com",
            ["--digest", "d" * 43],
            "digest: it is not that of request r1; look at it again and decide on what it says now",
        ),
    ],
)
async def test_refusal_of_the_run_is_its_sentence_on_stderr(
    desk: Place, by: str, words: list[str], sentence: str
) -> None:
    name = await parked(desk, "pay")

    done = await desk.run("approve", f"{name}:r1", "--by", by, *words)
    await desk.run("stop", name)

    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1] == f"{name}:r1: {sentence}"


async def test_several_at_once_count_each_for_itself(desk: Place) -> None:
    name = await parked(desk, "notes", 2)

    unsaid = await desk.run("approve", f"{name}:r1", f"{name}:r2")
    first = await desk.run("approve", f"{name}:r1", f"{name}:r2", f"{name}:r9", "-o", "json", "--yes")
    again = await desk.run("-o", "json", "approve", f"{name}:r1")
    other = await desk.run("reject", f"{name}:r1", f"{name}:r2", "--by", "bob@example.com", "--comment", "no", "-y")
    late = await desk.run("approve", f"{name}:r1", "--by", "cy@example.com")

    assert (unsaid.code, unsaid.out, unsaid.err.splitlines()[-1]) == (
        2,
        "",
        "error: nobody can be asked whether to approve these 2; add --yes",
    )
    assert first.code == 1
    assert json.loads(first.out) == {
        "by": "ann@example.com",
        "decisions": [
            {"request": f"{name}:r1", "status": "recorded", "message": "recorded; r1 still needs 1 of anyone"},
            {"request": f"{name}:r2", "status": "recorded", "message": "recorded; r2 still needs 1 of anyone"},
            {"request": f"{name}:r9", "refused": "request r9 is not open; open are: r1, r2"},
        ],
    }
    assert (again.code, json.loads(again.out)["decisions"][0]["status"]) == (0, "recorded")
    assert (other.code, sorted(other.out.splitlines())) == (
        0,
        [f"{name}:{id_}  {id_} is rejected: bob@example.com rejected it" for id_ in ("r1", "r2")],
    )
    assert late.code != 0


async def test_arguments_are_set_and_what_is_hidden_stays(desk: Place) -> None:
    name = await parked(desk, "letter")

    done = await desk.run("approve", f"{name}:r1", "--set", "amount=80")

    assert (done.code, done.out) == (0, f"{name}:r1  r1 is approved: ann@example.com approved it\n")
    assert f"{name}:r1  amount: 120.5 → 80\n" in done.err
    assert (await result(desk, name))["status"] == "completed"
    assert paid(desk) == f"80.0 4000-1234 {len(LETTER)}"


def editor(script: str) -> str:
    program = f"import pathlib, sys; path = pathlib.Path(sys.argv[1]); text = path.read_text(); {script}"
    return shlex.join([sys.executable, "-c", program])


async def test_arguments_are_edited_whole_and_a_refused_edit_is_not_lost(desk: Place) -> None:
    name = await parked(desk, "letter")
    dear = editor("path.write_text(text.replace('amount: 120.5', 'amount: 5000').replace('we are', 'I am'))")

    unchanged = await desk.run("approve", f"{name}:r1", "--edit", EDITOR=editor("pass"))
    refused = await desk.run("approve", f"{name}:r1", "--edit", VISUAL=dear)
    kept = Path(refused.err.rpartition("--from ")[2].strip().rstrip(")"))
    text = kept.read_text()
    kept.write_text(text.replace("5000", "80"))
    done = await desk.run("approve", f"{name}:r1", "--from", str(kept))
    kept.unlink()

    assert (unchanged.code, unchanged.err.splitlines()[-1]) == (
        2,
        "error: nothing was changed, so nothing was sent; without --edit the call is approved as it is",
    )
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        f"{name}:r1: value: rule 'never' denies 'pay' (your text is kept: go on with --from {kept})"
    )
    assert "card: '***'" in text
    assert "note: |\n  Dear customer,\n  I am sorry.\n" in text
    assert text.startswith(f"# {name}:r1 pay amount=120.5")
    assert done.code == 0, done.err
    assert (await result(desk, name))["status"] == "completed"
    assert paid(desk) == f"80.0 4000-1234 {len(LETTER.replace('we are', 'I am'))}"


async def test_request_is_shown_whole_and_its_commands_work(desk: Place) -> None:
    name = await parked(desk, "letter")

    told = json.loads((await desk.run("show", f"{name}:r1", "-o", "json")).out)
    text = (await desk.run("show", f"{name}:r1")).out
    elsewhere = await desk.run("show", f"{name}:r1", MANDATE_STORE=f"sqlite:///{desk.folder / 'other.db'}")
    program, *words = shlex.split(told["commands"][0]["mandate"])
    done = await desk.run(*words)
    gone = await desk.run("show", f"{name}:r1")

    assert told["arguments"] == {"amount": 120.5, "card": "***", "note": LETTER}
    assert (told["name"], told["kind"], told["waits_for"], told["agent"]) == (
        f"{name}:r1",
        "approval",
        ["finance"],
        "till",
    )
    assert [way["choice"] for way in told["commands"]] == ["approve", "reject"]
    assert "    we are sorry.\n" in text
    assert "we are sorry.\nwe are sorry.\nwe are sorry.\nwe are sorry." not in elsewhere.out
    assert "long texts are shown by their beginning: the conversation is in store " in elsewhere.err
    assert (program, done.code) == ("mandate", 0)
    assert gone.code == 2
    assert f"error: {name}:r1: request r1 is approved already: ann@example.com approved it" in gone.err


async def test_question_is_answered_in_two_ways(desk: Place) -> None:
    first, second = await parked(desk, "ask"), await parked(desk, "ask")

    shown = await desk.run("show", f"{first}:r1")
    wrong = await desk.run("approve", f"{first}:r1")
    done = await desk.run("answer", f"{first}:r1", "blue")
    other = await desk.run("decide", f"{second}:r1", "--choice", "answer", "--value", "red")

    assert shown.out.splitlines()[:3] == ["Which?", "  - red", "  - blue"]
    assert (wrong.code, wrong.err.splitlines()[-1]) == (
        2,
        (
            f"error: {first}:r1 takes the choices answer, reject, not 'approve'; "
            f'answer with `mandate answer {first}:r1 "..."`; nothing was sent'
        ),
    )
    assert (done.code, done.out) == (0, f"{first}:r1  r1 is answered: ann@example.com answered\n")
    assert other.code == 0
    told = await desk.run("show", first)
    assert "← ask_person [answered by ann@example.com]\n    blue" in told.out


async def test_run_says_how_it_stands_and_what_people_said(desk: Place) -> None:
    name = await parked(desk, "ask")

    waiting = json.loads((await desk.run("show", name, "-o", "json")).out)
    await desk.run("pause", name, "--reason", "lunch")
    paused = json.loads((await desk.run("show", name, "-o", "json")).out)
    heading = (await desk.run("show", name)).out.splitlines()[0]
    await desk.run("answer", f"{name}:r1", "blue", "--comment", "as ever")
    await desk.run("resume", name)
    await result(desk, name)
    ended = json.loads((await desk.run("show", name, "-o", "json")).out)
    text = (await desk.run("show", name)).out

    assert [told["status"] for told in (waiting, paused, ended)] == ["waiting", "paused", "completed"]
    assert heading == f"{name}  paused"
    asked, *said = [told["line"] for told in ended["people"]]
    assert asked.startswith("asks anyone: Which? (r1, until ")
    assert said == [
        "ann@example.com pauses the run: lunch",
        "r1 is answered: ann@example.com answered (as ever)",
        "ann@example.com lets the run go on",
    ]
    assert "\nasked of people, and said by them\n  step 1   asks anyone: Which? (r1, until " in text
    assert "\n  step 1   r1 is answered: ann@example.com answered (as ever)\n" in text


async def test_person_at_a_terminal_is_asked_before_several_are_decided_on(desk: Place) -> None:
    name = await parked(desk, "notes", 2)

    no = await at_a_terminal(desk, "n\n", "approve", f"{name}:r1", f"{name}:r2")
    yes = await at_a_terminal(desk, "y\n", "approve", f"{name}:r1", f"{name}:r2")
    unasked = await at_a_terminal(desk, "", "reject", f"{name}:r1", f"{name}:r2", "--yes", "--by", "bob@example.com")

    assert (no.code, no.out) == (1, "")
    assert no.err.splitlines()[:3] == [
        "as ann@example.com",
        f"{name}:r1  note text=a?",
        f"{name}:r2  note text=b?",
    ]
    assert "approve these 2? [y/N] " in no.err
    assert no.err.endswith("error: nothing was sent\n")
    assert (yes.code, len(yes.out.splitlines())) == (0, 2)
    assert (unasked.code, "[y/N]" in unasked.err) == (0, False)


async def at_a_terminal(desk: Place, typed: str, *words: str) -> Done:
    ours, theirs = os.openpty()
    pipe = asyncio.subprocess.PIPE
    try:
        os.write(ours, typed.encode())
        process = await asyncio.create_subprocess_exec(
            str(BIN / "mandate"), *words, stdin=theirs, stdout=pipe, stderr=pipe, env=desk.env, cwd=desk.folder
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def test_all_requests_of_a_run_are_rejected_at_once(desk: Place) -> None:
    name = await parked(desk, "notes", 2)

    done = await desk.run("reject", "--all", name, "--comment", "not today", program=str(BIN / "temporal-agent"))

    assert (done.code, done.out) == (0, f"{name}:*  2 requests rejected\n")
    assert (await result(desk, name))["effects"]["count"] == 0


async def test_token_command_is_told_what_it_signs(desk: Place) -> None:
    name = await parked(desk, "pay")
    told = desk.folder / "token.txt"
    command = f"env | grep '^MANDATE_[RCBV]' | sort > {shlex.quote(str(told))}; echo a-token"

    failed = await desk.run("approve", f"{name}:r1", "--token-command", "exit 3")
    done = await desk.run("approve", f"{name}:r1", "--set", "amount=7", "--token-command", command)

    assert (failed.code, failed.err.splitlines()[-1]) == (
        2,
        "error: --token-command ended with exit code 3; nothing was sent",
    )
    assert done.code == 0, done.err
    variables = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert variables["MANDATE_REQUEST"] == f"{name}:r1"
    assert (variables["MANDATE_CHOICE"], variables["MANDATE_BY"]) == ("approve", "ann@example.com")
    assert len(variables["MANDATE_REQUEST_DIGEST"]) == len(variables["MANDATE_VALUE_DIGEST"]) == 43


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["approve"], "give the requests to decide on, for example 'refund-81:r1', or numbers of the last inbox"),
        (
            ["approve", "refund-81"],
            (
                "'refund-81' names no request; give <workflow id>:<request>, for example 'refund-81:r1', "
                "or a number of `mandate inbox`"
            ),
        ),
        (["approve", "nobody:r1"], "there is no run 'nobody' in namespace 'default' at "),
        (
            ["approve", "a:r1", "--digest", "abc"],
            "--digest 'abc' is no digest, 43 letters, digits, '-' and '_' as `show a:r1 -o json` has under `digest`",
        ),
        (["approve", "a:r1", "b:r1", "--digest", "x"], "--digest is that of one request; decide on them one by one"),
        (
            ["approve", "a:r1", "--edit", "--set", "a=1"],
            "--edit goes without --set and --from: what they say can be written in the editor",
        ),
        (
            ["reject", "a:r1", "--all", "b"],
            "--all is about all requests of a run; it goes without REQUEST, --digest and --token-command",
        ),
        (
            ["decide", "a:r1", "--choice", "answer", "--value", "<your answer>"],
            "--value '<your answer>' stands for your",
        ),
        (["inbox", "--kind", "bill"], "--kind 'bill' is not one of approval, question, escalation, outcome, budget"),
        (["inbox", "--group", 'a"b'], "'a\"b' is no name that AgentWaitingFor can hold: quotes and backslashes"),
        (["stop"], "name the runs by their workflow ids, or give a --query; one of the two"),
        (["steer", "some-run"], "name the run, then what the agent is told: `mandate steer RUN TEXT`"),
        (["approve", "some-run:r1", "--by", " "], "--by is empty; say who you are with it, or with MANDATE_USER"),
        (["pause", "nobody"], "there is no run 'nobody'"),
        (["stop", "--query", "Nothing=1", "--yes"], "--query 'Nothing=1': "),
        (
            ["decide", "a:r1", "--choice", "supply", "--value", '{"amount": 12'],
            "--value begins as an object and is no JSON: Expecting ',' delimiter: line 1 column 14 (char 13); a text ",
        ),
        (["decide", "a:r1", "--choice", "approve", "--value", " {amount: 12}"], "--value begins as an object and is "),
        (["decide", "a:r1", "--choice", "answer", "--value", "[1, 2"], "--value begins as a list and is no JSON: "),
        (
            ["run", "till", "x", "--requester", ""],
            "--requester is empty; say who you are with it, or with MANDATE_USER",
        ),
        (["run", "till", "x", "--requester", "<your name>"], "--requester '<your name>' stands for your own name; "),
        (["approve", "a:r1", "--by", "<your name>"], "--by '<your name>' stands for your own name; "),
    ],
)
async def test_bad_usage_sends_nothing_and_exits_with_two(desk: Place, words: list[str], sentence: str) -> None:
    done = await desk.run(*words)

    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"error: {sentence}")


async def test_number_counts_only_for_what_the_inbox_showed(desk: Place) -> None:
    name = await parked(desk, "notes", 2)
    number = next(entry["number"] for entry in await inbox(desk) if entry["name"] == f"{name}:r1")
    state = desk.folder / "state" / "inbox.json"

    # Somebody changes the call after ann has looked.
    changed = await desk.run("approve", f"{name}:r1", "--by", "bob@example.com", "--set", "text=other")
    stale = await desk.run("approve", str(number))
    beyond = await desk.run("approve", "999")
    state.write_text(json.dumps({**json.loads(state.read_text()), "server": "another"}))
    foreign = await desk.run("approve", str(number))
    state.unlink()
    none = await desk.run("approve", str(number))
    await desk.run("stop", name)

    assert changed.code == 0, changed.err
    assert (stale.code, stale.err.splitlines()[-1]) == (
        1,
        f"{number} ({name}:r1): it has changed since the inbox; look at it with `mandate show {name}:r1`",
    )
    for done, sentence in (
        (beyond, "error: 999 is not in the inbox of "),
        (foreign, f"error: {number} is a number of the inbox of "),
        (none, f"error: {number} is a number of the last inbox, and there is none in "),
    ):
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith(sentence)
        assert done.err.endswith("; run `mandate inbox` and take the number from there\n")


async def test_runs_are_told_one_by_one_and_by_a_query(desk: Place) -> None:
    first, second = await parked(desk, "pay"), await parked(desk, "pay")
    query = f'WorkflowId IN ("{first}", "{second}")'

    unsaid = [
        await desk.run(verb, first, second, *words)
        for verb, words in (("steer", ["Be kind."]), ("pause", []), ("resume", []), ("stop", []))
    ]
    steered = await desk.run("steer", first, second, "Be kind.", "--yes")
    alone = await desk.run("pause", "--query", query)
    paused = await desk.run("pause", "--query", query, "--yes", "--reason", "lunch", "-o", "json")
    while_paused = await desk.run("approve", f"{first}:r1")
    resumed = await desk.run("resume", first)
    stopped = await desk.run("stop", second, "nobody", "--reason", "enough", "-y")

    assert [(done.code, done.out, done.err.splitlines()[-1]) for done in unsaid] == [
        (2, "", f"error: nobody can be asked whether to {verb} 2 runs; add --yes")
        for verb in ("steer", "pause", "resume", "stop")
    ]
    assert (steered.code, len(steered.out.splitlines())) == (0, 2)
    assert (alone.code, alone.err.splitlines()[-1]) == (
        2,
        "error: nobody can be asked whether to pause 2 runs; add --yes",
    )
    told = json.loads(paused.out)
    assert {run["workflow_id"]: run["status"] for run in told["runs"]} == {first: "paused", second: "paused"}
    assert while_paused.code == 0
    assert (resumed.code, resumed.out) == (0, f"{first}  the run goes on\n")
    assert (stopped.code, stopped.err.splitlines()[-1]) == (1, "nobody: there is no run 'nobody'")
    assert (await result(desk, first))["status"] == "completed"
    assert (await result(desk, second))["reason"] == "stopped by ann@example.com: enough"


async def test_who_follows_a_run_learns_what_it_waits_for_and_who_answered(desk: Place) -> None:
    name = f"followed-{uuid4().hex[:6]}"

    following = await desk.start("run", "till", "notes please", "--id", name, MANDATE_USER="req@example.com")
    hint = await line_with(following.stderr, "answer r1")
    waiting = (await desk.run("show", name)).out
    await desk.run("steer", name, "Be kind.")
    await desk.run("approve", f"{name}:r1")
    await desk.run("approve", f"{name}:r1", "--by", "eve@example.com")
    await desk.run("reject", f"{name}:r1", f"{name}:r2", "--by", "bob@example.com", "--comment", "no", "-y")
    out, _ = await asyncio.wait_for(following.communicate(), 60)
    later = await desk.run("show", name, "--follow")

    lines = out.decode().splitlines()
    assert hint == (
        f"answer r1 with `mandate approve {name}:r1` or `mandate reject {name}:r1`; "
        f"all of it: `mandate show {name}:r1`\n"
    )
    assert f"  {name}:r1  note text=a? (anyone, until " in waiting
    assert lines[0].startswith("step 1   asks anyone: note text=a? (r1, until ")
    for line in (
        "step 1   ann@example.com says: Be kind.",
        "step 1   ann@example.com chose approve on r1: recorded; r1 still needs 1 of anyone",
        "step 1   r1 is rejected: bob@example.com rejected it (no)",
        "step 1   note text=a → refused: bob@example.com rejected it (no)",
        "step 2   answers",
    ):
        assert line in lines, line
    assert any("eve@example.com chose approve on r1, which does not count: " in line for line in lines)
    assert later.code == 0
    assert later.out.splitlines()[: lines.index("step 2   answers")] == lines[: lines.index("step 2   answers")]
    assert "answer r1 with" not in later.err


async def test_json_of_a_run_that_waits_is_only_its_result_and_stderr_says_why(desk: Place) -> None:
    name = f"json-{uuid4().hex[:6]}"

    following = await desk.start("run", "till", "pay it", "--id", name, "-o", "json", MANDATE_USER="req@example.com")
    said = await line_with(following.stderr, "asks finance")
    await line_with(following.stderr, "answer r1")
    await desk.run("approve", f"{name}:r1")
    out, _ = await asyncio.wait_for(following.communicate(), 60)

    assert said.startswith("asks finance: pay amount=120.5 card=***? (r1, until ")
    assert json.loads(out)["status"] == "completed"
