"""Telling people: real receivers that fail in every way, and one that never holds another back."""

import asyncio
import dataclasses
import hashlib
import hmac
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.channels.base import Channel, Parcel
from mandate.activities.channels.delivery import Pace
from mandate.activities.channels.http_post import HttpPost
from mandate.activities.channels.log import LogSender
from mandate.activities.channels.slack import SlackSender
from mandate.activities.channels.webhook import WebhookSender
from mandate.activities.notification import NotificationActivities
from mandate.workers.catalog.channels import notification_activities
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.channels import LogChannel, SlackChannel, WebhookChannel
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import Notice, Notified, NotifyRequest
from tests.support.http_peer import HttpPeer, Reply, http_peer
from tests.support.notices import approval, need, notice, question, run_of

SECRET = "s3cr3t-of-the-hook"
TOKEN = "t0ken-in-the-path"
QUICK = Pace(
    attempt=timedelta(seconds=20),
    first_wait=timedelta(milliseconds=10),
    longest_wait=timedelta(milliseconds=300),
    whole=timedelta(seconds=60),
)


class Broken:
    """A channel with a fault of ours in the first of its messages."""

    at_once = 1

    def __init__(self) -> None:
        self.sent: list[str] = []

    def bundle(self, notices: tuple[Notice, ...]) -> tuple[tuple[Notice, ...], ...]:
        return tuple((notice,) for notice in notices)

    async def send(self, parcel: Parcel) -> None:
        if parcel.notices[0].request.id == "r1":
            raise RuntimeError(f"cannot post with {SECRET}")
        await asyncio.sleep(0.4)
        self.sent.append(parcel.notices[0].request.id)

    async def close(self) -> None:
        pass


def webhook(url: str, name: str = "oncall", **filters: Any) -> Channel:
    spec = WebhookChannel(name=name, kind="webhook", url=f"{url}/${{secret:TOKEN}}", secret="${secret:HOOK}", **filters)
    resolve = Secrets({"HOOK": SECRET, "TOKEN": TOKEN})
    return Channel(spec, WebhookSender(HttpPost(), resolve, url=spec.url, secret=spec.secret))


def slack(url: str, name: str = "finance") -> Channel:
    spec = SlackChannel(name=name, kind="slack", url="${secret:URL}")
    return Channel(spec, SlackSender(HttpPost(), Secrets({"URL": f"{url}/{TOKEN}"}), url=spec.url))


def log_channel() -> Channel:
    return Channel(LogChannel(name="log", kind="log"), LogSender())


async def told(
    channels: Sequence[Channel],
    request: NotifyRequest,
    *,
    pace: Pace = QUICK,
    attempt: int = 1,
    environment: ActivityEnvironment | None = None,
) -> tuple[Notified, list[Any]]:
    """What the activity answers, and what it logs; neither may hold a secret."""
    environment = environment or ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=attempt, heartbeat_timeout=timedelta(seconds=0.4))
    activities = NotificationActivities(channels, pace)
    try:
        with capture_logs() as logs:
            notified = await environment.run(activities.notify_people, request)
    finally:
        await activities.close()
    for secret in (SECRET, TOKEN):
        assert secret not in f"{notified} {logs}"
    return notified, list(logs)


@contextmanager
def dead_host() -> Iterator[str]:
    """Address of a port that nobody listens on, nor can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


async def test_webhook_is_signed_and_keyed() -> None:
    async with http_peer(Reply(204, "")) as peer:
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())))

    assert notified == Notified()
    (seen,) = peer.seen
    assert (seen.method, seen.target) == ("POST", f"/{TOKEN}")
    assert seen.headers["content-type"] == "application/json"
    at, _, signed = seen.headers["mandate-signature"].removeprefix("t=").partition(",v1=")
    assert abs(int(at) - time.time()) < 10
    assert signed == hmac.new(SECRET.encode(), at.encode() + b"." + seen.body, hashlib.sha256).hexdigest()
    assert len(seen.headers["idempotency-key"]) == 43
    body = seen.json()
    assert isinstance(body, dict)
    assert body["request"]["title"] == "issue_refund order=81 amount=120"
    assert body["answer"]["mandate"]["approve"] == "mandate approve shop-7f3a:r3"


@pytest.mark.parametrize(
    "first", [Reply(500), Reply(503), Reply(429), Reply(cut=True), Reply(late=30)], ids=lambda reply: str(reply.status)
)
async def test_what_may_pass_is_tried_again(first: Reply) -> None:
    pace = dataclasses.replace(QUICK, attempt=timedelta(seconds=2)) if first.late else QUICK
    async with http_peer(first, Reply(502), Reply()) as peer:
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())), pace=pace)

    assert notified == Notified()
    assert len(peer.seen) == 3
    assert len({seen.headers["idempotency-key"] for seen in peer.seen}) == 1
    assert len({seen.body for seen in peer.seen}) == 1


@pytest.mark.parametrize(
    ("reply", "attempts", "reason"),
    [
        (Reply(503), 4, "HTTP 503 Service Unavailable (4 attempts)"),
        (Reply(429), 4, "HTTP 429 Too Many Requests (4 attempts)"),
        (Reply(599), 4, "HTTP 599 (4 attempts)"),
        (Reply(cut=True), 4, "the connection was cut (RemoteProtocolError) (4 attempts)"),
        (Reply(400), 1, "HTTP 400 Bad Request (1 attempt)"),
        (Reply(401), 1, "HTTP 401 Unauthorized (1 attempt)"),
        (Reply(404, f"no such {TOKEN}"), 1, "HTTP 404 Not Found (1 attempt)"),
        (Reply(409), 1, "HTTP 409 Conflict (1 attempt)"),
    ],
)
async def test_a_failure_is_one_sentence_and_a_warning(reply: Reply, attempts: int, reason: str) -> None:
    async with http_peer(reply) as peer:
        notified, logs = await told([webhook(peer.url)], run_of(notice(approval())))

    assert notified.failures == (f"channel 'oncall' did not tell of r3: {reason}",)
    assert len(peer.seen) == attempts
    assert logs == [
        {
            "event": "channel_failed",
            "log_level": "warning",
            "channel": "oncall",
            "requests": ["r3"],
            "reason": reason.rpartition(" (")[0],
            "attempts": attempts,
        }
    ]


async def test_redirects_are_not_followed() -> None:
    async with http_peer(Reply()) as other, http_peer(Reply(307, headers={"Location": f"{other.url}/x"})) as peer:
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())))

    assert notified.failures == (
        "channel 'oncall' did not tell of r3: HTTP 307 Temporary Redirect; redirects are not followed (1 attempt)",
    )
    assert (len(peer.seen), len(other.seen)) == (1, 0)


async def test_retry_after_is_waited_for() -> None:
    pace = dataclasses.replace(QUICK, longest_wait=timedelta(seconds=30))
    async with http_peer(Reply(429, headers={"Retry-After": "1"}), Reply()) as peer:
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())), pace=pace)

    assert notified == Notified()
    assert 1.0 <= peer.seen[1].at - peer.seen[0].at < 15


async def test_retry_after_has_a_bound() -> None:
    async with http_peer(Reply(503, headers={"Retry-After": "3600"}), Reply()) as peer:
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())))

    assert notified == Notified()
    assert 0.3 <= peer.seen[1].at - peer.seen[0].at < 30


async def test_no_attempt_begins_after_the_deadline() -> None:
    pace = dataclasses.replace(QUICK, longest_wait=timedelta(seconds=60), whole=timedelta(seconds=20))
    async with http_peer(Reply(503, headers={"Retry-After": "30"})) as peer:
        began = time.monotonic()
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())), pace=pace)

    assert notified.failures == ("channel 'oncall' did not tell of r3: HTTP 503 Service Unavailable (1 attempt)",)
    assert time.monotonic() - began < 10
    assert len(peer.seen) == 1


async def test_dead_host() -> None:
    with dead_host() as url:
        notified, _ = await told([webhook(url)], run_of(notice(approval())))

    assert notified.failures == ("channel 'oncall' did not tell of r3: no connection (4 attempts)",)


async def test_slow_host_ends_in_time_and_heartbeats_go_on() -> None:
    environment = ActivityEnvironment()
    beats: list[float] = []
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    pace = dataclasses.replace(QUICK, attempt=timedelta(seconds=1.5), whole=timedelta(seconds=4))
    async with http_peer(Reply(late=30)) as peer:
        began = time.monotonic()
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())), pace=pace, environment=environment)

    assert notified.failures == ("channel 'oncall' did not tell of r3: no answer in time (3 attempts)",)
    assert time.monotonic() - began < 10
    assert len(beats) >= 5
    assert len(peer.seen) == 3


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    """The status has come, and it says that the notice arrived."""
    async with http_peer(Reply(body="begun", is_begun=True)) as peer:
        pace = dataclasses.replace(QUICK, attempt=timedelta(seconds=2))
        notified, _ = await told([webhook(peer.url)], run_of(notice(approval())), pace=pace)

    assert notified == Notified()


async def test_one_that_fails_holds_nobody_back() -> None:
    wait = timedelta(seconds=1)
    pace = dataclasses.replace(QUICK, first_wait=wait, longest_wait=wait)
    async with http_peer(Reply()) as good, http_peer(Reply()) as chat:
        with dead_host() as url:
            channels = [webhook(url, "dead"), webhook(good.url, "good"), slack(chat.url), log_channel()]
            began = asyncio.get_running_loop().time()
            notified, logs = await told(channels, run_of(notice(approval())), pace=pace)

    assert notified.failures == ("channel 'dead' did not tell of r3: no connection (4 attempts)",)
    assert [line["event"] for line in logs] == ["people_asked", "channel_failed"]
    # The dead one is given up after three waits.
    assert max(good.seen[0].at, chat.seen[0].at) - began < 3


async def test_a_fault_of_ours_is_raised_after_the_others_were_told() -> None:
    async with http_peer(Reply(late=0.2)) as peer:
        sender = Broken()
        broken = Channel(LogChannel(name="odd", kind="log"), sender)
        with pytest.raises(ApplicationError) as raised:
            await told([broken, webhook(peer.url)], run_of(notice(approval(1)), notice(approval(2))))

    assert (len(peer.seen), sender.sent) == (2, ["r2"])
    assert raised.value.type == FailureType.CHANNEL_BROKEN
    assert raised.value.non_retryable
    assert str(raised.value).startswith("ChannelBroken: channel 'odd' broke with RuntimeError at test_notification.py:")
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_keys_are_those_of_the_first_attempt_when_the_activity_runs_again() -> None:
    request = run_of(notice(approval(1)), notice(approval(2)), notice(approval(1), "reminder", 1))

    async def keys(peer: HttpPeer, attempt: int) -> list[str]:
        peer.seen.clear()
        await told([webhook(peer.url, "a"), webhook(peer.url, "b")], request, attempt=attempt)
        return sorted(seen.headers["idempotency-key"] for seen in peer.seen)

    async with http_peer(Reply()) as peer:
        first, second = await keys(peer, 1), await keys(peer, 2)

    assert first == second
    assert len(set(first)) == 6


async def test_many_notices_go_to_a_webhook_one_by_one() -> None:
    request = run_of(*(notice(approval(number)) for number in range(1, 201)))
    async with http_peer(Reply()) as peer:
        notified, _ = await told([webhook(peer.url)], request, pace=Pace())

    assert notified == Notified()
    assert {str(seen.json()["request"]["id"]) for seen in peer.seen} == {f"r{n}" for n in range(1, 201)}  # type: ignore[index]
    assert len({seen.headers["idempotency-key"] for seen in peer.seen}) == 200


async def test_failures_of_many_notices_are_one_sentence() -> None:
    request = run_of(*(notice(approval(number)) for number in range(1, 201)))
    async with http_peer(Reply(410)) as peer:
        notified, _ = await told([webhook(peer.url)], request, pace=Pace())

    assert notified.failures == (
        "channel 'oncall' did not tell of r1, r2, r3, r4, r5 and 195 more: HTTP 410 Gone (1 attempt)",
    )


async def test_slack_gets_blocks_and_answers_ok() -> None:
    async with http_peer(Reply()) as peer:
        notified, _ = await told([slack(peer.url)], run_of(notice(approval())))

    assert notified == Notified()
    (seen,) = peer.seen
    assert seen.target == f"/{TOKEN}"
    body = seen.json()
    assert isinstance(body, dict)
    assert body["text"] == "Approval wanted: issue_refund order=81 amount=120 (shop, r3)"
    assert body["blocks"][0]["type"] == "header"


@pytest.mark.parametrize(
    ("reply", "attempts", "reason"),
    [
        (Reply(404, "no_service"), 1, "HTTP 404 Not Found (no_service) (1 attempt)"),
        (Reply(410, "channel_is_archived"), 1, "HTTP 410 Gone (channel_is_archived) (1 attempt)"),
        (Reply(400, "invalid_blocks\n"), 1, "HTTP 400 Bad Request (invalid_blocks) (1 attempt)"),
        (Reply(500, "rollup_error"), 4, "HTTP 500 Internal Server Error (rollup_error) (4 attempts)"),
        (Reply(403, f"<h1>{TOKEN}</h1>"), 1, "HTTP 403 Forbidden (1 attempt)"),
        (
            Reply(200, "<html>Please log in"), 1,
            "the answer is not Slack's 'ok'; its url may be that of something else (1 attempt)",
        ),
    ],
)  # fmt: skip
async def test_slack_says_why_in_a_word(reply: Reply, attempts: int, reason: str) -> None:
    async with http_peer(reply) as peer:
        notified, _ = await told([slack(peer.url)], run_of(notice(approval())))

    assert notified.failures == (f"channel 'finance' did not tell of r3: {reason}",)
    assert len(peer.seen) == attempts


async def test_slack_is_asked_again_after_it_was_busy() -> None:
    async with http_peer(Reply(429, "rate_limited", {"Retry-After": "1"}), Reply()) as peer:
        notified, _ = await told([slack(peer.url)], run_of(notice(approval())))

    assert notified == Notified()
    assert len(peer.seen) == 2


async def test_many_notices_are_one_slack_message() -> None:
    request = run_of(*(notice(approval(number)) for number in range(1, 201)))
    async with http_peer(Reply()) as peer:
        notified, _ = await told([slack(peer.url)], request)

    assert notified == Notified()
    assert len(peer.seen) == 1


async def test_secret_that_went_missing_is_named() -> None:
    spec = WebhookChannel(name="oncall", kind="webhook", url="https://x.example", secret="${secret:GONE}")
    channel = Channel(spec, WebhookSender(HttpPost(), Secrets({}), url=spec.url, secret=spec.secret))

    notified, _ = await told([channel], run_of(notice(approval())))

    assert notified.failures == (
        (
            "channel 'oncall' did not tell of r3: secret 'GONE' is not in the environment, and there is no folder of "
            "secrets (1 attempt)"
        ),
    )


async def test_address_is_checked_each_time() -> None:
    spec = WebhookChannel(name="oncall", kind="webhook", url="${secret:URL}", secret="${secret:HOOK}")
    resolve = Secrets({"HOOK": SECRET, "URL": f"http://x.example/{TOKEN}"})
    channel = Channel(spec, WebhookSender(HttpPost(), resolve, url=spec.url, secret=spec.secret))

    notified, _ = await told([channel], run_of(notice(approval())))

    assert notified.failures == (
        (
            "channel 'oncall' did not tell of r3: its url must begin with https://, or with http:// when the host is "
            "localhost or a loopback address (1 attempt)"
        ),
    )


async def test_log_line_says_what_is_asked_and_how_to_answer() -> None:
    _, logs = await told([log_channel()], run_of(notice(approval(3, need("finance", users=("bob",))), "escalated", 1)))

    assert logs == [
        {
            "event": "people_asked",
            "log_level": "info",
            "workflow_id": "shop-7f3a",
            "agent": "shop",
            "request": "r3",
            "kind": "approval",
            "occasion": "escalated",
            "tool": "issue_refund",
            "waits_for": ["finance", "bob"],
            "expires_at": "2026-11-03T09:00:00+00:00",
            "answer": {"approve": "mandate approve shop-7f3a:r3", "reject": "mandate reject shop-7f3a:r3"},
        }
    ]


async def test_filters_choose_and_a_request_for_no_channel_is_a_warning() -> None:
    async with http_peer(Reply()) as finance, http_peer(Reply()) as questions:
        channels = [
            webhook(finance.url, "a", groups=("finance",), kinds=("approval",)),
            webhook(questions.url, "b", kinds=("question",)),
        ]
        request = run_of(notice(approval(1)), notice(question(2)), notice(approval(3, need("legal"))))
        notified, logs = await told(channels, request)

    assert notified == Notified()
    assert [seen.json()["request"]["id"] for seen in finance.seen] == ["r1"]  # type: ignore[index]
    assert [seen.json()["request"]["id"] for seen in questions.seen] == ["r2"]  # type: ignore[index]
    assert logs == [
        {
            "event": "no_channel_for_request",
            "log_level": "warning",
            "request": "r3",
            "kind": "approval",
            "occasion": "asked",
            "waits_for": ["legal"],
        }
    ]


async def test_cancelled_activity_stops_at_once() -> None:
    environment = ActivityEnvironment()
    async with http_peer(Reply(late=60)) as peer:
        running = asyncio.create_task(told([webhook(peer.url)], run_of(notice(approval())), environment=environment))
        while not peer.seen:
            await asyncio.sleep(0.01)
        environment.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert time.monotonic() - began < 10


async def test_composed_from_settings(tmp_path: Path) -> None:
    async with http_peer(Reply()) as peer:
        (tmp_path / "HOOK").write_text(f"{SECRET}\n")
        file = tmp_path / "channels.yaml"
        file.write_text(
            f"channels:\n  - {{name: oncall, kind: webhook, url: '{peer.url}', secret: '${{secret:HOOK}}'}}\n"
            "  - {name: chat, kind: slack, url: '${secret:CHAT}'}\n"
        )
        settings = Settings.from_environment(
            {"MANDATE_CHANNELS": str(file), "MANDATE_SECRETS": str(tmp_path), "CHAT": f"{peer.url}/chat"}
        )
        activities = notification_activities(settings)
        try:
            notified = await ActivityEnvironment().run(activities.notify_people, run_of(notice(approval())))
        finally:
            await activities.close()

    assert notified == Notified()
    assert sorted(seen.target for seen in peer.seen) == ["/", "/chat"]
