"""Proof by crashing, in short: every point once, and the two cases that must fail do."""

import asyncio
from dataclasses import replace

import pytest
from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import RunStatus
from tests.acceptance.crash import Played, play, report, show
from tests.support.fault_judge import Judgement
from tests.support.fault_plan import SOURCES, TOOL_POINTS, Hurt, Point, Task, task
from tests.support.fault_stage import RETRYING, Setting

MODEL = [Hurt(point) for point in Point if point.of_model] * 2


def cells(name: str) -> list[Hurt]:
    """Every point for every second source, so that neighbours share them."""
    tools = [Hurt(point, f"{name}_{source}") for i, point in enumerate(TOOL_POINTS) for source in SOURCES[i % 2 :: 2]]
    return [*MODEL, *tools]


def tasks(prefix: str, main: str, table: list[Hurt]) -> list[Task]:
    return [task(f"{prefix}-{number}", number, hurt, main) for number, hurt in enumerate(table)]


@pytest.fixture(scope="module")
async def played(tmp_path_factory: pytest.TempPathFactory, client: Client, temporal: DevServer) -> dict[str, Played]:
    """What workers as they are did, and one that repeats everything, at the same time.

    The runs that are `wrong` should not have declared their tools `keyed`: the server ignores keys of theirs and of
    those that are `once`.
    """
    honest = [
        *tasks("keyed", "pay", cells("pay")),
        *tasks("once", "send", cells("send")),
        *tasks("probed", "send", [Hurt(point, f"send_{SOURCES[i % 4]}") for i, point in enumerate(TOOL_POINTS)]),
        *tasks("wrong", "pay", [Hurt(Point.LOSE_REPLY, f"pay_{source}") for source in SOURCES]),
    ]
    repeating = tasks("repeating", "send", [Hurt(Point.LOSE_REPLY, f"send_{source}") for source in SOURCES])
    setting = Setting(
        temporal.address, tmp_path_factory.mktemp("honest"), no_keys=("once", "probed", "wrong"), probed=("probed",)
    )
    again = replace(setting, folder=tmp_path_factory.mktemp("again"))
    # Nobody is killed there.
    folder = tmp_path_factory.mktemp("repeating")
    alone = Setting(temporal.address, folder, no_keys=("",), worker=RETRYING, workers=1, remote_workers=1)
    first, repeated = await asyncio.gather(play(client, setting, honest), play(client, alone, repeating))
    # A run that lost its worker for another's sake may have ended before its own point.
    late = [replace(each, name=f"{each.name}-again") for each in honest if missed(first, each)]
    return {"honest": first.and_then(await play(client, again, late)) if late else first, "repeating": repeated}


def missed(played: Played, its: Task) -> bool:
    """Whether no run of the same case was hurt as this one was to be."""
    wanted = {*its.points.get("b1", ()), *its.model.get(3, ())} & set(Point)
    case = its.name.partition("-")[0]
    return not wanted <= {hit.point for hit in played.hits if hit.run.startswith(case)}


def test_keyed_tools_against_a_server_that_knows_keys_lose_and_double_nothing(played: dict[str, Played]) -> None:
    show(report(played["honest"], played["honest"].judged()), played["honest"])

    judgement = played["honest"].judged("keyed")

    assert replace(judgement, repeated=0) == Judgement()


def test_once_tools_against_a_server_without_keys_double_nothing_and_hide_nothing(played: dict[str, Played]) -> None:
    judgement = played["honest"].judged("once")

    assert replace(judgement, repeated=0) == Judgement()


@pytest.mark.parametrize("case", ["keyed", "once"])
def test_every_point_was_hit(played: dict[str, Played], case: str) -> None:
    assert {hit.point for hit in played["honest"].hits if hit.run.startswith(case)} == set(Point)


def test_run_whose_once_call_is_unknown_says_so_and_ends(played: dict[str, Played]) -> None:
    hits = [hit for hit in played["honest"].hits if hit.run.startswith("once")]
    hurt = {hit.run for hit in hits if hit.point is Point.LOSE_REPLY}

    unclear = {ran.task.name: ran.result for ran in played["honest"].runs if ran.result and ran.result.uncertain}

    assert hurt
    assert hurt <= set(unclear)
    assert {result.status for result in unclear.values()} == {RunStatus.DECLINED}


def test_once_tools_with_a_probe_leave_nothing_unknown(played: dict[str, Played]) -> None:
    judgement = played["honest"].judged("probed")

    ended = [ran.result for ran in played["honest"].runs if ran.task.name.startswith("probed") and ran.result]
    assert replace(judgement, repeated=0) == Judgement()
    assert {(result.status, result.uncertain) for result in ended} == {(RunStatus.COMPLETED, ())}
    # What was not known was found out, and was not just always known.
    found_out = [entry for result in ended for entry in result.effects.last if entry.reason == "as find_call shows"]
    assert {entry.tool.partition("_")[0] for entry in found_out} == {"send"}


def test_keyed_tools_leave_nothing_to_people(played: dict[str, Played]) -> None:
    ended = [ran.result for ran in played["honest"].runs if ran.task.name.startswith("keyed") and ran.result]

    assert {(result.status, result.uncertain) for result in ended} == {(RunStatus.COMPLETED, ())}


def test_once_tools_leave_nothing_to_people_when_only_models_are_hurt(played: dict[str, Played]) -> None:
    runs = [ran for ran in played["honest"].runs if ran.task.name.startswith("once") and not ran.task.points]

    ended = [ran.result for ran in runs if ran.result]
    assert len(ended) == len(runs) >= len(MODEL)
    # A worker that dies for another run may take a call of theirs with it, more often on a busy machine. The judge lets
    # that pass, and nothing else.
    assert [result.uncertain != () for result in ended] == [result.status is RunStatus.DECLINED for result in ended]
    assert {result.status for result in ended} <= {RunStatus.COMPLETED, RunStatus.DECLINED}
    assert RunStatus.COMPLETED in {result.status for result in ended}


def test_time_to_go_on_and_repeated_model_calls_are_measured(played: dict[str, Played]) -> None:
    found = report(played["honest"], played["honest"].judged())

    assert found["workers_killed"] >= 1
    assert {hit.point for hit, _ in played["honest"].waits} == {point for point in Point if point.kills_worker}
    assert 0 < found["seconds_to_go_on"]["median"] <= found["seconds_to_go_on"]["most"] < 60
    # A killed worker had one call of the model in hand for each of its runs at the most.
    assert 0 < found["model_calls_repeated_per_kill"] <= 3


def test_keyed_tools_against_a_server_that_ignores_keys_are_caught(played: dict[str, Played]) -> None:
    judgement = played["honest"].judged("wrong")

    assert {line.split()[1] for line in judgement.doubled} == {f"pay_{source}" for source in SOURCES}
    assert len(judgement.silent) == len(judgement.doubled)


def test_worker_that_repeats_everything_is_caught(played: dict[str, Played]) -> None:
    judgement = played["repeating"].judged()

    assert {line.split()[1] for line in judgement.doubled} == {f"send_{source}" for source in SOURCES}
    assert len(judgement.silent) == len(judgement.doubled)
