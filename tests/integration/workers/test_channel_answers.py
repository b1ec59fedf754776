"""Answers of receivers of notices, whatever bytes are in them: a notice that arrived is told as that, once."""

import json

import pytest

from mandate.activities.channels.base import Channel, DeliveryFailed, Parcel, make_key
from mandate.activities.channels.delivery import Pace, deliver
from mandate.activities.channels.http_post import HttpPost
from mandate.activities.channels.slack import SlackSender
from mandate.activities.channels.webhook import WebhookSender
from mandate.workflows.contracts.channels import LogChannel
from mandate.workflows.contracts.request import Request
from tests.support.http_peer import Reply, http_peer
from tests.support.notices import approval, notice, run_of


def parcel(request: Request | None = None) -> Parcel:
    told = notice(request or approval())
    return Parcel(run_of(told), "default", (told,), make_key("r", (told,), "c"))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"ok"),
        Reply(body=b"\xef\xbb\xbfok\r\n"),
        Reply(body=b"ok", headers={"Content-Type": "text/html; charset=utf-16"}),
        Reply(body=b"ok", headers={"Set-Cookie": "a=b; expires=Wed, 21 Oct 99999 07:28:00 GMT; domain=\x80"}),
    ],
)
async def test_word_of_slack_is_read_in_every_form(reply: Reply) -> None:
    post = HttpPost()
    async with http_peer(reply) as peer:
        sender = SlackSender(post, str, url=f"{peer.url}/services/x")
        await sender.send(parcel())
        await sender.close()

        assert len(peer.seen) == 1


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"\x1f\x8b\x08", "\U0001f600".encode() * 100])
async def test_what_a_webhook_answers_is_not_read(body: bytes) -> None:
    post = HttpPost()
    packed = {"Content-Encoding": "gzip"} if body.startswith(b"\x1f") else {}
    async with http_peer(Reply(body=body, headers=packed)) as peer:
        sender = WebhookSender(post, str, url=f"{peer.url}/hook", secret="s3cr3t")
        await sender.send(parcel())
        await sender.close()

        assert len(peer.seen) == 1


@pytest.mark.parametrize("body", [b"\xff\xfe", b"no_service\x00", b"invalid_\xf0\x9f\x98"])
async def test_refusal_in_odd_bytes_is_told_by_its_status(body: bytes) -> None:
    post = HttpPost()
    async with http_peer(Reply(403, body)) as peer:
        sender = SlackSender(post, str, url=f"{peer.url}/services/x")
        with pytest.raises(DeliveryFailed) as failed:
            await sender.send(parcel())
        await sender.close()

    assert (str(failed.value), failed.value.retry) == ("HTTP 403 Forbidden", False)


@pytest.mark.parametrize("wait", ["Wed, 21 Oct 99999 07:28:00 GMT", "soon", "-1", "1e99", "\xff"])
async def test_wait_that_cannot_be_read_is_the_usual_one(wait: str) -> None:
    post = HttpPost()
    async with http_peer(Reply(503, b"", {"Retry-After": wait}), Reply(body=b"")) as peer:
        sender = WebhookSender(post, str, url=f"{peer.url}/hook", secret="s3cr3t")
        channel = Channel(LogChannel(name="c", kind="log"), sender)
        lost = await deliver(channel, [parcel()], Pace())
        await sender.close()

        assert lost == []
        assert 0.4 < peer.seen[1].at - peer.seen[0].at < 5


async def test_odd_characters_of_a_call_are_sent_as_json() -> None:
    odd = {"text": "a\x00b \U0001f600 \u2028", "half": "x \ud83d"}
    post = HttpPost()
    async with http_peer() as peer:
        sender = WebhookSender(post, str, url=f"{peer.url}/hook", secret="s3cr3t")
        await sender.send(parcel(approval().model_copy(update={"arguments": odd})))
        await sender.close()

        sent = json.loads(peer.seen[0].body)["request"]["arguments"]
    assert sent == {"text": "a\x00b \U0001f600 \u2028", "half": "x \ufffd"}
