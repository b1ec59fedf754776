"""Spans of runs as an OTLP receiver gets them: each once, none missing, nothing that people or models said."""

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from mandate.workers.telemetry.settings import TelemetryError
from tests.support.agents import ALLOW_ALL, Site, continued, new_site
from tests.support.http_peer import http_peer
from tests.support.otlp_receiver import Receiver, receiving, tree
from tests.support.people import ASK_ALL, asked, decide, write_people

PAY = [{"call": [{"look": {"what": "shelf"}}]}, {"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "all done"}]

PAID = [
    "invoke_agent asks",
    "  chat asks.script.yaml",
    "    judge look",
    "    execute_tool look",
    "  chat asks.script.yaml",
    "    judge pay",
    "    ask approval",
    "      answer approved",
    "      decide approve",
    "    execute_tool pay",
    "  chat asks.script.yaml",
    "  end completed",
]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def site(tmp_path: Path, client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    people = str(write_people(tmp_path))
    return new_site(tmp_path, client, MANDATE_PEOPLE=people, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)


@pytest.mark.parametrize("cached", [1000, 0])
async def test_a_run_is_one_tree_of_spans_each_once(site: Site, receiver: Receiver, cached: int) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving(max_cached_workflows=cached):
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await receiver.until(lambda: "ask approval" in receiver.names(handle.id))
        await decide(handle, request, comment="as agreed")
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    spans = receiver.of(handle.id)
    assert tree(spans) == PAID
    assert receiver.repeated() == []
    assert len({span.trace_id for span in spans}) == 1
    waits = [span for span in spans if span.name in {"invoke_agent asks", "ask approval", "decide approve"}]
    assert [span.seconds for span in waits] == [0.0, 0.0, 0.0]
    (asking, deciding) = (next(s for s in spans if s.name == name) for name in ("ask approval", "decide approve"))
    assert deciding.attributes["mandate.request.waited_seconds"] == (deciding.began - asking.began) / 1e9
    said = json.dumps([span.attributes for span in spans])
    for secret in ("all done", "as agreed", "120", "Go on", "ann@example.com", "eve@example.com"):
        assert secret not in said


async def test_a_further_part_of_a_run_is_a_trace_of_its_own_with_a_link(site: Site, receiver: Receiver) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await continued(handle)
        await decide(handle, request)
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    spans = receiver.of(handle.id)
    first, second = (span for span in spans if span.name == "invoke_agent asks")
    assert first.trace_id != second.trace_id
    assert (first.links, second.links) == ((), ((first.trace_id, first.span_id),))
    assert [span.trace_id for span in spans if span.name == "end continued"] == [first.trace_id]
    assert {span.trace_id for span in spans if span.name in {"execute_tool pay", "end completed"}} == {second.trace_id}
    assert receiver.repeated() == []


async def test_children_messages_and_whoever_starts_a_run_are_in_one_trace(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(
        "boss",
        [{"call": [{"worker": {"task": "Look."}}]}, {"say": "done"}],
        tools=[{"agent": "worker"}],
    )
    site.write("worker", [{"call": [{"look": {"what": "a", "seconds": 1.5}}]}, {"say": "It is a."}])
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    monkeypatch.setenv("TRACEPARENT", f"00-{trace}-{caller}-01")

    async with site.serving():
        handle = await site.start("boss")
        await receiver.until(lambda: "invoke_agent worker" in [span.name for span in receiver.spans])
        await handle.signal("steer", {"text": "Hurry.", "by": "ann@example.com"})
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))
        await receiver.until(lambda: "end completed" in receiver.names(f"{handle.id}/c1"))

    spans = sorted((*receiver.of(handle.id), *receiver.of(f"{handle.id}/c1")), key=lambda span: span.began)
    assert {span.trace_id for span in spans} == {trace}
    (root,) = [span for span in spans if span.name == "invoke_agent boss"]
    (below,) = [span for span in spans if span.name == "invoke_agent worker"]
    (call,) = [span for span in spans if span.name == "execute_tool worker"]
    assert (root.parent_id, below.parent_id) == (caller, call.span_id)
    assert [span.parent_id for span in spans if span.name == "message steer"] == [root.span_id]
    assert [span.parent_id for span in spans if span.name == "child completed"] == [call.span_id]
    assert call.attributes["gen_ai.transfer.target.name"] == "worker"


async def test_a_caller_whose_trace_is_not_sampled_gets_no_spans(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("asks", PAY[-1:])
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")

    async with site.serving():
        await (await site.start("asks")).result()
        monkeypatch.delenv("TRACEPARENT")
        sampled = await site.start("asks")
        await sampled.result()
        await receiver.until(lambda: "end completed" in receiver.names(sampled.id))

    assert {span.attributes["gen_ai.conversation.id"] for span in receiver.spans} == {sampled.id}


async def test_a_plan_has_its_advances_and_steps(site: Site, receiver: Receiver) -> None:
    (site.folder / "plans").mkdir()
    site.write("idle", [{"say": "done"}])
    steps = [
        {"id": "first", "tool": "look", "input": {"what": "input"}},
        {"id": "second", "agent": "idle", "input": "steps.first.output", "depends_on": ["first"]},
    ]
    plan = {"name": "two", "steps": steps, "tools": [{"python": "tests.support.toolkit:look"}], "policy": ALLOW_ALL}
    (site.folder / "plans" / "two.yaml").write_text(json.dumps({**plan, "requester": "anyone"}))

    async with site.serving():
        handle = await site.agents.start_plan("two", "shelf", workflow_id=f"two-{site.queue}")
        result = await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    assert str(result.status) == "completed"
    names = tree(receiver.of(handle.id))
    assert names[0] == "invoke_workflow two"
    assert [name.strip() for name in names].count("plan two") == 3
    assert {"    execute_tool look", "    execute_tool idle", "      child completed"} <= set(names)


async def test_trace_context_reaches_http_tools_and_remote_activities(
    site: Site, receiver: Receiver, tmp_path: Path
) -> None:
    seen: list[str] = []

    @activity.defn(name="Charge")
    async def charge(given: dict[str, Any]) -> str:
        seen.append("charged")
        return "charged"

    class Headers(Interceptor):
        def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
            class Inbound(ActivityInboundInterceptor):
                async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
                    seen.append(json.loads(input.headers["_tracer-data"].data)["traceparent"])
                    return await super().execute_activity(input)

            return Inbound(next)

    schema = {"type": "object", "properties": {}}
    async with http_peer() as peer:
        site.environment["MANDATE_HTTP_HOSTS"] = peer.host
        remote = {"name": "Charge", "task_queue": f"{site.queue}-charge"}
        tools = [
            {
                "http": {"method": "POST", "url": peer.url + "/json/send"},
                "name": "send_it",
                "description": "Send.",
                "input_schema": schema,
                "effect": "keyed",
            },
            {"activity": remote, "name": "charge", "description": "Charge.", "input_schema": schema, "effect": "keyed"},
        ]
        site.write("far", [{"call": [{"send_it": {}}, {"charge": {}}]}, {"say": "done"}], tools=tools)
        foreign = Worker(site.client, task_queue=f"{site.queue}-charge", activities=[charge], interceptors=[Headers()])
        async with foreign, site.serving():
            handle = await site.start("far")
            await handle.result()
            await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    spans = {span.name: span for span in receiver.of(handle.id)}
    sent, charged = spans["execute_tool send_it"], spans["execute_tool charge"]
    assert peer.seen[0].headers["traceparent"] == f"00-{sent.trace_id}-{sent.span_id}-01"
    assert seen == [f"00-{charged.trace_id}-{charged.span_id}-01", "charged"]


@pytest.mark.parametrize("records", [False, True])
async def test_arguments_are_in_spans_where_the_agent_file_says_so_and_sensitive_ones_never(
    site: Site, receiver: Receiver, records: bool
) -> None:
    call = {"charge": {"amount": 12.5, "card": "4111222233334444", "shop": "Main Street"}}
    look = {"look": {"what": "the red shelf"}}
    tools = [{"python": "tests.support.card_tools:charge"}, {"python": "tests.support.toolkit:look"}]
    keys = {"record": {"arguments": True}} if records else {}
    site.write("cards", [{"call": [call, look]}, {"say": "done"}], tools=tools, **keys)

    async with site.serving():
        handle = await site.start("cards")
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    said = json.dumps([span.attributes for span in receiver.of(handle.id)])
    looked = next(span for span in receiver.of(handle.id) if span.name == "execute_tool look").attributes
    assert "4111222233334444" not in said
    assert ("the red shelf" in said) is records
    assert len(looked["mandate.arguments.digest"]) == 43
    assert looked["mandate.result.bytes"] == len("looked at the red shelf")
    if records:
        assert json.loads(looked["gen_ai.tool.call.arguments"]) == {"what": "the red shelf"}
        assert looked["gen_ai.tool.call.result"] == "looked at the red shelf"


async def test_nothing_of_telemetry_is_in_histories_where_it_is_off(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("asks", [*PAY[:1], PAY[-1]], policy=ASK_ALL)

    async def headers() -> list[str]:
        async with site.serving():
            handle = await site.start("asks")
            await handle.result()
            history = await handle.fetch_history()
        activities = [event.activity_task_scheduled_event_attributes for event in history.events]
        return [name for scheduled in activities for name in scheduled.header.fields]

    assert await headers() == ["_tracer-data"] * 3
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    del site.environment["OTEL_EXPORTER_OTLP_ENDPOINT"]

    assert await headers() == []


@pytest.mark.parametrize("start", [{"agent": "nobody", "input": "Go on."}, {"agent": 3}, {}])
async def test_a_run_that_fails_at_once_is_a_tree_too(site: Site, receiver: Receiver, start: dict[str, Any]) -> None:
    site.write("asks", PAY[-1:])

    async with site.serving():
        handle = await site.client.start_workflow("AgentWorkflow", start, id=f"bad-{site.queue}", task_queue=site.queue)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        await receiver.until(lambda: "end failed" in receiver.names(handle.id))

    assert tree(receiver.of(handle.id)) == ["invoke_agent unknown", "  end failed"]
    assert "nobody" not in json.dumps([span.attributes for span in receiver.of(handle.id)])


async def test_a_cancelled_run_ends_so_in_its_spans(site: Site, receiver: Receiver) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        await asked(handle)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        await receiver.until(lambda: "end cancelled" in receiver.names(handle.id))

    names = receiver.names(handle.id)
    assert names.count("end cancelled") == 1
    assert receiver.repeated() == []


async def test_checks_and_probes_have_spans(site: Site, receiver: Receiver) -> None:
    checks = [
        {"after": "look", "name": "shelf", "expect": "result.contains('shelf')"},
        {"after": "final", "name": "polite", "expect": "result.contains('done')"},
    ]
    site.write("checked", [PAY[0], PAY[-1]], policy=ASK_ALL, checks=checks)

    async with site.serving():
        handle = await site.start("checked")
        await handle.result()
        await receiver.until(lambda: "end completed" in receiver.names(handle.id))

    found = [
        (span.name, span.attributes["mandate.check.finding"])
        for span in receiver.of(handle.id)
        if "check " in span.name
    ]
    assert found == [("check shelf", "pass"), ("check polite", "pass")]


async def test_spans_that_no_sdk_can_export_are_refused_in_one_sentence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write("asks", PAY)
    for name, value, said in (
        ("OTEL_TRACES_EXPORTER", "jaeger", "the exporter of spans 'jaeger' is not installed"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not one of"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "the exporter of spans 'otlp_proto_grpc' is not installed"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(TelemetryError, match=re.escape(said)):
                async with site.serving():
                    pass
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(TelemetryError, match=re.escape('pip install "mandate-agents[telemetry]"')):
        async with site.serving():
            pass
