"""Checks and probes as activities over a store in a folder, with real toolboxes and a fake provider."""

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.testing import ActivityEnvironment

from mandate.activities.failures import make_model_failure
from mandate.activities.providers.base import Provider
from mandate.activities.providers.openai_responses import OpenAiResponses
from mandate.activities.stores.address import open_store
from mandate.activities.toolbox import decorator
from mandate.activities.toolbox.python import PythonToolbox
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.activities.transcript.results import store
from mandate.activities.verification import VerificationActivities
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.tool import ToolDefinition, ToolResult
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Message, TextPart, UserMessage
from mandate.workflows.contracts.verification import (
    CheckRequest,
    CheckResult,
    CheckSpec,
    Probed,
    ProbeRequest,
    ProbeSpec,
)
from tests.support import checked
from tests.support.fake_provider.server import FakeProvider

KEY = "k" * 43
CARD = "4111-1111-1111-1111"


class Bench:
    """Activities over a store in a folder, and a conversation whose last answer calls `pay` and `send`."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeProvider()
        self.blobs = Blobs(open_store(f"sqlite:///{folder}/store.db"))
        self.transcript = TranscriptLog(self.blobs)
        self.toolboxes: dict[str, Any] = {"python": PythonToolbox()}
        self.tools: list[ToolDefinition] = [
            decorator.define_tool(function)
            for function in (checked.find, checked.find_plain, checked.find_in_spite, checked.pay, checked.send)
        ]
        self.output_schema: JsonObject | None = None
        self.beats: list[tuple[Any, ...]] = []
        self.arguments: JsonObject = {"order": 81, "amount": 2.5, "card": CARD}
        self._made: dict[str, Provider] = {}

    async def provider(self, name: str) -> Provider:
        if name != "openai":
            raise make_model_failure("configuration", f"this worker has no provider {name!r}; it has: openai")
        if name not in self._made:
            self._made[name] = OpenAiResponses(api_key="sk-secret", base_url=f"{self.fake.url}/v1")
        return self._made[name]

    async def close(self) -> None:
        for provider in self._made.values():
            await provider.close()
        await self.blobs.close()

    async def pinned(self, *checks: CheckSpec, **probes: ProbeSpec) -> str:
        agent = PinnedAgent(
            name="shop",
            instructions="Persuade.",
            models=("openai:gpt-6-sol",),
            tools=tuple(self.tools),
            policy=(),
            checks=checks,
            probes=probes,
            attempts=3,
            budget=Budget(),
            output_schema=self.output_schema,
            max_output_tokens=1000,
        )
        (digest,) = await self.blobs.put(canonical_json(agent.model_dump(mode="json")))
        return digest

    async def head(self, agent: str, *more: Message) -> str:
        """The conversation's, with `more` messages after the first."""
        chain = await self.transcript.start(agent, said("Refund order 81."))
        calls = (
            CallPart(kind="call", call_id="c1", tool="pay", arguments=json.dumps(self.arguments)),
            CallPart(kind="call", call_id="c2", tool="send", arguments='{"to": "ann"}'),
        )
        messages = more or (answer("Trust me, it is right.", *calls),)
        return (await self.transcript.append(chain, agent, messages)).head

    def activities(self) -> VerificationActivities:
        return VerificationActivities(self.toolboxes, PinnedAgents(self.blobs), self.transcript, self.provider)

    def environment(self, **info: Any) -> ActivityEnvironment:
        environment = ActivityEnvironment()
        defaults: dict[str, Any] = {
            "attempt": 1,
            "heartbeat_timeout": timedelta(seconds=5),
            "start_to_close_timeout": timedelta(seconds=60),
        }
        environment.info = dataclasses.replace(ActivityEnvironment.default_info(), **(defaults | info))
        environment.on_heartbeat = lambda *beat: self.beats.append(beat)
        return environment

    async def check(
        self,
        spec: dict[str, Any],
        result: str | ToolResult | None = '{"status":"settled","amount":2.5}',
        *,
        index: int | None = 0,
        arguments: JsonObject | None = None,
        messages: tuple[Message, ...] = (),
        edited: str | None = None,
        **info: Any,
    ) -> CheckResult:
        """One attempt of one check, the last one unless `info` says otherwise."""
        after = "final" if index is None else ("pay", "send")[index]
        check = CheckSpec.model_validate({"name": "c", "after": after, "retries": 0, **spec})
        agent = await self.pinned(check)
        request = CheckRequest(
            agent=agent,
            check="c",
            head=await self.head(agent, *messages),
            step=2,
            index=index,
            result=await store(self.blobs, result) if isinstance(result, str) else result,
            edited=edited,
            key=KEY,
            arguments=arguments or {},
        )
        return await self.environment(**info).run(self.activities().verify_result, request)

    async def probe(
        self,
        spec: dict[str, Any] | None = None,
        *,
        tool: str = "find_plain",
        arguments: JsonObject | None = None,
        index: int = 1,
        **info: Any,
    ) -> Probed:
        probe = ProbeSpec.model_validate({"tool": tool, "patience": "1ms", **(spec or {})})
        agent = await self.pinned(**{("pay", "send")[index]: probe})
        head = await self.head(agent)
        request = ProbeRequest(agent=agent, head=head, step=2, index=index, key=KEY, arguments=arguments or {})
        return await self.environment(**info).run(self.activities().probe_call, request)

    async def text(self, result: ToolResult | None) -> str:
        assert result is not None
        return result.text if result.text is not None else (await results.load_content(self.blobs, result)).decode()


def said(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def answer(text: str, *calls: CallPart) -> AssistantMessage:
    parts = (TextPart(kind="text", text=text), *calls)
    return AssistantMessage(role="assistant", parts=parts, protocol="scripted", model="x")
