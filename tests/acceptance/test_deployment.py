"""Files for production: checked by the tools of their field, and against what the worker does."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.base import parse_duration
from tests.acceptance.test_worker_health import becomes
from tests.support.checkers import checker
from tests.support.pages import PROJECT
from tests.support.ports import free_port
from tests.support.processes import Process, processes

DEPLOY = PROJECT / "deploy"
USER = 65532

pytestmark = pytest.mark.timeout(600)


def run(*words: str | Path, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def seconds(text: str) -> float:
    parsed: Any = parse_duration(text)
    return float(parsed.total_seconds())


@pytest.fixture(scope="module")
async def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `kubectl apply -k deploy/kubernetes/example` sends."""
    made = run(await checker("kustomize"), "build", DEPLOY / "kubernetes" / "example")
    assert made.returncode == 0, made.stderr
    path = tmp_path_factory.mktemp("manifests") / "all.yaml"
    path.write_text(made.stdout)
    return path


def of_kind(manifests: Path, kind: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifests.read_text()) if one["kind"] == kind]


async def test_the_dockerfile_has_no_faults() -> None:
    done = run(await checker("hadolint"), DEPLOY / "Dockerfile")

    assert (done.returncode, done.stdout) == (0, "")


async def test_hadolint_finds_a_fault(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN sudo apt-get install x\n")

    assert run(await checker("hadolint"), tmp_path / "Dockerfile").returncode == 1


async def test_the_manifests_fit_the_schemas_of_kubernetes(manifests: Path) -> None:
    done = run(await checker("kubernetes-validate"), "--strict", "-k", "1.37", manifests)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == 7


async def test_a_misspelt_field_of_a_manifest_is_found(manifests: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(manifests.read_text().replace("readOnlyRootFilesystem", "readOnlyRoot"))

    assert run(await checker("kubernetes-validate"), "--strict", "-k", "1.37", wrong).returncode == 1


async def test_the_manifests_agree_with_each_other(manifests: Path) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    settings, project = (
        one["data"] for one in sorted(of_kind(manifests, "ConfigMap"), key=lambda one: "support.yaml" in one["data"])
    )
    labels = pod["metadata"]["labels"].items()
    (budget,) = of_kind(manifests, "PodDisruptionBudget")
    (policy,) = of_kind(manifests, "NetworkPolicy")
    (scaler,) = of_kind(manifests, "HorizontalPodAutoscaler")

    for selector in (budget["spec"]["selector"], policy["spec"]["podSelector"], deployment["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels
        assert selector["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    external = scaler["spec"]["metrics"][0]["external"]["metric"]
    assert external == {
        "name": "approximate_backlog_count",
        "selector": {"matchLabels": {"taskqueue": settings["MANDATE_TASK_QUEUE"]}},
    }
    assert pod["spec"]["terminationGracePeriodSeconds"] > seconds(settings["MANDATE_DRAIN"]) + 10
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert settings["MANDATE_HEALTH"] == f":{ports['health']}"
    assert {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
    }
    paths = [item["path"] for item in pod["spec"]["volumes"][0]["configMap"]["items"]]
    assert [Path(path).name for path in paths] == sorted(project)
    assert not of_kind(manifests, "Secret")
    secure = container["securityContext"]
    assert secure == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["securityContext"]["runAsUser"] == USER


async def test_the_project_of_the_manifests_can_be_served(manifests: Path, tmp_path: Path) -> None:
    """Written as the pod sees it, with the secret as a file."""
    (deployment,) = of_kind(manifests, "Deployment")
    (project,) = (one["data"] for one in of_kind(manifests, "ConfigMap") if "support.yaml" in one["data"])
    for item in deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["items"]:
        path = tmp_path / "app" / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(project[item["key"]])
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "OPENAI_API_KEY").write_text("no-key")

    with processes(tmp_path / "processes", MANDATE_SECRETS=str(tmp_path / "secrets")) as started:
        started.cwd = tmp_path / "app"
        checked = started.mandate("validate")
        code = await checked.ended()

    assert (code, checked.stderr()) == (0, "")
    assert "warning" not in checked.stdout()


async def test_the_compose_file_can_be_loaded(tmp_path: Path) -> None:
    """With its interpolation, schema and references between services, as `docker compose config` does."""
    shutil.copy(DEPLOY / "compose.yaml", tmp_path / "compose.yaml")
    # This loader reads no variables of the environment.
    loaded = (tmp_path / "compose.yaml").read_text().replace("${POSTGRES_PASSWORD:?}", "word")
    (tmp_path / "compose.yaml").write_text(
        loaded.replace("${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD, for example in deploy/.env}", "word")
    )

    done = run(await checker("compose-go"), "-format", "json", "compose.yaml", cwd=tmp_path)
    broken = (tmp_path / "compose.yaml").read_text().replace("condition: service_healthy", "condition: service_well")
    (tmp_path / "broken.yaml").write_text(broken)
    refused = run(await checker("compose-go"), "broken.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert refused.returncode != 0
    services = json.loads(done.stdout)["services"]
    assert set(services) == {
        *("postgresql", "temporal-schema", "temporal", "temporal-namespace", "temporal-ui", "worker", "collector"),
    }
    worker = services["worker"]
    assert (worker["read_only"], worker["cap_drop"]) == (True, ["ALL"])
    assert seconds(worker["stop_grace_period"]) > seconds(worker["environment"]["MANDATE_DRAIN"]) + 10


def test_without_a_password_nothing_starts() -> None:
    text = (DEPLOY / "compose.yaml").read_text()

    assert "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?" in text
    assert all(f"{name}:?" in line for line in text.splitlines() if (name := "${POSTGRES_PASSWORD") in line)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    unit = (DEPLOY / "systemd" / "mandate-worker.service").read_text()
    (tmp_path / "mandate-worker.service").write_text(unit.replace("/opt/mandate/bin/mandate", "/bin/true"))
    (tmp_path / "wrong.service").write_text(
        unit.replace("/opt/mandate/bin/mandate", "/bin/true").replace("UMask", "Umask")
    )

    done = run("systemd-analyze", "verify", tmp_path / "mandate-worker.service")
    wrong = run("systemd-analyze", "verify", tmp_path / "wrong.service")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Umask" in wrong.stderr


def test_the_unit_restarts_what_a_new_start_may_mend() -> None:
    lines = (DEPLOY / "systemd" / "mandate-worker.service").read_text().splitlines()
    told = dict(
        line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", "Environment", "Load"))
    )
    drain = next(line for line in lines if "MANDATE_DRAIN" in line and line.startswith("Environment")).split("=")[2]

    assert (told["Restart"], told["RestartPreventExitStatus"], told["SuccessExitStatus"]) == ("on-failure", "2", "130")
    assert seconds(told["TimeoutStopSec"]) > seconds(drain) + 10


IN_ROOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o uid={user},gid={user},mode=0700 tmpfs {state}
{opened}
mount -o remount,bind,ro /
exec setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set -all "$@"
"""
"""Commands that make the root read-only for themselves, then runs a program as the user of the image."""


def open_interpreter(beside: Path) -> str:
    """Commands that let everybody reach this interpreter, where it is in a folder of its owner alone."""
    base = Path(sys.base_prefix).resolve()
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in base.parents):
        return ""
    beside.mkdir()
    top = Path("/", base.parts[1])
    return f"""mount --bind {base} {beside}
mount -t tmpfs -o mode=0755 tmpfs {top}
mkdir -p {base}
mount --bind {beside} {base}"""


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder that everybody may enter, with what the Dockerfile installs in `opt/mandate`, by its own step."""
    if os.geteuid() != 0 or run("unshare", "-m", "true").returncode:
        pytest.skip("only root may make a read-only root for a process of its own")
    with tempfile.TemporaryDirectory(prefix="mandate-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        installed = run("sh", "deploy/image/install.sh", folder / "opt" / "mandate")
        assert installed.returncode == 0, installed.stderr
        yield folder


@pytest.mark.alone
async def test_the_tree_of_the_image_serves_as_another_user_with_a_read_only_root(
    image: Path, temporal: DevServer
) -> None:
    tree, state = image / "opt" / "mandate", image / "state"
    state.mkdir()
    script = IN_ROOT.format(user=USER, state=state, opened=open_interpreter(image / "base"))
    port = free_port()
    inside = {
        "PATH": f"{tree / 'bin'}:/usr/bin:/bin",
        "HOME": str(state),
        "MANDATE_FOLDER": str(state),
        "MANDATE_DEMO_SHOP": str(state / "shop.db"),
        "MANDATE_HEALTH": f"127.0.0.1:{port}",
        "MANDATE_TASK_QUEUE": "image",
        "TEMPORAL_ADDRESS": temporal.address,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    project = image / "app"
    for name in ("agents", "policies"):
        shutil.copytree(DEPLOY / name, project / name)
    shutil.copy(DEPLOY / "people.yaml", project)
    (project / "mandate.yaml").write_text("task_queue: image\n")

    def start(*words: str) -> Process:
        out, err = image / f"{words[0]}.out", image / f"{words[0]}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            shell = ["unshare", "-m", "sh", "-c", script, "sh", *words]
            return Process(subprocess.Popen(shell, cwd=project, env=inside, stdout=stdout, stderr=stderr), out, err)

    touched = start("touch", str(tree / "x"))
    worker = start("mandate", "worker")
    try:
        ready = await becomes(port, 200, 180)
        doctor = start("mandate", "doctor", "-o", "json")
        examined = await doctor.ended()
        status = Path(f"/proc/{worker.pid}/status").read_text()
    finally:
        worker.send(signal.SIGTERM)
        code = await worker.ended()

    assert await touched.ended() == 1
    assert "Read-only file system" in touched.stderr()
    assert list(ready["agents"]) == ["shop"]
    assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
    assert "CapEff:\t0000000000000000" in status
    assert (examined, code) == (0, 0), doctor.stdout() + worker.stderr()
    assert not list(tree.glob("lib/*/site-packages/pip")) + list(tree.glob("bin/temporal"))
