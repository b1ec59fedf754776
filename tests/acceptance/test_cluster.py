"""What a user does, and the proofs by crashing in short, on a real cluster with PostgreSQL."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mandate.workers.client.client import AgentClient
from mandate.workers.dev_server.binary import find_binary
from mandate.workers.dev_server.server import TUNING as LOCAL_TUNING
from mandate.workers.dev_server.server import DevServer
from tests.acceptance import crash, sessions, trees
from tests.acceptance.outages import Place
from tests.support.agents import new_site, parts_taken
from tests.support.fault_judge import Judgement
from tests.support.fault_plan import SOURCES, TOOL_POINTS, Hurt, task
from tests.support.fault_stage import Setting
from tests.support.people import ASK_ALL, asked, write_people
from tests.support.postgres import PASSWORD
from tests.support.processes import Processes, processes
from tests.support.temporal_cli import new_shell

# The first one waits until the server is built.
pytestmark = [pytest.mark.alone, pytest.mark.cluster, pytest.mark.timeout(1800)]

STEPS = 60
WIDE = {"steps": 2 * STEPS, "model_calls": 2 * STEPS, "tool_calls": 2 * STEPS}


async def test_set_up_namespace_is_set_up_again_without_a_change(cluster_place: Place) -> None:
    """The cluster was empty, and its namespace was made by the same command."""
    said = await cluster_place.cluster.set_up()

    assert said["namespace"] == {"name": "default", "state": "there", "retention": "30d"}
    assert {one["state"] for one in said["search_attributes"]} == {"there"}


async def test_who_may_not_set_up_a_namespace_is_told_so(cluster_place: Place, tmp_path: Path) -> None:
    cluster = cluster_place.cluster
    await cluster.kill()
    cluster.authorizer = "default"
    try:
        await cluster.start()
        with processes(tmp_path, TEMPORAL_ADDRESS=cluster.address) as started:
            process = started.mandate("setup-namespace", "-n", "shop")
            code = await process.ended()
    finally:
        await cluster.kill()
        cluster.authorizer = ""
        await cluster.start()

    assert (code, process.stdout()) == (2, "")
    assert process.stderr() == (
        f"error: this client may not set up namespace 'shop' at {cluster.address} (Request unauthorized.); ask for the "
        "rights of an administrator, or have one make the namespace and the search attributes\n"
    )


async def test_server_knows_the_settings_that_the_pages_recommend(cluster_place: Place) -> None:
    file = cluster_place.cluster.folder / "local.yaml"
    file.write_text(json.dumps({key: [{"value": json.loads(value)}] for key, value in LOCAL_TUNING.items()}))

    for checked in (file, cluster_place.cluster.folder / "dynamic.yaml"):
        command = (str(cluster_place.cluster.binaries.server), "validate-dynamic-config", str(checked))
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout.split()) == (0, [str(checked)])


async def test_long_run_goes_on_over_its_parts(cluster_place: Place, tmp_path: Path) -> None:
    site = new_site(tmp_path, cluster_place.client, MANDATE_STORE=cluster_place.cluster.store)
    site.write(
        "long", [*({"call": [{"look": {"what": str(n)}}]} for n in range(STEPS)), {"say": "all seen"}], budget=WIDE
    )

    result, workflow_id = await site.run("long")

    assert (result.status, result.output) == ("completed", "all seen")
    assert result.usage.tool_calls == STEPS
    assert await parts_taken(cluster_place.client, workflow_id) > 3


async def test_people_approve_with_our_command_and_with_temporals(cluster_place: Place, tmp_path: Path) -> None:
    people = str(write_people(tmp_path))
    site = new_site(tmp_path, cluster_place.client, MANDATE_PEOPLE=people)
    site.write("payer", [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}], policy=ASK_ALL)
    environment = {
        "TEMPORAL_ADDRESS": cluster_place.cluster.address,
        "MANDATE_STORE": cluster_place.cluster.store,
        "MANDATE_FOLDER": str(tmp_path),
        "MANDATE_AGENTS": str(tmp_path / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "MANDATE_PEOPLE": people,
        "MANDATE_USER": "ann@example.com",
    }
    agents = AgentClient(cluster_place.client, site.queue)

    with processes(tmp_path / "processes", **environment) as started:
        await started.worker()
        ours = await agents.start("payer", "Pay.", workflow_id=f"{site.queue}-ours", requester="eve@example.com")
        theirs = await agents.start("payer", "Pay.", workflow_id=f"{site.queue}-theirs", requester="eve@example.com")
        (request,) = await asked(theirs)
        await asked(ours)
        box = json.loads(await said(started, "inbox", "-o", "json"))
        done = await said(started, "approve", f"{ours.id}:r1")
        decision = {"request": "r1", "digest": request.digest, "choice": "approve", "by": "ann@example.com"}
        shell = new_shell(_as_server(cluster_place), tmp_path / "bin")
        receipt = await shell.out(
            f"temporal workflow update execute --workflow-id {theirs.id} --name decide --input '{json.dumps(decision)}'"
        )
        results = [await handle.result() for handle in (ours, theirs)]
        shown = json.loads(await said(started, "show", ours.id, "-o", "json"))

    assert {ours.id, theirs.id} <= {one["workflow_id"] for one in box["requests"]}
    assert done == f"{ours.id}:r1  r1 is approved: ann@example.com approved it\n"
    assert "r1 is approved: ann@example.com approved it" in receipt
    assert [(result.status, result.effects.count) for result in results] == [("completed", 1)] * 2
    assert shown["status"] == "completed"


async def said(started: Processes, *words: str) -> str:
    """What a command that succeeds prints."""
    process = started.mandate(*words)
    assert await process.ended() == 0, process.stderr()
    return process.stdout()


def _as_server(cluster_place: Place) -> DevServer:
    """The cluster, as the shell of tests knows servers."""
    binary = find_binary(lambda _: None)
    return DevServer(
        cluster_place.cluster.address,
        None,
        binary,
        cluster_place.cluster.folder / "temporal.log",
        cluster_place.cluster.pid,
    )


async def test_crashes_lose_and_double_nothing(cluster_place: Place, tmp_path: Path) -> None:
    setting = Setting(cluster_place.cluster.address, tmp_path, store=cluster_place.cluster.store)
    cells = [Hurt(point, f"pay_{SOURCES[i % len(SOURCES)]}") for i, point in enumerate(TOOL_POINTS)]
    tasks = [task(f"cluster-{number}", number, hurt, "pay") for number, hurt in enumerate(cells)]

    played = await crash.play(cluster_place.client, setting, tasks)

    judgement = played.judged()
    crash.show(crash.report(played, judgement), played)
    assert replace(judgement, repeated=0) == Judgement()
    assert played.uncounted == []
    assert played.killed > 0
    assert {hit.point for hit in played.hits} & set(TOOL_POINTS)


async def test_trees_report_once_whatever_dies(cluster_place: Place, tmp_path: Path) -> None:
    plan = trees.Plan(seed=2, trees=2, children=8, kills=1)

    played = await trees.play(
        cluster_place.client, cluster_place.cluster.address, tmp_path, plan, store=cluster_place.cluster.store
    )

    assert played.faults() == [], trees.show(played)
    assert played.killed > 0
    assert played.parts > plan.trees * (plan.children + 1), "no run continued as new"


async def test_each_message_of_sessions_is_answered_once(cluster_place: Place, tmp_path: Path) -> None:
    plan = sessions.Plan(seed=3, sessions=8, messages=2, kills=1)

    played = await sessions.play(
        cluster_place.client, cluster_place.cluster.address, tmp_path, plan, store=cluster_place.cluster.store
    )

    assert played.faults() == [], sessions.show(played)
    assert sessions.report(played)["answered"] == sessions.report(played)["messages"]
    assert played.killed > 0
    assert played.parts > plan.sessions, "no message met the end of a run"


async def test_store_is_in_the_same_postgresql(cluster_place: Place, tmp_path: Path) -> None:
    site = new_site(tmp_path, cluster_place.client, MANDATE_STORE=cluster_place.cluster.store)
    site.write("clerk", [{"say": "done"}])

    result, _ = await site.run("clerk")

    assert result.status == "completed"
    assert not list(tmp_path.glob("**/*.db"))
    assert PASSWORD not in cluster_place.cluster.log()
