"""A conversation with a script, turn by turn."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.scripted.provider import ScriptedProvider
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.transcript import AssistantMessage, ResultPart, TextPart, UserMessage


def asked(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def answered(message: AssistantMessage, *results: object, note: str | None = None, errors: int = 0) -> UserMessage:
    """One answer for each call; the first `errors` of them are errors."""
    parts: list[ResultPart | TextPart] = [
        ResultPart(
            kind="result",
            call_id=call.call_id,
            tool=call.tool,
            text=result if isinstance(result, str) else json.dumps(result),
            error=index < errors,
        )
        for index, (call, result) in enumerate(zip(message.calls, results, strict=False))
    ]
    if note is not None:
        parts.append(TextPart(kind="text", text=note))
    return UserMessage(role="user", parts=tuple(parts))


class Play:
    """A conversation with a script in a folder."""

    def __init__(self, folder: Path, text: str = "hello") -> None:
        self.folder = folder
        self.provider = ScriptedProvider([folder])
        self.conversation = Conversation([asked(text)])

    async def last(self) -> str:
        """The answer when a limit leaves only one more."""
        return (await self.provider.complete(replace(self.prompt(), is_last=True))).message.text

    async def turn(self, attempt: int = 1, timeout: float = 5.0) -> Completion:
        completion = await self.provider.complete(self.prompt(attempt, timeout))
        self.conversation = self.conversation.extend(completion.message)
        return completion

    def prompt(self, attempt: int = 1, timeout: float = 5.0) -> Prompt:
        return Prompt(
            model="play.yaml",
            instructions="Be kind.",
            tools=(),
            agent="a" * 43,
            conversation=self.conversation,
            max_output_tokens=100,
            timeout=timedelta(seconds=timeout),
            attempt=attempt,
        )

    def answer(self, *results: object, note: str | None = None, errors: int = 0) -> None:
        message = self.conversation.last_assistant()
        assert message is not None
        self.conversation = self.conversation.extend(answered(message, *results, note=note, errors=errors))


PlayScript = Callable[..., Play]


def player(folder: Path) -> PlayScript:
    """Starts a conversation with a script that it writes into `folder`."""

    def start(script: str, text: str = "hello") -> Play:
        (folder / "play.yaml").write_text(dedent(script))
        return Play(folder, text)

    return start


async def refusal(play: Play, attempt: int = 1) -> str:
    with pytest.raises(ApplicationError) as caught:
        await play.turn(attempt)
    assert caught.value.non_retryable
    assert caught.value.type == FailureType.MODEL_REJECTED
    return caught.value.message


def arguments(completion: Completion) -> list[object]:
    return [json.loads(call.arguments) for call in completion.message.calls]
