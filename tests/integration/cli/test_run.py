"""What `mandate run` is asked, and under which id."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import WorkflowAlreadyStartedError

from mandate.workers.client.client import AgentClient
from mandate.workers.client.earlier_run import UsedId
from mandate.workers.client.messages import MessageError
from mandate.workflows.contracts.request import Decision
from mandate.workflows.rules.decisions import format_time
from tests.support.place import Place, new_place

AGENT = """
name: till
instructions: Do it.
models: ["scripted:till.script.yaml"]
requester: anyone
"""

SCRIPT = """
conversations:
  - match: "wait*"
    turns:
      - call: [{ask_person: {question: Which?}}]
      - say: Done.
  - match: "home*"
    turns: [{say: "Hello."}, {say: "Again."}]
  - match: "*"
    turns: [{say: "Hello."}]
"""


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    files = {"agents/till.yaml": AGENT, "agents/till.script.yaml": SCRIPT}
    async with new_place(tmp_path_factory.mktemp("run"), files) as found:
        yield found


@pytest.fixture(scope="module")
async def worker(place: Place) -> AsyncIterator[None]:
    async with place.serving("till"):
        yield


async def test_id_of_a_running_run_is_refused(place: Place, worker: object) -> None:
    await place.run("run", "till", "wait", "--id", "taken", "--detach")
    async with asyncio.timeout(20):
        while "taken" not in (await place.run("inbox", "-o", "json")).out:
            await asyncio.sleep(0.1)

    done = await place.run("run", "till", "hi", "--id", "taken")

    again = await place.run("run", "till", "hi", "--id", "taken", "--again")
    started = (await place.client.get_workflow_handle("taken").describe()).start_time
    await place.client.get_workflow_handle("taken").terminate()
    assert (done.code, again.code) == (2, 2)
    assert done.err == (
        f"error: the id 'taken' is used: its run is going on, waiting, since {format_time(started)}; follow it with "
        "`mandate show taken --follow`\n"
    )
    assert again.err == done.err


async def test_id_of_a_run_that_ended_is_refused_with_its_result(place: Place, worker: object) -> None:
    first = await place.run("run", "till", "hi", "--id", "used", "-o", "json")
    described = await place.client.get_workflow_handle("used").describe()

    told = await place.run("run", "till", "hi", "--id", "used")
    known = await place.run("run", "till", "hi", "--id", "used", "-o", "json")
    again = await place.run("run", "till", "hi", "--id", "used", "--again", "-o", "json")

    assert described.close_time is not None
    assert (first.code, told.code, known.code, again.code) == (0, 2, 2, 0)
    sentence = (
        f"the id 'used' is used: its run completed at {format_time(described.close_time)}; read it with "
        "`mandate show used`, or start another one under this id with --again"
    )
    assert told.err == f"error: {sentence}\n"
    result = json.loads(first.out)
    del result["version"]
    assert json.loads(known.err) == {
        "error": sentence,
        "code": 2,
        "run": {
            "workflow_id": result.pop("workflow_id"),
            "run_id": result.pop("run_id"),
            "status": "completed",
            "started_at": described.start_time.isoformat(),
            "closed_at": described.close_time.isoformat(),
            "reason": None,
            "result": result,
        },
    }
    assert json.loads(again.out)["output"] == "Hello."
    assert json.loads(again.out)["run_id"] != described.run_id


async def test_again_needs_an_id(place: Place) -> None:
    done = await place.run("run", "till", "hi", "--again")

    assert (done.code, done.err) == (
        2,
        "error: --again goes with --id, and starts another run under that id\n",
    )


LONG = (
    "has 9,000 characters; at most 8,000 are told at once; put more into a file that a tool of the agent reads, and "
    "name that file"
)
LARGE = (
    "bytes as JSON, and a run is asked at most 2,000,000; put it into a file that a tool of the agent reads, and ask "
    "for that"
)


@pytest.mark.parametrize(
    ("words", "size", "said"),
    [
        (["--input-file", "asked.txt"], 2_200_000, f"--input-file 'asked.txt' has 2,200,002 {LARGE}"),
        (["--input-file", "asked.txt"], 5_000_000, f"--input-file 'asked.txt' has 5,000,002 {LARGE}"),
        (["--input-file", "asked.txt"], 16_000_001, f"--input-file 'asked.txt' has more than 16,000,000 {LARGE}"),
        (["-"], 2_200_000, f"what the agent is asked has 2,200,002 {LARGE}"),
        (["-"], 17_000_000, f"what is asked, from the standard input, has more than 16,000,000 {LARGE}"),
    ],
)
async def test_input_that_is_too_large_is_refused_before_anything_is_sent(
    place: Place, tmp_path: Path, words: list[str], size: int, said: str
) -> None:
    text = "x" * size
    (tmp_path / "asked.txt").write_text(text)
    if words != ["-"]:
        words = ["--input-file", str(tmp_path / "asked.txt")]

    # Nothing answers there: it is not even connected to.
    done = await place.run("run", "till", *words, stdin=text if words == ["-"] else "", TEMPORAL_ADDRESS="127.0.0.1:1")

    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {said}\n".replace("asked.txt", str(tmp_path / "asked.txt"))


async def test_input_of_nearly_the_limit_is_run_without_a_word_of_the_sdk(place: Place, worker: object) -> None:
    done = await place.run("run", "till", "-", "--id", "large", stdin="hi" + "x" * 1_999_990)

    assert done.code == 0, done.err
    assert "Hello." in done.out
    first, second = done.err.splitlines()
    assert first.startswith("large on task queue agents, requester ")
    assert second.startswith("agent till version ")


async def test_start_of_another_client_that_is_too_large_fails_at_once(place: Place, worker: object) -> None:
    """Of what takes six bytes in our JSON and three in theirs."""
    asked = {"agent": "till", "input": "\u200b" * 600_000}
    handle = await place.client.start_workflow(
        "AgentWorkflow",
        args=[
            RawValue(Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(asked, ensure_ascii=False).encode()))
        ],
        id="raw",
        task_queue="agents",
    )

    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()

    assert str(failed.value.cause).startswith(f"BadInput: start request: input: has 3,600,002 {LARGE}")


async def test_program_is_told_of_the_run_that_had_the_id(place: Place, worker: object) -> None:
    client = AgentClient(place.client)
    first = await client.start("till", "hi", workflow_id="program")
    result = await first.result()

    with pytest.raises(UsedId) as used:
        await client.start("till", "hi", workflow_id="program")
    again = await client.start("till", "hi", workflow_id="program", again=True)

    run = used.value.run
    assert run is not None
    assert run.closed_at is not None
    assert (run.status, run.result, run.run_id) == ("completed", result, first.first_execution_run_id)
    assert str(used.value) == (
        f"the workflow id 'program' is used: its run completed at {format_time(run.closed_at)}; "
        "handle('program').result() reads it, and again=True starts another one"
    )
    assert isinstance(used.value, WorkflowAlreadyStartedError)
    assert again.first_execution_run_id != first.first_execution_run_id


@pytest.mark.parametrize(
    ("agent", "end", "said"),
    [
        ("nobody", None, "ended as failed at {} (agent: 'nobody' is not an agent of these workers; they have: till)"),
        ("till", "cancel", "was cancelled at {}"),
        ("till", "terminate", "was ended at {}"),
        ("till", "stop", "was stopped at {} (stopped by ann@example.com: enough)"),
    ],
)
async def test_run_that_ended_otherwise_is_told_as_that(
    place: Place, worker: object, agent: str, end: str | None, said: str
) -> None:
    client = AgentClient(place.client)
    handle = await client.start(agent, "wait", workflow_id=f"otherwise-{end}")
    if end == "stop":
        await client.stop(handle.id, by="ann@example.com", reason="enough")
    elif end is not None:
        await getattr(handle, end)()
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()

    with pytest.raises(UsedId) as used:
        await client.start("till", "hi", workflow_id=handle.id)

    assert used.value.run is not None
    assert used.value.run.closed_at is not None
    assert used.value.run.sentence == said.format(format_time(used.value.run.closed_at))


async def test_program_is_told_that_its_input_is_too_large(place: Place) -> None:
    with pytest.raises(ValueError, match=f"^input: has 2,200,002 {LARGE}$"):
        await AgentClient(place.client).start("till", "x" * 2_200_000)


async def test_words_and_values_that_are_too_large_are_not_sent(place: Place) -> None:
    """Nothing is looked up: there is no such run."""
    client = AgentClient(place.client)
    decision = Decision(request="r1", digest="d" * 43, choice="answer", by="ann@example.com", value="x" * 3_000_000)
    large = (
        "value: has 3,000,002 bytes as JSON; at most 65,536 are allowed; put it into a file that a tool of the agent "
        "reads, and name that file"
    )

    with pytest.raises(ValueError, match=f"^text: {LONG}$"):
        await client.steer("nobody", "x" * 9000, by="ann@example.com")
    with pytest.raises(MessageError, match=f"^{large}$"):
        await client.decide("nobody", decision)
    (outcome,) = await client.decide_many([("nobody", decision)])
    steered = await place.run("steer", "nobody", "x" * 9000, "--by", "ann@example.com")

    answered = await place.run("answer", "nobody:r1", "x" * 100_000, "--by", "ann@example.com")

    assert outcome.error == large
    assert answered.code == 2
    assert answered.err == f"error: {large.replace('3,000,002', '100,002')}; nothing was sent\n"
    assert steered.code == 2
    assert steered.err == f"error: text: {LONG}; nothing was sent\n"


GO_ON = "it is told nothing more; go on with its conversation in another run: `continues`, or `mandate run --continues`"


async def test_steer_of_a_run_that_is_over_says_how_to_go_on(place: Place, worker: object) -> None:
    client = AgentClient(place.client)
    await (await client.start("till", "hi", workflow_id="over")).result()

    steered = await place.run("steer", "over", "Use euros.", "--by", "ann@example.com")
    many = await place.run("steer", "over", "--query", "x", "Use euros.")
    paused = await place.run("pause", "over", "--by", "ann@example.com")
    nobody = await place.run("steer", "nobody-1", "Use euros.", "--by", "ann@example.com")
    with pytest.raises(MessageError) as refused:
        await client.steer("over", "Use euros.", by="ann@example.com")

    assert (steered.code, steered.err.splitlines()[-1]) == (2, f"error: run 'over' is over; {GO_ON}")
    assert many.code == 2
    assert (paused.code, paused.err.splitlines()[-1]) == (2, "error: run 'over' is over")
    assert (nobody.code, nobody.err.splitlines()[-1]) == (2, "error: there is no run 'nobody-1'")
    assert str(refused.value) == f"run 'over' is over; {GO_ON}"


async def test_run_to_go_on_from_that_is_no_object_is_refused_by_name(place: Place, worker: object) -> None:
    asked = {"agent": "till", "input": "hi", "continues": "over"}
    handle = await place.client.start_workflow("AgentWorkflow", asked, id="continues", task_queue="agents")

    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()

    assert str(failed.value.cause).startswith(
        "BadInput: start request: continues: 'over' is not an object (allowed keys: agent, "
    )


async def test_tokens_of_a_run_are_shown_a_bar_a_step(place: Place, worker: object) -> None:
    await place.run("run", "till", "hi", "--id", "counted")

    told = await place.run("show", "counted", "--tokens")
    known = await place.run("show", "counted", "--tokens", "-o", "json")

    assert (told.code, known.code) == (0, 0)
    (step,) = json.loads(known.out)["tokens"]
    assert (step["step"], step["reported"], step["cut"]) == (1, True, False)
    assert list(step["parts"]) == ["instructions", "pinned", "summary", "messages", "results"]
    lines = told.out.splitlines()
    assert lines[0] == "a bar a step; I instructions, P pinned, S summary, M messages, R results"
    assert lines[2].startswith(f"1  {step['tokens']}  IIII")
    assert lines[-1] == f"{step['tokens']} input tokens in 1 step; never cut"


@pytest.mark.parametrize("words", [("run", "till"), ("plan", "run", "tell")])
async def test_an_empty_id_is_refused(place: Place, words: tuple[str, ...]) -> None:
    done = await place.run(*words, "hi", "--id", "")

    assert (done.code, done.err) == (2, "error: --id '': is empty; leave it out, and an id is made up\n")


async def test_a_refused_run_has_done_nothing_and_says_so(place: Place, worker: object) -> None:
    done = await place.run("run", "til", "hi", "--id", "misspelt")

    assert done.code == 2
    assert done.err.splitlines()[-2] == "the workers refused the run misspelt; it has done nothing"
    assert "'til' is not an agent of these workers" in done.err.splitlines()[-1]


@pytest.mark.parametrize("run", ["c82@x", "c82@-1"])
async def test_what_is_no_step_is_told_with_the_run_that_is_not_there(place: Place, worker: object, run: str) -> None:
    done = await place.run("run", "till", "hi", "--continues", run)

    assert done.code == 2
    assert (
        f"there is no run {run!r} that the server knows; a step is a number behind the last '@', as in RUN@3"
        in done.err
    )


async def test_a_run_whose_id_has_an_at_sign_can_be_gone_on_from(place: Place, worker: object) -> None:
    assert (await place.run("run", "till", "home", "--id", "till@home")).code == 0

    gone_on = [await place.run("run", "till", "hi", "--continues", run) for run in ("till@home", "till@home@1")]

    assert [(done.code, "Again." in done.out) for done in gone_on] == [(0, True), (0, True)]
