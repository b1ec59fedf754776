"""Notices as messages of a Slack incoming webhook."""

import json
import re

from mandate.activities.channels import slack_blocks
from mandate.activities.channels.base import DeliveryFailed, Parcel
from mandate.activities.channels.http_post import Answered, HttpPost
from mandate.activities.channels.webhook import resolve_text
from mandate.activities.toolbox.base import ResolveSecrets
from mandate.workflows.contracts.request import Notice
from mandate.workflows.rules import surrogates

APART = 5
"""Most notices that have a message each: Slack takes one message a second, and people read no more."""

_SLACK_WORD = re.compile(r"[a-z][a-z_]{1,39}")
"""Slack says what is wrong in one word, for example `no_service`."""


class SlackSender:
    """One message a notice; more than a few at once share a message that lists them."""

    at_once = 1
    waits_for_others = True

    def __init__(self, post: HttpPost, resolve: ResolveSecrets, *, url: str) -> None:
        """Take `url`, which holds `${secret:NAME}`, resolved at each attempt."""
        self._post = post
        self._resolve = resolve
        self._url = url

    def bundle(self, notices: tuple[Notice, ...]) -> tuple[tuple[Notice, ...], ...]:
        return tuple((notice,) for notice in notices) if len(notices) <= APART else (notices,)

    async def send(self, parcel: Parcel) -> None:
        url = resolve_text(self._resolve, self._url)
        body = json.dumps(surrogates.repair_json(slack_blocks.build_message(parcel))).encode()
        try:
            answer = await self._post(url, body, {"Idempotency-Key": parcel.key})
        except Answered as error:
            word = error.text.strip()
            if not _SLACK_WORD.fullmatch(word) or word in url:
                raise
            raise DeliveryFailed(f"{error} ({word})", retry=error.retry, retry_after=error.retry_after) from None
        if answer.removeprefix("\ufeff").strip() != "ok":
            raise DeliveryFailed("the answer is not Slack's 'ok'; its url may be that of something else", retry=False)

    async def close(self) -> None:
        await self._post.close()
