"""Metrics as Prometheus gets them from `mandate worker`, and what stands on them: the dashboard and the alerts."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from mandate.workers.telemetry.metrics import COUNTERS, GAUGES, HISTOGRAMS, MOST_VALUES, OTHER
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, asked, decide, write_people
from tests.support.ports import free_port
from tests.support.processes import Process, Processes, processes

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"

pytestmark = pytest.mark.alone

PAY = [
    {"call": [{"look": {"what": "shelf"}}, {"look_bad": {}}]},
    {"call": [{"pay": {"order": 1, "amount": 120.0}}]},
    {"say": "all done"},
]
BUDGETS = {"budgets": [{"id": "all", "per": "day", "cost_usd": "50.00"}]}
LABELS = {
    *("agent", "version", "model", "outcome", "kind", "tool", "verdict", "check", "finding", "via", "counts", "status"),
    *("verb", "budget", "operation", "le"),
    *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type", "error_type"),
}
SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
NAME = re.compile(r"\b(?:mandate|gen_ai_client|temporal)_[a-z_]+")

# Nobody asks for what these count in the runs of this test.
RARE = {"mandate_children", "mandate_messages"}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    site = new_site(tmp_path, client)
    checks = [{"after": "look", "expect": "result.contains('shelf')", "name": "shelf"}]
    write_people(tmp_path)
    site.environment["MANDATE_PEOPLE"] = str(tmp_path / "people.yaml")
    priced = [{"model": "scripted:asks.script.yaml", "price": {"input": "1", "output": "2"}}]
    site.write("asks", PAY, policy=ASK_ALL, checks=checks, models=priced)
    (tmp_path / "budgets.yaml").write_text(json.dumps(BUDGETS))
    return site


async def serve(started: Processes, site: Site, temporal: DevServer, **more: str) -> tuple[Process, str]:
    port = free_port()
    worker = await started.worker(
        MANDATE_FOLDER=str(site.folder),
        MANDATE_AGENTS=str(site.folder / "agents"),
        MANDATE_BUDGETS=str(site.folder / "budgets.yaml"),
        MANDATE_TASK_QUEUE=site.queue,
        MANDATE_METRICS=f"127.0.0.1:{port}",
        TEMPORAL_ADDRESS=temporal.address,
        **site.environment,
        **more,
    )
    return worker, f"http://127.0.0.1:{port}/metrics"


def read(url: str) -> list[tuple[str, dict[str, str], float]]:
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    found = [SAMPLE.fullmatch(line) for line in lines if line and not line.startswith("#")]
    return [(one["name"], dict(LABEL.findall(one["labels"] or "")), float(one["value"])) for one in found if one]


def value(samples: list[tuple[str, dict[str, str], float]], name: str, **labels: str) -> float:
    return sum(number for found, its, number in samples if found == name and labels.items() <= its.items())


async def until(url: str, name: str, at_least: float, **labels: str) -> list[tuple[str, dict[str, str], float]]:
    async with asyncio.timeout(60):
        while value(samples := read(url), name, **labels) < at_least:
            await asyncio.sleep(0.5)
    return samples


async def test_what_is_served_is_right_bounded_and_what_dashboard_and_alerts_need(
    site: Site, started: Processes, temporal: DevServer
) -> None:
    _, url = await serve(started, site, temporal)

    async def pay() -> str:
        handle = await site.start("asks", requester="eve@example.com")
        (request,) = await asked(handle)
        await decide(handle, request, comment="as agreed")
        await handle.result()
        return handle.id

    waiting = await site.start("asks", requester="eve@example.com")
    await asked(waiting)
    open_now = await until(url, "mandate_requests_open", 1, agent="asks", kind="approval")
    ids = [waiting.id, await pay()]
    samples = await until(url, "mandate_runs_total", 1, agent="asks", outcome="completed")
    before = len([one for one in samples if one[0].startswith(("mandate", "gen_ai"))])
    ids += [await pay() for _ in range(3)]
    later = await until(url, "mandate_runs_total", 4, agent="asks", outcome="completed")

    assert value(open_now, "mandate_request_oldest_seconds", agent="asks") >= 0
    assert value(samples, "mandate_runs_started_total", agent="asks") == 2
    assert value(samples, "mandate_tool_calls_total", tool="pay", outcome="done") == 1
    assert value(samples, "mandate_verdicts_total", agent="asks", verdict="ask") == 2
    assert value(samples, "mandate_verdicts_total", agent="asks", verdict="allow") == 4
    assert value(samples, "mandate_checks_total", agent="asks", finding="pass") == 2
    assert value(samples, "mandate_request_ends_total", kind="approval", outcome="approved") == 1
    assert value(samples, "mandate_decisions_total", kind="approval", counts="true") == 1
    assert (
        value(samples, "gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="asks.script.yaml") == 5
    )
    # Three more runs make no series: nothing is named by its run, its request or a person.
    assert len([one for one in later if one[0].startswith(("mandate", "gen_ai"))]) == before
    ours = [(name, labels) for name, labels, _ in later if name.startswith(("mandate", "gen_ai"))]
    assert {label for _, labels in ours for label in labels} <= LABELS
    said = json.dumps(ours)
    for secret in (*ids, "r1", "ann@example.com", "eve@example.com", "as agreed", "all done", "finance"):
        assert f'"{secret}"' not in said
    names = {name for name, _, _ in later}
    counted = {f"{name}_total" for name in COUNTERS} | {f"{name}_count" for name in HISTOGRAMS} | set(GAUGES)
    missing = counted - names - {f"{name}_total" for name in RARE}
    assert missing == set()
    assert find_names(json.loads((MONITORING / "dashboard.json").read_text())) - names <= {f"{n}_total" for n in RARE}
    assert set(NAME.findall((MONITORING / "alerts.yaml").read_text())) - names == set()


def find_names(dashboard: dict[str, Any]) -> set[str]:
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert all(panel["description"] and panel["targets"] for panel in dashboard["panels"] if panel["type"] != "row")
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    texts = [target["expr"] for target in targets]
    texts += [variable.get("definition", "") for variable in dashboard["templating"]["list"]]
    return {name for text in texts for name in NAME.findall(text)}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("9464", "MANDATE_METRICS: '9464' is no address; write ':9464' for all interfaces, or one such as"),
        ("example.com:9464", "MANDATE_METRICS: 'example.com:9464' is no address"),
        (":0", "MANDATE_METRICS: ':0' is no address"),
        (":70000", "MANDATE_METRICS: ':70000' is no address"),
    ],
)
async def test_an_address_that_is_none_is_refused(
    site: Site, started: Processes, temporal: DevServer, address: str, said: str
) -> None:
    worker = started.mandate(
        "worker", MANDATE_AGENTS=str(site.folder / "agents"), MANDATE_METRICS=address, TEMPORAL_ADDRESS=temporal.address
    )

    assert await worker.ended() == 2
    assert said in worker.stderr()
    assert "Traceback" not in worker.stderr()


async def test_a_port_that_is_taken_is_refused(site: Site, started: Processes, temporal: DevServer) -> None:
    _, url = await serve(started, site, temporal)
    port = url.split(":")[2].partition("/")[0]
    second = started.mandate(
        "worker",
        MANDATE_FOLDER=str(site.folder),
        MANDATE_AGENTS=str(site.folder / "agents"),
        MANDATE_METRICS=f":{port}",
        TEMPORAL_ADDRESS=temporal.address,
    )

    assert await second.ended() == 2
    (line,) = [line for line in second.stderr().splitlines() if "MANDATE_METRICS" in line]
    assert f"metrics cannot be served at 0.0.0.0:{port}: Address already in use" in line


def find_promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        sentence = "promtool is not here (on Debian: apt-get install prometheus)"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    assert found is not None
    return found


@pytest.mark.parametrize("words", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")])
def test_prometheus_takes_the_alerts(words: tuple[str, ...]) -> None:
    done = subprocess.run([find_promtool(), *words], cwd=MONITORING, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_section_that_says_what_to_do() -> None:
    page = (ROOT / "deploy" / "docs" / "monitoring.md").read_text()
    alerts = re.findall(r"alert: (\w+)\n(?:.*\n)*?.*runbook_url: (\S+)", (MONITORING / "alerts.yaml").read_text())

    assert len(alerts) == 15
    for name, address in alerts:
        assert address == f"deploy/docs/monitoring.md#{name.lower()}"
        assert f"\n### {name}\n" in page
    assert str(MOST_VALUES) in page
    assert f"`{OTHER}`" in page
