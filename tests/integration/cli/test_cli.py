import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from mandate.workers.client import queries
from mandate.workers.client.client import AgentClient
from mandate.workers.dev_server import lease
from mandate.workers.dev_server.binary import find_binary
from mandate.workers.dev_server.server import share_dev_server
from mandate.workflows.contracts.run import RunResult
from tests.support.agents import parts_taken
from tests.support.place import BIN, Place, line_with, new_place

TOOLS = '''
import time
from mandate.activities.toolbox.decorator import tool

@tool(effect="read")
def look(order: int) -> str:
    """Look an order up."""
    return f"order {order} " + "x" * 900

@tool(effect="keyed", sensitive=["card"])
def pay(amount: int, card: str) -> str:
    """Pay."""
    return f"paid {amount}"

@tool(effect="once")
def burn(house: str) -> str:
    """Burn a house down."""
    return "burnt"

@tool(effect="keyed", timeout="10m")
async def dawdle(seconds: float) -> str:
    """Take long."""
    import asyncio
    await asyncio.sleep(seconds)
    return "done"
'''

AGENT = """
name: till
people: {expires: 1s}
instructions: Serve.
models: [scripted:till.script.yaml]
tools:
  - python: cli_till_tools:look
  - python: cli_till_tools:pay
  - python: cli_till_tools:burn
  - python: cli_till_tools:dawdle
  - activity: {name: Ship, task_queue: shipping}
    input_schema: {type: object, properties: {order: {type: integer}}, required: [order]}
    effect: keyed
policy:
  - {id: pays, match: {tools: [pay, dawdle, Ship]}, verdict: allow}
  - {id: houses, match: {tools: [burn]}, verdict: deny}
budget: {steps: 60}
"""

SCRIPT = """
conversations:
  - match: "pay*"
    turns:
      - say: I look first.
        call: [{look: {order: 81}}, {burn: {house: mine}}]
      - expect: {results: {burn: {error: true}}}
        call: [{pay: {amount: 7, card: "4000-1234"}}]
      - say: Paid seven.
  - match: "dawdle*"
    turns:
      - say: This takes long.
        call: [{look: {order: 1}}, {dawdle: {seconds: 300}}]
      - say: At last.
  - match: "gone*"
    turns:
      - call: [{look: {order: 3}}, {burn: {house: mine}}]
      - {fail: [{status: 401}, {status: 401}, {status: 401}], say: never}
  - match: "ship*"
    turns:
      - call: [{Ship: {order: 5}}]
      - say: Shipped.
  - match: "long*"
    turns:
      - repeat: 20
        turns:
          - {say: "round ${n}", call: [{look: {order: "${n}"}}]}
      - say: Round and round.
  - match: "*"
    turns: [{say: "Hello."}]
"""


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    files = {"cli_till_tools.py": TOOLS, "agents/till.yaml": AGENT, "agents/till.script.yaml": SCRIPT}
    settings = {"limit.historyCount.suggestContinueAsNew": "70"}
    async with new_place(tmp_path_factory.mktemp("cli"), files, settings) as found:
        yield found


@pytest.fixture(scope="module")
async def worker(place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await place.start("worker", "-o", "json", "--log-level", "error")
    try:
        try:
            served = json.loads(await line_with(process.stdout, "till"))
        except AssertionError:
            pytest.fail((await process.communicate())[1].decode())
        assert served["task_queue"] == "agents"
        assert served["address"] == place.address
        yield process
        assert process.returncode is None, "the worker ended"
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def begun(place: Place, text: str, name: str) -> WorkflowHandle[Any, RunResult]:
    """A new run of `till`, for tests of what other commands say of it."""
    return await AgentClient(place.client, "agents").start("till", text, workflow_id=name, requester="eve@example.com")


async def test_run_is_told_a_line_a_step(place: Place, worker: object) -> None:
    done = await place.run("run", "till", "pay it", "--id", "told")

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "step 1   I look first."
    assert sorted(lines[1:3]) == [
        "step 1   burn house=mine → refused: rule 'houses' denies 'burn'",
        "step 1   look order=81 → " + ("order 81 " + "x" * 900)[:60] + " (909 bytes)",
    ]
    assert lines[3] == "step 2   pay amount=7 card=*** → 6 bytes"
    assert lines[4] == "step 3   answers"
    assert "completed" in lines
    assert "Paid seven." in lines
    assert "  pay amount=7 card=***" in lines
    assert "Read it     mandate show told" in lines
    assert "4000" not in done.out + done.err
    described = await place.client.get_workflow_handle("told").describe()
    assert f"\nagent till version {described.search_attributes['AgentVersion'][0]}\n" in done.err


async def test_json_is_exactly_the_result(place: Place, worker: object) -> None:
    done = await place.run("-o", "json", "run", "till", "-", stdin="pay it", program=str(BIN / "temporal-agent"))

    assert done.code == 0, done.err
    result = RunResult.model_validate(json.loads(done.out))
    assert json.loads(done.out)["workflow_id"].startswith("till-")
    assert set(json.loads(done.out)) == {"workflow_id", "run_id", "version", *RunResult.model_fields}
    shown = await place.run("show", json.loads(done.out)["workflow_id"], "-o", "json")
    assert json.loads(done.out)["version"] == json.loads(shown.out)["version"]
    assert (result.status, result.output, result.effects.count) == ("completed", "Paid seven.", 1)


async def test_detached_run_is_followed_later(place: Place, worker: object) -> None:
    started = await place.run("run", "till", "hi", "--detach", "-o", "json", "--label", "team=x", "--requester", "ann")
    name = json.loads(started.out)["workflow_id"]

    done = await place.run("show", name, "--follow")

    assert started.code == 0
    assert name.startswith("till-")
    assert done.code == 0
    assert "Hello." in done.out


@pytest.mark.parametrize(
    ("words", "requester"),
    [((), "ann@example.com"), (("--requester", "bob@example.com"), "bob@example.com")],
)
async def test_who_runs_an_agent_asks_for_it(
    place: Place, worker: object, words: tuple[str, ...], requester: str | None
) -> None:
    done = await place.run("run", "till", "hi", "-d", "-o", "json", *words, MANDATE_USER="ann@example.com")
    run = place.client.get_workflow_handle(json.loads(done.out)["workflow_id"])
    await run.result()

    assert (await queries.ask(run, "open_requests", dict)).get("requester") == requester


async def test_run_that_ends_otherwise_exits_with_one(place: Place, worker: object) -> None:
    done = await place.run("run", "till", "long", "--steps", "2", "--id", "exhausted", "-o", "json")

    assert done.code == 1
    assert json.loads(done.out)["status"] == "exhausted"
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nobody", "hi"], "agent: 'nobody' is not an agent of these workers; they have: till"),
        (["till", "hi", "--label", f"{'x' * 65}=1"], "start request: labels."),
    ],
)
async def test_bad_input_exits_with_two_and_its_sentence(
    place: Place, worker: object, words: list[str], sentence: str
) -> None:
    done = await place.run("run", *words)

    assert done.code == 2
    assert f"error: {sentence}" in done.err
    assert "Traceback" not in done.err


async def test_missing_worker_is_told_and_ctrl_c_leaves_the_run(place: Place) -> None:
    process = await place.start("run", "till", "hi", "--task-queue", "deserted", "--id", "deserted")
    told = await line_with(process.stderr, "no worker")

    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()

    assert told == "no worker polls task queue 'deserted'; start one with `mandate worker --task-queue deserted`\n"
    assert process.returncode == 130
    assert "come back with `mandate show deserted --follow`" in err.decode()
    assert "Traceback" not in err.decode()
    shown = await place.run("show", "deserted", "-o", "json")
    record = json.loads(shown.out)
    assert (record["status"], record["agent"], record["head"], record["messages"]) == ("running", "till", None, [])
    await place.client.get_workflow_handle("deserted").terminate(reason="enough")
    record = json.loads((await place.run("show", "deserted", "-o", "json")).out)
    assert (record["status"], record["reason"]) == ("terminated", "enough")


async def test_show_prints_the_whole_conversation(place: Place, worker: object) -> None:
    await (await begun(place, "pay it", "shown")).result()

    short = await place.run("show", "shown")
    whole = await place.run("show", "shown", "--full")
    record = json.loads((await place.run("show", "shown", "-o", "json")).out)

    assert short.code == 0
    assert "more characters, see --full]" in short.out
    assert "x" * 900 in whole.out
    for text in (short.out, whole.out):
        assert '→ pay {"amount": 7, "card": "***"}' in text
        assert "✗ burn refused: rule 'houses' denies 'burn'" in text
        assert "  step 2  pay amount=7 card=***" in text
    assert list(record) == [
        *(
            "workflow_id",
            "run_id",
            "parent",
            "root",
            "status",
            "reason",
            "output",
            "agent",
            "version",
            "step",
            "head",
            "usage",
            "budget",
            "effects",
        ),
        *("uncertain", "children", "people", "workflow_task", "retrying", "models", "messages", "pending"),
    ]
    assert (record["status"], record["step"], record["pending"]) == ("completed", 3, [])
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"] * 3
    assert record["messages"][3]["parts"][0]["arguments"] == {"amount": 7, "card": "***"}
    assert "4000" not in json.dumps(record) + short.out + whole.out


async def test_running_and_cancelled_runs_are_shown(place: Place, worker: object) -> None:
    handle = await begun(place, "dawdle", "slow")
    async with asyncio.timeout(60):
        while (record := json.loads((await place.run("show", "slow", "-o", "json")).out))["pending"] == []:
            await asyncio.sleep(0.2)
        while record["pending"][0]["state"] != "done":
            record = json.loads((await place.run("show", "slow", "-o", "json")).out)

    assert record["status"] == "running"
    assert [(call["line"], call["state"]) for call in record["pending"]] == [
        ("look order=1", "done"),
        ("dawdle seconds=300.0", "running"),
    ]
    assert record["pending"][0]["result"]["text"] == "order 1 " + "x" * 900

    await handle.cancel()
    followed = await place.run("show", "slow", "--follow")
    record = json.loads((await place.run("show", "slow", "-o", "json")).out)

    assert followed.code == 1
    assert "cancelled" in followed.out
    assert record["status"] == "cancelled"
    assert [entry["call"] for entry in record["uncertain"]] == ["dawdle seconds=300.0"]


async def test_results_that_no_model_took_are_shown(place: Place, worker: object) -> None:
    done = await place.run("run", "till", "gone", "--id", "gone", "-o", "json")
    record = json.loads((await place.run("show", "gone", "-o", "json")).out)

    assert done.code == 1
    assert json.loads(done.out)["run_id"] == record["run_id"]
    assert record["status"] == "declined"
    assert [(call["line"], call["state"]) for call in record["pending"]] == [
        ("look order=3", "done"),
        ("burn house=mine", "refused"),
    ]
    assert record["pending"][0]["result"]["text"] == "order 3 " + "x" * 900


async def test_effect_that_was_going_on_at_a_termination_is_uncertain(place: Place, worker: object) -> None:
    following = await place.start("run", "till", "dawdle", "--id", "cut")
    await line_with(following.stdout, "look")
    await place.client.get_workflow_handle("cut").terminate(reason="enough")
    await following.communicate()

    record = json.loads((await place.run("show", "cut", "-o", "json")).out)
    told = await place.run("show", "cut")

    assert [(call["line"], call["state"]) for call in record["pending"]] == [
        ("look order=1", "done"),
        ("dawdle seconds=300.0", "unknown"),
    ]
    assert [entry["call"] for entry in record["uncertain"]] == ["dawdle seconds=300.0"]
    assert "unknown whether it happened\n  step 1  dawdle seconds=300.0" in told.out


@pytest.mark.alone
async def test_server_that_a_command_starts_for_itself_is_named(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    # A server without runs.
    (await share_dev_server(folder, on_progress=lambda _: None, ui=False)).close()
    await lease.gone(folder)

    empty = await place.run("inbox", TEMPORAL_ADDRESS="", MANDATE_FOLDER=str(folder))
    await lease.gone(folder)
    detached = await place.run("run", "till", "hi", "-d", TEMPORAL_ADDRESS="", MANDATE_FOLDER=str(folder))
    await lease.gone(folder)
    missing = await place.run("show", "x", TEMPORAL_ADDRESS="", MANDATE_FOLDER=str(folder))

    assert missing.code == 2
    assert f"started a local Temporal server in {folder}; it ends with this command\n" in missing.err
    assert f"a server that was just started in {folder}; runs of another folder are found with MANDATE_FOLDER" in (
        missing.err
    )
    assert detached.code == 0
    assert f"the run goes on when `mandate worker` is started with MANDATE_FOLDER={folder}\n" in detached.err
    assert (empty.code, empty.out) == (0, "nothing is open\n")
    assert empty.err == (
        f"started a local Temporal server in {folder}; it ends with this command\n"
        "runs of another folder are found with MANDATE_FOLDER, those of another server with --address\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["inbox"],
        ["show", "x"],
        ["show", "x:r1"],
        ["approve", "x:r1"],
        ["answer", "1", "yes"],
        ["reject", "--all", "x"],
        ["stop", "x"],
        ["pause", "--query", "AgentName='x'", "--yes"],
    ],
)
async def test_no_empty_server_is_started_to_read_runs(place: Place, tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path / "state"

    done = await place.run(*words, TEMPORAL_ADDRESS="", MANDATE_FOLDER=str(folder))

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: there are no runs in {str(folder)!r}, where no server has run yet; runs of another folder are found "
        "with MANDATE_FOLDER, those of another server with --address; start a server with `mandate server`\n"
    )
    assert not folder.exists()


async def test_nothing_of_the_sdk_and_no_warning_reaches_the_terminal(place: Place, tmp_path: Path) -> None:
    large = tmp_path / "asked.txt"
    large.write_text("x" * 700_000)

    started = await place.run("run", "till", "--input-file", str(large), "--detach", "--id", "large")

    assert (started.code, started.out) == (0, "large\n")
    assert [line.partition(" ")[0] for line in started.err.splitlines()] == ["large", "follow"]
    assert "\x1b" not in started.err
    # Where a worker serves already, it may be over.
    with contextlib.suppress(RPCError):
        await place.client.get_workflow_handle("large").terminate(reason="enough")


async def test_run_that_continues_as_new_is_followed_and_shown(place: Place, worker: object) -> None:
    done = await place.run("run", "till", "long", "--id", "long")
    shown = json.loads((await place.run("show", "long", "-o", "json")).out)
    parts = await parts_taken(place.client, "long")

    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith("step 20 ")] == [
        "step 20  round 20",
        "step 20  look order=20 → " + ("order 20 " + "x" * 900)[:60] + " (909 bytes)",
    ]
    assert shown["step"] == 21
    assert shown["usage"]["model_calls"] == 21
    assert len(shown["messages"]) == 42
    assert parts > 1


async def test_remote_activities_are_told_too(place: Place, worker: object) -> None:
    @activity.defn(name="Ship")
    async def ship(order: dict[str, int]) -> str:
        return f"shipped {order['order']}"

    async with Worker(place.client, task_queue="shipping", activities=[ship]):
        done = await place.run("run", "till", "ship it", "--id", "ship")

    assert done.code == 0
    assert 'step 1   Ship order=5 → "shipped 5"' in done.out
    record = json.loads((await place.run("show", "ship", "-o", "json")).out)
    assert [entry["call"] for entry in record["effects"]["last"]] == ["Ship order=5"]


async def test_store_of_others_is_named(place: Place, worker: object, tmp_path: Path) -> None:
    await (await begun(place, "hi", "elsewhere")).result()

    missing = await place.run("show", "elsewhere", MANDATE_STORE=f"sqlite:///{tmp_path / 'none.db'}")
    nothing = await place.run("show", "never-started")

    assert missing.code == 2
    assert missing.err.startswith("error: the conversation is in store ")
    assert not (tmp_path / "none.db").exists()
    assert nothing.code == 2
    assert nothing.err == f"error: there is no run 'never-started' in namespace 'default' at {place.address}\n"


async def test_temporals_own_command_line_runs_it(place: Place, worker: object, tmp_path: Path) -> None:
    (tmp_path / "temporal").symlink_to(find_binary(lambda _: None))
    (tmp_path / "temporal-agent").symlink_to(BIN / "temporal-agent")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    temporal = str(tmp_path / "temporal")
    await (await begun(place, "hi", "theirs")).result()

    after = await place.run(
        "agent", "show", "theirs", "-o", "json", "--address", place.address, program=temporal, **env
    )
    before = await place.run(
        *("--color", "never", "-o", "json", "agent", "show", "theirs", "--address", place.address),
        program=temporal,
        **env,
    )
    wrong = await place.run("agent", "run", "till", "", "--address", place.address, program=temporal, **env)

    assert json.loads(after.out)["workflow_id"] == "theirs"
    assert json.loads(before.out)["workflow_id"] == "theirs"
    assert (after.code, before.code, wrong.code) == (0, 0, 2)
    assert "what the agent is asked is empty" in wrong.err


async def test_profile_is_used_unless_environment_or_flags_say_otherwise(place: Place, tmp_path: Path) -> None:
    config = tmp_path / "temporal.toml"
    config.write_text(f'[profile.here]\naddress = "{place.address}"\nnamespace = "default"\n')
    profile = ("--config-file", str(config), "--profile", "here")

    by_profile = await place.run(*profile, "show", "x", TEMPORAL_ADDRESS="")
    by_environment = await place.run(*profile, "show", "x", TEMPORAL_ADDRESS="127.0.0.1:1")
    by_flag = await place.run("show", "x", "--address", place.address, TEMPORAL_ADDRESS="127.0.0.1:1")

    assert f"there is no run 'x' in namespace 'default' at {place.address}" in by_profile.err
    assert "no Temporal server at '127.0.0.1:1'" in by_environment.err
    assert f"at {place.address}" in by_flag.err


async def test_worker_with_faulty_files_says_all_and_exits_with_two(place: Place, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\ninstructions: x\nmodels: [foo:bar]\n")
    (tmp_path / "b.yaml").write_text("name: b\ninstructions: x\nmodels: [scripted:x]\ntoolz: []\n")

    done = await place.run("worker", "--agents", str(tmp_path), "--log-level", "error")

    assert done.code == 2
    assert [line.split(":")[0].rpartition("/")[2] for line in done.err.splitlines()] == ["a.yaml", "b.yaml"]


async def test_second_signal_ends_a_busy_worker_at_once(place: Place) -> None:
    busy = await place.start("worker", "--task-queue", "busy", "--log-level", "info", "-o", "json")
    try:
        await line_with(busy.stdout, "till")
        following = await place.start("run", "till", "dawdle", "--task-queue", "busy", "--id", "busy")
        await line_with(following.stdout, "look")
        following.send_signal(signal.SIGINT)
        await following.communicate()
        busy.terminate()
        await line_with(busy.stderr, "worker_stopping")
        assert busy.returncode is None
        busy.terminate()
        # Less than it would wait for what is going on.
        async with asyncio.timeout(20):
            assert await busy.wait() == 130
    finally:
        if busy.returncode is None:
            busy.kill()
        await busy.communicate()
        await place.client.get_workflow_handle("busy").terminate()


async def test_worker_of_a_deployment_polls_as_its_version(place: Place) -> None:
    versioned = await place.start(
        *("worker", "--deployment", "tills", "--build-id", "v1", "--task-queue", "versioned"),
        *("--identity", "till-7", "--max-cached-workflows", "0", "--log-level", "error", "-o", "json"),
    )
    try:
        await line_with(versioned.stdout, "till")
        await asyncio.sleep(0.5)
        assert versioned.returncode is None
    finally:
        if versioned.returncode is None:
            versioned.terminate()
        _, err = await versioned.communicate()
    assert versioned.returncode == 0, err


async def test_server_runs_in_the_foreground_until_it_is_told_to_stop(place: Place, tmp_path: Path) -> None:
    process = await place.start("server", "-o", "json", MANDATE_FOLDER=str(tmp_path / "state"))
    try:
        said = json.loads(await line_with(process.stdout, "address"))
        again = await place.run("server", "--port", "1", MANDATE_FOLDER=str(tmp_path / "state"))
        embedded = await place.run("show", "x", TEMPORAL_ADDRESS="", MANDATE_FOLDER=str(tmp_path / "state"))
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            await process.communicate()

    assert process.returncode == 0
    assert said["ui_url"].startswith("http://127.0.0.1:")
    assert f"at {said['address']}" in embedded.err
    assert again.code == 2
    assert "runs already, on " in again.err
    with await share_dev_server(tmp_path / "state", on_progress=lambda _: None, ui=False) as server:
        assert server.ui_url is None, "the server was still there"
