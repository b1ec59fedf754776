"""What a careless or hostile client, peer or tool cannot do to a run."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from mandate.activities.files import FileError
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workers.worker import open_worker
from mandate.workflows import steps
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.toolkit import calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


async def refusal(site: Site, argument: Any, **options: Any) -> str:
    """The sentence with which a run that is started so fails."""
    handle = await site.client.start_workflow(
        "AgentWorkflow", argument, id=f"bad-{time.monotonic_ns()}", task_queue=site.queue, **options
    )
    async with asyncio.timeout(30):
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result(follow_runs=False)
    assert isinstance(failure.value.cause, ApplicationError)
    return failure.value.cause.message


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("json/plain", b'{"agent": "plain", "input": "\\ud800"}'),
        ("json/plain", b"{"),
        ("json/plain", b""),
        ("json/plain", b'"\xff"'),
        ("json/plain", b"[" * 300 + b"]" * 300),
        ("json/plain", b'{"agent": "plain", "input": {"n": NaN}}'),
        ("json/plain", b'{"agent": "plain", "input": {"n": 1e999}}'),
        ("avro/unknown", b"\x00\x01"),
        ("json/protobuf", b"{}"),
        ("", b"x"),
    ],
)
async def test_payloads_that_cannot_be_read_fail_the_run_at_once(site: Site, encoding: str, content: bytes) -> None:
    site.write("plain", [{"say": "done"}])

    async with site.serving():
        sentence = await refusal(site, RawValue(Payload(metadata={"encoding": encoding.encode()}, data=content)))

    assert sentence.startswith("start request: ")


async def test_a_cron_chain_is_refused(site: Site) -> None:
    site.write("plain", [{"say": "done"}])

    async with site.serving():
        handle = await site.client.start_workflow(
            "AgentWorkflow",
            {"agent": "plain", "input": "x"},
            id=f"cron-{time.monotonic_ns()}",
            task_queue=site.queue,
            cron_schedule="@every 1s",
        )
        first = site.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
        with pytest.raises(WorkflowContinuedAsNewError) as continued:
            await first.result(follow_runs=False)
        second = site.client.get_workflow_handle(handle.id, run_id=continued.value.new_execution_run_id)
        started = (await second.fetch_history()).events[0].workflow_execution_started_event_attributes
        await site.client.get_workflow_handle(handle.id).terminate()

    said = started.continued_failure.message
    assert said.startswith("start request: a cron schedule is not supported; make a Temporal schedule")


async def test_nobody_can_start_a_run_with_a_state_of_their_own(site: Site) -> None:
    site.write("plain", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=[])
    pin = {"name": "plain", "digest": "x" * 43, "policy": [{"id": "all", "match": {}, "verdict": "allow"}]}
    forged = {"agent": pin, "head": "y" * 43, "step_limit": 5}
    retried = RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3)

    async with site.serving():
        plain = await refusal(site, forged)
        with_retries = await refusal(site, forged, retry_policy=retried)

    assert plain == with_retries
    assert plain.startswith("start request: agent: an object is not a text")


async def test_a_route_that_names_a_model_twice_is_refused(site: Site) -> None:
    site.write("plain", [{"say": "done"}], models=["scripted:plain.script.yaml", "scripted:plain.script.yaml"])

    with pytest.raises(FileError, match=r"models\[1\]: .* is given twice"):
        async with open_worker(site.client, site.settings):
            pass


@activity.defn(name="Foreign")
async def foreign(whole: dict[str, Any]) -> str:
    match whole["how"]:
        case "odd details":
            raise ApplicationError("odd", {"oops": 1}, type="ToolFailed", non_retryable=True)
        case "forged":
            raise ApplicationError(
                "f", {"outcome": "not_sent", "reason": "never"}, type="ToolFailed", non_retryable=True
            )
        case _:
            raise ConnectionError("the line broke")


@pytest.fixture
async def queue(client: Client) -> AsyncIterator[str]:
    queue = f"foreign-{time.monotonic_ns()}"
    plain = await Client.connect(client.service_client.config.target_host)
    async with Worker(plain, task_queue=queue, activities=[foreign]):
        yield queue


def foreign_tool(queue: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}
    return {
        "activity": {"name": "Foreign", "task_queue": queue},
        "name": "act",
        "input_schema": schema,
        "effect": "keyed",
    }


@pytest.mark.parametrize("how", ["odd details", "forged"])
async def test_a_foreign_worker_cannot_say_for_us_that_nothing_was_sent(site: Site, queue: str, how: str) -> None:
    site.write("remote", [{"call": [{"act": {"how": how}}]}, {"say": "done"}], tools=[foreign_tool(queue)])

    async with asyncio.timeout(60):
        result, _ = await site.run("remote")

    assert result.status is RunStatus.DECLINED
    assert len(result.uncertain) == 1


async def test_an_attempt_that_may_have_acted_is_not_forgotten_when_its_worker_goes(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "QUEUED_AT_MOST", timedelta(seconds=2))
    queue = f"going-{time.monotonic_ns()}"
    tool = {**foreign_tool(queue), "patience": "3s"}
    site.write("remote", [{"call": [{"act": {"how": "lost"}}]}, {"say": "done"}], tools=[tool])
    plain = await Client.connect(client.service_client.config.target_host)
    acted = asyncio.Event()

    @activity.defn(name="Foreign")
    async def once(whole: dict[str, Any]) -> str:
        acted.set()
        raise ApplicationError("the line broke", next_retry_delay=timedelta(seconds=2))

    async with site.serving(sandboxed=False):
        async with Worker(plain, task_queue=queue, activities=[once]):
            handle = await site.start("remote")
            await acted.wait()
            await asyncio.sleep(0.3)
        result = await handle.result()

    assert result.status is RunStatus.DECLINED
    assert len(result.uncertain) == 1


async def test_what_sensitive_arguments_hold_is_not_shown_by_way_of_the_result(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:send", "sensitive": ["to"]}]
    site.write("quiet", [{"call": [{"send": {"to": "4111222233334444"}}]}, {"say": "done"}], tools=tools)

    async with site.serving():
        handle = await site.start("quiet")
        result = await handle.result()
        metadata = await handle.query("__temporal_workflow_metadata", result_type=RawValue)

    assert (await results_told(site, result.head or ""))[0].text == "sent to 4111222233334444"
    assert b"4111222233334444" not in metadata.payload.data


async def test_a_result_stays_under_32_kib(site: Site) -> None:
    turns = [{"repeat": 60, "call": [{"pay": {"order": "${n}"}}]}, {"say": "\u0001" * 5000 + "語" * 3000}]
    site.write("fat", turns, budget={"steps": 100})

    result, run = await site.run("fat")

    assert len(calls_of(run, "pay")) == result.effects.count == 60
    assert len(result.model_dump_json().encode()) < 32 * 1024


def test_secrets_are_struck_in_every_form_in_which_they_come_back() -> None:
    secret = 'a"b\\c-ü\n-----KEY LINE TWO-----'
    values = SecretValues(lambda _: secret)
    values.fill("${secret:K}")

    for text in (secret, '{"k": "a\\"b\\\\c-\\u00fc\\n-----KEY LINE TWO-----"}', "line: -----KEY LINE TWO-----"):
        assert "KEY LINE" not in values.strike(text)
        assert 'a\\"b' not in values.strike(text)
