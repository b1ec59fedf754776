"""Activities of somebody else's worker as tools."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told

SEEN: list[tuple[str, list[Any], int]] = []


@activity.defn(name="Charge")
async def charge(amount: float, currency: str) -> dict[str, Any]:
    SEEN.append((activity.info().activity_id, [amount, currency], activity.info().attempt))
    if currency == "FLAKY" and activity.info().attempt == 1:
        raise RuntimeError("the line broke")
    if currency == "LOST":
        raise RuntimeError("the line broke")
    if currency == "POOR":
        raise ApplicationError("no money on it", type="CardDeclined")
    if currency == "HUGE":
        return {"text": "x" * 300_000}
    return {"charged": amount, "currency": currency}


@activity.defn(name="Describe")
async def describe(whole: dict[str, Any]) -> str:
    SEEN.append((activity.info().activity_id, [whole], activity.info().attempt))
    return "it is " + whole["what"]


def entry(queue: str, effect: str, **settings: Any) -> dict[str, Any]:
    return {
        "activity": {"name": "Charge", "task_queue": queue},
        "name": "charge",
        "description": "Charge a card.",
        "input_schema": {
            "type": "object",
            "properties": {"amount": {"type": "number"}, "currency": {"type": "string"}},
            "required": ["amount", "currency"],
        },
        "arguments": ["amount", "currency"],
        "effect": effect,
        "retries": 2,
        "failed_types": ["CardDeclined"],
        **settings,
    }


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


@pytest.fixture
async def payments(client: Client) -> AsyncIterator[str]:
    """A foreign worker with the SDK's own converter."""
    queue = f"payments-{time.monotonic_ns()}"
    foreign = await Client.connect(client.service_client.config.target_host)
    async with Worker(foreign, task_queue=queue, activities=[charge, describe]):
        yield queue


def seen_with(currency: str, amount: float) -> list[tuple[str, list[Any], int]]:
    return [call for call in SEEN if call[1] == [amount, currency]]


@pytest.mark.parametrize(
    ("effect", "currency", "attempts", "status", "told"),
    [
        ("keyed", "EUR", 1, RunStatus.COMPLETED, '{"charged":5.0,"currency":"EUR"}'),
        ("keyed", "FLAKY", 2, RunStatus.COMPLETED, '{"charged":5.0,"currency":"FLAKY"}'),
        ("keyed", "POOR", 1, RunStatus.COMPLETED, "CardDeclined: no money on it"),
        ("once", "POOR", 1, RunStatus.COMPLETED, "CardDeclined: no money on it"),
        ("once", "LOST", 1, RunStatus.DECLINED, None),
        ("keyed", "LOST", 3, RunStatus.DECLINED, None),
        ("once", "HUGE", 1, RunStatus.COMPLETED, "done, but its result of 300011 bytes is over the limit of 262144"),
    ],
)  # fmt: skip
async def test_positional_activity(
    site: Site, payments: str, effect: str, currency: str, attempts: int, status: RunStatus, told: str | None
) -> None:
    amount = float(5 if currency in ("EUR", "FLAKY") else time.monotonic_ns() % 10**9)
    turns = [{"call": [{"charge": {"amount": amount, "currency": currency}}]}, {"say": "done"}]
    site.write("remote", turns, tools=[entry(payments, effect)])
    before = len(seen_with(currency, amount))

    result, _ = await site.run("remote")

    calls = seen_with(currency, amount)[before:]
    assert result.status is status
    assert [attempt for _, _, attempt in calls] == list(range(1, attempts + 1))
    assert len({key for key, _, _ in calls}) == 1
    if told is not None:
        assert (await results_told(site, result.head or ""))[0].text == told
    else:
        assert [entry.key for entry in result.uncertain] == [calls[0][0]]
    if status is RunStatus.COMPLETED and currency != "POOR":
        assert result.effects.last[0].key == calls[0][0]


async def test_activity_with_one_object(site: Site, payments: str) -> None:
    tool = {
        "activity": {"name": "Describe", "task_queue": payments},
        "name": "describe",
        "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
        "effect": "read",
    }
    long = "long " * 1000
    site.write("remote", [{"call": [{"describe": {"what": long}}]}, {"say": "done"}], tools=[tool])

    result, _ = await site.run("remote")

    assert (await results_told(site, result.head or ""))[0].text == f'"it is {long}"'


async def test_arguments_beyond_what_temporal_carries_are_refused(site: Site, payments: str) -> None:
    turns = [{"call": [{"charge": {"amount": 1.0, "currency": "x" * 300_000}}]}, {"say": "done"}]
    site.write("remote", turns, tools=[entry(payments, "keyed")])

    result, _ = await site.run("remote")

    assert "the limit is 262144" in (await results_told(site, result.head or ""))[0].text


DENY = [{"id": "none", "match": {"sources": ["activity"]}, "verdict": "deny"}]


async def test_denied_activity_is_never_scheduled(site: Site, payments: str) -> None:
    turns = [{"call": [{"charge": {"amount": 77.5, "currency": "EUR"}}]}, {"say": "done"}]
    site.write("remote", turns, tools=[entry(payments, "keyed")], policy=DENY)

    result, _ = await site.run("remote")

    assert seen_with("EUR", 77.5) == []
    assert "rule 'none' denies 'charge'" in (await results_told(site, result.head or ""))[0].text
