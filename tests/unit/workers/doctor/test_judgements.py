"""Judgements of `mandate doctor` on what it finds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.service import TLSConfig

from mandate.workers.doctor.certificates import check_certificates
from mandate.workers.doctor.findings import Finding, join
from mandate.workers.doctor.queue import Polling, QueueState, judge_queue
from mandate.workers.doctor.server import judge_clocks
from mandate.workers.fleet import Peer, ServedAgent, WorkerWord
from mandate.workflows.contracts.base import digest_of
from tests.support.certificates import Authority

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def peer(identity: str, *, files: str = "a", release: str = "0.1.0", build: str = "") -> Peer:
    served = (ServedAgent(agent="shop", digest=digest_of(files.encode())),)
    word = WorkerWord(identity=identity, build=build, release=release, agents=served)
    return Peer(identity, word, NOW, NOW)


def judged(state: QueueState, *peers: Peer) -> Finding:
    return judge_queue(state, "agents", peers, "mandate")


def test_workers_that_agree() -> None:
    state = QueueState((Polling("1@a"), Polling("2@b")))

    assert judged(state, peer("1@a"), peer("2@b"), peer("gone@c", files="old")) == Finding(
        "workers", "ok", "2 workers poll task queue 'agents': 1@a, 2@b"
    )


def test_nobody_polls() -> None:
    assert judged(QueueState(())) == Finding(
        "workers", "warn", "nobody polls task queue 'agents'", "start a worker: mandate worker"
    )


@pytest.mark.parametrize(
    ("state", "status", "found", "advice"),
    [
        (QueueState((Polling("1@a", "agents", "B"),), "agents.B"), "ok", "1 worker polls task queue", ""),
        (
            QueueState((Polling("1@a", "agents", "B"),)),
            "fail",
            "all workers have a version, and none is the current one: no run begins",
            "set-current-version --deployment-name agents --build-id B",
        ),
        (
            QueueState((Polling("1@a", "agents", "B"), Polling("2@a")), "agents.A"),
            "fail",
            "new runs go to worker version agents.A, of which no worker polls",
            "start workers of it",
        ),
        (QueueState((Polling("1@a", "agents", "B"), Polling("2@a"))), "ok", "1@a (version agents.B), 2@a", ""),
    ],
)
def test_versions_of_workers(state: QueueState, status: str, found: str, advice: str) -> None:
    finding = judge_queue(state, "agents", None, "mandate")

    assert finding.status == status
    assert found in finding.found
    assert advice in finding.advice


def test_workers_that_differ() -> None:
    two = QueueState((Polling("1@a"), Polling("2@b")))

    files = judged(two, peer("1@a"), peer("2@b", files="b"))
    releases = judged(two, peer("1@a"), peer("2@b", release="0.2.0"))
    other_store = judged(two, peer("1@a"))
    builds = judged(two, peer("1@a", build="agents/A"), peer("2@b", files="b", build="agents/B"))

    assert (files.status, releases.status, other_store.status, builds.status) == ("warn", "warn", "warn", "ok")
    assert "agent 'shop' is served in 2 versions" in files.found
    assert "they are of Mandate 0.1.0 and 0.2.0" in releases.found
    assert "worker 2@b polls task queue 'agents' too" in other_store.found


@pytest.mark.parametrize(
    ("seconds", "status", "found"),
    [
        (0.4, "ok", "Temporal is within a second of this machine"),
        (-4.0, "ok", "Temporal is 4 s behind this machine"),
        (5.0, "warn", "Temporal is 5 s ahead of this machine"),
        (-60.0, "fail", "Temporal is 60 s behind this machine"),
    ],
)
def test_clocks(seconds: float, status: str, found: str) -> None:
    finding = judge_clocks({"Temporal": timedelta(seconds=seconds), "the store": None})

    assert (finding.status, finding.found) == (status, found)


def test_no_clock_is_known() -> None:
    assert judge_clocks({"Temporal": None}).status == "skipped"


def test_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = authority.certificate.read_bytes()

    def finding(lives: timedelta) -> Finding:
        own = authority.issue("worker", lives=lives).certificate.read_bytes()
        return check_certificates(TLSConfig(server_root_ca_cert=ca, client_cert=own))

    fresh, soon, over = (finding(timedelta(days=days)) for days in (90, 10, -1))

    assert [fresh.status, soon.status, over.status] == ["warn", "warn", "fail"]
    assert "the CA certificate holds until" in fresh.found
    assert "the client certificate holds until" in soon.found
    assert over.found.startswith("the client certificate expired on ")
    assert check_certificates(TLSConfig(client_cert=b"secret words")) == Finding(
        "certificates", "fail", "the client certificate is no certificate in PEM", "name another file"
    )
    assert check_certificates(None).status == "skipped"
    assert check_certificates(True).status == "ok"


def test_the_worst_is_told_first_and_what_is_fine_not_at_all() -> None:
    fine, bad, worse = Finding("", "ok", "a"), Finding("", "warn", "b", "do b"), Finding("", "fail", "c", "do c")

    assert join("keys", [fine, bad, worse]) == Finding("keys", "fail", "c; b", "do c; do b")
    assert join("keys", [fine, fine]) == Finding("keys", "ok", "a; a")
