"""Results that answer equal calls: for whom, of which calls, and what happens without the store."""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.keyring import Keyring
from mandate.activities.own_files import OwnFiles
from mandate.activities.result_cache import ResultCache
from mandate.activities.stores.base import KeptResult, StoreUnavailable
from mandate.activities.tool import ToolActivities
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import AskedQuestion, AsksPeople, CallContext, ToolText
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import AnsweredQuestions, Dialogue
from mandate.workflows.contracts.tool import (
    ActivityBinding,
    CacheHit,
    Effect,
    HttpBinding,
    McpBinding,
    McpServer,
    PythonBinding,
    RemoteActivity,
    Tool,
    ToolDefinition,
    ToolRequest,
    ToolResult,
)
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, TextPart, UserMessage
from tests.support.memory_store import MemoryStore

TEN_MINUTES = timedelta(minutes=10)
LONG = "x" * 300


def python(**more: Any) -> ToolDefinition:
    tool = Tool.model_validate({"name": "look", "source": "python", "effect": Effect.READ, **more.pop("tool", {})})
    whole: dict[str, Any] = {
        "tool": tool,
        "input_schema": {"type": "object"},
        "binding": PythonBinding(kind="python", function="a:b"),
        "cache": TEN_MINUTES,
        **more,
    }
    return ToolDefinition(**whole)


def http(**more: Any) -> ToolDefinition:
    binding = {"kind": "http", "method": "GET", "url": "https://x.example/", **more}
    tool = Tool(name="look", source="http", effect=Effect.READ)
    return python(tool=tool.model_dump(), binding=HttpBinding.model_validate(binding))


def mcp(**more: Any) -> ToolDefinition:
    server = McpServer.model_validate({"name": "files", "command": ("x",), **more})
    tool = Tool(name="look", source="mcp", effect=Effect.READ)
    return python(tool=tool.model_dump(), binding=McpBinding(kind="mcp", server=server, tool="look"))


ACT = python(tool={"name": "act", "effect": Effect.KEYED}, cache=None)


class Bench:
    """A worker with one tool, which answers as it is told, and a store that others may share."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        secrets: Mapping[str, str] | None = None,
        own: OwnFiles | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        self.blobs = Blobs(self.store)
        self.keyring = keyring or Keyring(self.store)
        self.answer: ToolText | Exception = ToolText("found")
        self.calls: list[JsonObject] = []
        self._log = TranscriptLog(self.blobs)
        cache = ResultCache(self.blobs, self.keyring, Secrets(secrets or {}))
        boxes = dict.fromkeys(("python", "http", "mcp"), self)
        self._activities = ToolActivities(boxes, PinnedAgents(self.blobs), self._log, own, cache=cache)

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        self.calls.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        pass

    async def run(
        self,
        definition: ToolDefinition,
        arguments: str = "{}",
        *,
        info: Mapping[str, Any] | None = None,
        agent: str = "refunds",
        before: tuple[str | None, ...] = (),
        **request: Any,
    ) -> ToolResult | ApplicationError:
        """One call of the tool by a run of an agent; `before` are the tools that it called in the steps before."""
        await self.keyring.refresh()
        pinned = PinnedAgent(
            name=agent, instructions="i", models=("scripted:x",), tools=(definition, ACT), policy=(), attempts=3,
            budget=Budget(), output_schema=None, max_output_tokens=10,
        )  # fmt: skip
        (digest,) = await self.blobs.put(canonical_json(pinned.model_dump(mode="json")))
        chain = await self._log.start(digest, UserMessage(role="user", parts=(TextPart(kind="text", text="go"),)))
        for tool in (*before, definition.tool.name):
            call = CallPart(kind="call", call_id="c1", tool=tool or "gone", arguments=arguments)
            said = AssistantMessage(role="assistant", parts=(call,) if tool else (), protocol="scripted", model="x")
            chain = await self._log.append(chain, digest, [said])
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(ActivityEnvironment.default_info(), **(info or {}))
        step = len(before) + 1
        asked = ToolRequest.model_validate({"agent": digest, "head": chain.head, "step": step, **request})
        try:
            return await environment.run(self._activities.run_tool, asked)
        except ApplicationError as error:
            return error


async def made(bench: Bench, *calls: tuple[ToolDefinition, dict[str, Any]]) -> int:
    """How many of these calls reached the tool."""
    before = len(bench.calls)
    for definition, how in calls:
        assert isinstance(await bench.run(definition, **how), ToolResult)
    return len(bench.calls) - before


@pytest.mark.parametrize("text", ["found", "", LONG, "é" * 200])
async def test_equal_call_is_answered_with_the_result_and_the_call_that_it_is_of(text: str) -> None:
    bench = Bench()
    bench.answer = ToolText(text)
    first = await bench.run(python(), '{"a": 1, "b": 2}', info={"workflow_id": "refunds-1"})
    bench.answer = ToolText("another")

    again = await bench.run(python(), '{"b":2,"a":1}', info={"workflow_id": "refunds-2"})

    assert isinstance(first, ToolResult)
    assert isinstance(again, ToolResult)
    assert first.cached is None
    assert again == first.model_copy(
        update={"cached": CacheHit(run="refunds-1", run_id="test-run", step=1, seconds=0), "quick": again.quick}
    )
    assert len(bench.calls) == 1


async def test_kept_is_what_says_whose_it_is_and_for_how_long() -> None:
    bench = Bench()
    bench.answer = ToolText(LONG)

    result = await bench.run(python(), info={"workflow_id": "refunds-1"})

    assert isinstance(result, ToolResult)
    assert result.digest is not None
    ((kept, lifetime),) = bench.store.kept.values()
    assert kept == KeptResult("look", "refunds", result.digest, 300, "refunds-1", "test-run", 1)
    assert lifetime == TEN_MINUTES


@pytest.mark.parametrize(
    ("before", "run_id", "is_made"),
    [
        ((), "other", False),
        (("look", None, "look"), "other", False),
        # What another run has seen may be from before this one acted.
        (("act",), "other", True),
        (("look", "act", "look"), "other", True),
        # The result of its own step 2, once before it acted, once in the same step, once after it.
        (("look", "look", "act"), "own", True),
        (("look", "act", "look"), "own", True),
        (("act", "look", "look"), "own", False),
        (("act", "look", "act"), "own", True),
    ],
)
async def test_run_that_acted_sees_only_what_it_has_looked_up_since(
    before: tuple[str | None, ...], run_id: str, is_made: bool
) -> None:
    bench = Bench()
    await bench.run(python(), before=("look",), info={"workflow_run_id": run_id})

    result = await bench.run(python(), before=before, info={"workflow_run_id": "own"})

    assert isinstance(result, ToolResult)
    assert (len(bench.calls) == 2, result.cached is None) == (is_made, is_made)
    # What it looked up then is there for others.
    assert isinstance(again := await bench.run(python(), info={"workflow_run_id": "third"}), ToolResult)
    assert again.cached is not None
    assert again.cached.run_id == ("own" if is_made else run_id)


async def test_run_whose_conversation_does_not_go_back_to_its_beginning_may_have_acted() -> None:
    bench = Bench()
    await bench.run(python(), info={"workflow_run_id": "own"}, step=9)
    await bench.run(python(cache=timedelta(1)), info={"workflow_run_id": "other"}, step=9)

    own = await bench.run(python(), info={"workflow_run_id": "own"}, step=9)
    other = await bench.run(python(cache=timedelta(1)), info={"workflow_run_id": "own"}, step=9)

    assert isinstance(own, ToolResult)
    assert isinstance(other, ToolResult)
    assert (own.cached is not None, other.cached is not None) == (True, False)


@pytest.mark.parametrize(
    ("definition", "how", "other"),
    [
        (python(), {}, {"arguments": '{"a": 1}'}),
        (python(), {}, {"info": {"namespace": "other"}}),
        (python(), {}, {"info": {"task_queue": "other"}}),
        (http(headers={"X-By": "${run.requester}"}), {"requester": "ann"}, {"requester": "bob"}),
        (http(url="https://x.example/${run.requester}"), {"requester": "ann"}, {"requester": "bob"}),
        (http(method="POST", body={"by": ["${run.requester}"]}), {"requester": "ann"}, {"requester": "bob"}),
        (http(headers={"X-Run": "${run.workflow_id}"}), {}, {"info": {"workflow_id": "other"}}),
    ],
)
async def test_call_of_another_tenant_requester_or_arguments_is_made(
    definition: ToolDefinition, how: dict[str, Any], other: dict[str, Any]
) -> None:
    assert await made(Bench(), (definition, how), (definition, other), (definition, how), (definition, other)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (python(), python(description="Look again.")),
        (python(), python(input_schema={"type": "object", "properties": {}})),
        (python(), python(binding=PythonBinding(kind="python", function="a:c"))),
        (python(), python(tool={"name": "look2"})),
        (http(), http(method="POST")),
        (http(), http(url="https://y.example/")),
        (http(), http(headers={"A": "b"})),
        (mcp(), mcp(command=("y",))),
        (mcp(), mcp(env={"A": "b"})),
    ],
)
async def test_call_of_a_tool_that_is_defined_in_another_way_is_made(
    one: ToolDefinition, other: ToolDefinition
) -> None:
    assert await made(Bench(), (one, {}), (other, {}), (one, {}), (other, {})) == 2


@pytest.mark.parametrize(
    "definition",
    [
        http(headers={"Authorization": "Bearer ${secret:TOKEN}"}),
        mcp(env={"TOKEN": "${secret:TOKEN}"}),
        mcp(command=(), url="https://x.example/", headers={"Authorization": "Bearer ${secret:TOKEN}"}),
    ],
)
async def test_call_with_another_credential_is_made_and_the_key_tells_nothing_of_it(
    definition: ToolDefinition,
) -> None:
    store = MemoryStore()
    ann, bob = Bench(store, secrets={"TOKEN": "ann-secret"}), Bench(store, secrets={"TOKEN": "bob-secret"})

    for bench in (ann, bob, ann, bob):
        assert isinstance(await bench.run(definition), ToolResult)

    assert (len(ann.calls), len(bob.calls)) == (1, 1)
    assert all(len(key) == 36 for key in store.kept)
    assert all("secret" not in f"{key} {kept}" for key, kept in store.kept.items())


async def test_result_of_a_call_during_which_a_secret_changed_is_not_kept() -> None:
    secrets = {"TOKEN": "ann-secret"}

    class Rotating(Bench):
        async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
            secrets["TOKEN"] = "bob-secret"
            return await super().call(definition, arguments, context)

    bench = Rotating(secrets=secrets)

    assert isinstance(await bench.run(http(headers={"A": "${secret:TOKEN}"})), ToolResult)
    assert bench.store.kept == {}


async def test_key_is_of_the_installation() -> None:
    """Who reads the store cannot try which arguments a result is of: the keys of two installations differ."""
    one, other = Bench(), Bench()

    await one.run(python())
    await other.run(python())

    assert list(one.store.kept) != list(other.store.kept)


async def test_requesters_and_runs_share_what_does_not_depend_on_them() -> None:
    how = [{"requester": "ann"}, {"requester": "bob"}, {"info": {"workflow_id": "other"}}, {"agent": "orders"}]

    assert await made(Bench(), *((http(), each) for each in how)) == 1


@pytest.mark.parametrize(
    "definition",
    [
        python(cache=None),
        python(tool={"effect": Effect.IDEMPOTENT}),
        python(tool={"sensitive": ("card",)}),
        http(headers={"X-Id": "${key}"}),
    ],
)
async def test_tool_that_keeps_nothing_is_called_each_time(definition: ToolDefinition) -> None:
    bench = Bench()

    assert await made(bench, (definition, {"key": "k" * 43}), (definition, {"key": "k" * 43})) == 2
    assert bench.store.kept == {}


QUESTION = AsksPeople(
    Outcome.NOT_DONE, "files", (AskedQuestion("q", "Which?", None),), Dialogue(requests={}, responses={}, round=1)
)


@pytest.mark.parametrize(
    "answer",
    [
        ToolText("no such order", error=True),
        ToolText("404", error=True, is_missing=True),
        ToolText("done, but its result is lost", is_lost=True),
        ToolError(Outcome.NOT_DONE, "no"),
        ToolError(Outcome.UNKNOWN, "cut"),
        QUESTION,
    ],
)
async def test_what_is_no_whole_result_is_not_kept(answer: ToolText | Exception) -> None:
    bench = Bench()
    bench.answer = answer

    await bench.run(python())
    await bench.run(python())

    assert len(bench.calls) == 2
    assert bench.store.kept == {}


async def test_call_that_goes_on_after_people_answered_neither_keeps_nor_takes_a_result() -> None:
    bench = Bench()
    await bench.run(python())
    before = dict(bench.store.kept)
    dialogue = Dialogue(requests={}, responses={}, round=1)
    (state,) = await bench.blobs.put(canonical_json(dialogue.model_dump(mode="json")))
    bench.answer = ToolText("as people said")

    result = await bench.run(python(), answers=AnsweredQuestions(state=state, given=(), round=1))

    assert isinstance(result, ToolResult)
    assert (result.text, result.cached) == ("as people said", None)
    assert bench.store.kept == before


async def test_secrets_of_a_tool_that_stands_in_no_file_of_the_worker_are_not_read() -> None:
    class Unread(dict[str, str]):
        def get(self, *_: Any) -> Any:
            raise AssertionError("a secret was read")

    bench = Bench(secrets=Unread(), own=OwnFiles())

    refused = await bench.run(http(headers={"A": "${secret:TOKEN}"}))

    assert isinstance(refused, ApplicationError)
    assert "the files of this worker do not name the host and headers of 'x.example'" in refused.message
    assert bench.calls == []


async def test_secret_that_is_missing_leaves_the_call_to_say_so() -> None:
    bench = Bench()

    assert await made(bench, (http(headers={"A": "${secret:TOKEN}"}), {})) == 1
    assert bench.store.kept == {}


class Unreachable(MemoryStore):
    """A store whose kept results cannot be reached."""

    async def cached(self, key: str) -> KeptResult | None:
        raise StoreUnavailable("the store is away")

    async def keep(self, key: str, result: KeptResult, lifetime: timedelta) -> None:
        raise StoreUnavailable("the store is away")


async def test_without_the_store_the_call_is_made_and_the_log_says_so() -> None:
    bench = Bench(Unreachable())

    with capture_logs() as logs:
        assert await made(bench, (python(), {}), (python(), {})) == 2

    told = [(line["tool"], line["reason"]) for line in logs if line["event"] == "result_cache_unavailable"]
    assert told == [("look", "the store is away")] * 4


async def test_result_whose_text_is_gone_from_the_store_is_none() -> None:
    store = MemoryStore()
    bench = Bench(store)
    bench.answer = ToolText(LONG)
    result = await bench.run(python())
    assert isinstance(result, ToolResult)
    del store.held[result.digest or ""]
    other = Bench(store, keyring=bench.keyring)

    assert await made(other, (python(), {})) == 1


async def test_attempt_after_a_worker_was_killed_between_keeping_and_answering_is_answered() -> None:
    bench = Bench()
    await bench.run(python(), info={"workflow_id": "refunds-1"})

    again = await bench.run(python(), info={"workflow_id": "refunds-1", "attempt": 2})

    assert isinstance(again, ToolResult)
    assert (again.text, again.attempts) == ("found", 2)
    assert len(bench.calls) == 1


async def test_activity_of_others_is_not_ours_to_keep() -> None:
    remote = RemoteActivity(name="Find", task_queue="q")
    definition = python(
        tool={"source": "activity", "remote": remote}, binding=ActivityBinding(kind="activity", activity=remote)
    )
    bench = Bench()

    assert isinstance(await bench.run(definition), ApplicationError)
    assert bench.store.kept == {}
