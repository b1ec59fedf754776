"""Probes as activities: real blobs and toolboxes, patience, and workers that take over."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from mandate.activities.toolbox.http.toolbox import HttpToolbox
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, HttpBinding, Tool, ToolDefinition
from mandate.workflows.contracts.verification import ProbeRequest, ProbeSpec
from tests.support.check_bench import CARD, KEY, Bench
from tests.support.checked import CALLED, say
from tests.support.http_peer import HttpPeer, http_peer


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    async with made.fake:
        yield made
        await made.close()


@pytest.mark.parametrize(
    ("says", "outcome", "reason"),
    [
        ({"done": True}, Outcome.DONE, "'result.done == true' holds; 'find_plain' returned {\"done\":true}"),
        ({"done": False}, Outcome.NOT_DONE, "'result.done == false' holds; 'find_plain' returned {\"done\":false}"),
        (
            {"done": "soon"},
            Outcome.UNKNOWN,
            'no condition of the probe holds; \'find_plain\' returned {"done":"soon"}',
        ),
        (
            {},
            Outcome.UNKNOWN,
            (
                "no condition of the probe holds ('done' cannot be evaluated: the key 'done' is missing; "
                "'not_done' cannot be evaluated: the key 'done' is missing); 'find_plain' returned {}"
            ),
        ),
        (
            ConnectionError("the line broke"),
            Outcome.UNKNOWN,
            "the probe 'find_plain' failed: ConnectionError: the line broke",
        ),
    ],
)
async def test_probe_says_what_its_tool_saw(bench: Bench, says: Any, outcome: Outcome, reason: str) -> None:
    say(says)

    probed = await bench.probe(arguments={"order": 81, "key": KEY})

    assert (probed.outcome, probed.reason) == (outcome, reason)
    assert CALLED[0][0] == {"order": 81, "key": KEY}
    assert (probed.result is None) is isinstance(says, Exception)


async def test_conditions_see_the_call(bench: Bench) -> None:
    say([{"order": 81}])
    spec = {"done": "result.exists(one, one.order == args.order)", "not_done": "size(result) == 0"}

    assert (await bench.probe(spec, index=0)).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"done": "true", "not_done": "true"}, "'done' and 'not_done' of the probe both hold"),
        ({"done": "true", "absent": "true"}, "'done' and 'absent' of the probe both hold"),
        ({"done": "true", "not_done": "true", "absent": "true"}, "'done' and 'not_done' of the probe both hold"),
        ({"done": "false", "not_done": "result.x"}, "no condition of the probe holds ('not_done' cannot be evaluated"),
        ({"done": "result.x", "not_done": "false"}, "no condition of the probe holds ('done' cannot be evaluated"),
    ],
)
async def test_conditions_that_do_not_agree_leave_it_unknown(bench: Bench, spec: dict[str, Any], reason: str) -> None:
    say({})

    probed = await bench.probe(spec)

    assert probed.outcome is Outcome.UNKNOWN
    assert probed.reason.startswith(reason)


@pytest.mark.parametrize(
    ("says", "outcome"),
    [({"refund": {"id": 7}}, Outcome.DONE), ({"error": "no such key"}, Outcome.NOT_DONE), ({}, Outcome.UNKNOWN)],
)
async def test_condition_that_does_not_fit_a_result_does_not_hold(
    bench: Bench, says: dict[str, Any], outcome: Outcome
) -> None:
    """What a service answers when it knows the call and when it does not has seldom the same fields."""
    say(says)

    probed = await bench.probe({"done": "result.refund.id > 0", "not_done": "result.error == 'no such key'"})

    assert probed.outcome is outcome


async def test_absence_is_believed_when_it_has_lasted(bench: Bench) -> None:
    say([])

    probed = await bench.probe({"done": "size(result) > 0", "absent": "size(result) == 0", "patience": "2500ms"})

    assert (probed.outcome, probed.reason) == (
        Outcome.NOT_DONE,
        "'size(result) == 0' holds; 'find_plain' returned []",
    )
    assert len(CALLED) == 3


async def test_call_that_was_still_on_its_way_is_done(bench: Bench) -> None:
    say([], [{"refund": 7}])

    probed = await bench.probe({"done": "size(result) > 0", "absent": "size(result) == 0", "patience": "1h"})

    assert probed.outcome is Outcome.DONE


async def test_absence_before_a_failure_is_not_believed(bench: Bench) -> None:
    say([], ConnectionError("the line broke"))

    probed = await bench.probe({"done": "size(result) > 0", "absent": "size(result) == 0", "patience": "500ms"})

    assert probed.outcome is Outcome.UNKNOWN


async def test_absence_is_not_believed_when_time_ends_before_patience(bench: Bench) -> None:
    say([])
    spec = {"done": "size(result) > 0", "absent": "size(result) == 0", "patience": "1h"}

    probed = await bench.probe(spec, start_to_close_timeout=timedelta(milliseconds=1500))

    assert probed.outcome is Outcome.UNKNOWN


async def test_conditions_that_both_hold_are_not_tried_again(bench: Bench) -> None:
    say({})

    await bench.probe({"done": "true", "not_done": "true", "patience": "1h"})

    assert len(CALLED) == 1


async def test_patience_asks_again_until_it_is_known(bench: Bench) -> None:
    say({"done": None}, ConnectionError("the line broke"), {"done": True})

    probed = await bench.probe({"patience": "1h"})

    assert probed.outcome is Outcome.DONE
    assert len(CALLED) == 3
    assert await bench.text(probed.result) == '{"done":true}'


async def test_patience_ends(bench: Bench) -> None:
    say({"done": None}, ConnectionError("the line broke"))

    probed = await bench.probe({"patience": "2500ms"})

    assert probed.outcome is Outcome.UNKNOWN
    assert len(CALLED) == 3
    assert probed.reason.startswith("no condition of the probe holds")
    assert await bench.text(probed.result) == '{"done":null}'


@pytest.mark.parametrize(("gone", "looks"), [(0.0, 2), (10.0, 1)])
async def test_patience_goes_on_in_another_worker(bench: Bench, gone: float, looks: int) -> None:
    """A worker that takes over has what the first one left, and looks once in any case."""
    say({"done": None})
    scheduled = ActivityEnvironment.default_info().scheduled_time

    probed = await bench.probe({"patience": "900ms"}, attempt=2, started_time=scheduled + timedelta(seconds=gone))

    assert probed.outcome is Outcome.UNKNOWN
    assert len(CALLED) == looks


async def test_probe_that_hangs_is_cut_off_and_tried_again(bench: Bench) -> None:
    say({"done": True})

    probed = await bench.probe(arguments={"seconds": 30.0}, start_to_close_timeout=timedelta(milliseconds=1200))

    assert probed.outcome is Outcome.UNKNOWN
    assert probed.reason == "the probe 'find_plain' failed: 'find_plain' did not answer within 1.1 s"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("pay", {"order": 1, "amount": 1}, "the probe 'pay' failed: 'pay' is no read tool that this worker can call"),
        (
            "find_plain",
            {"order": "x"},
            (
                "the probe 'find_plain' failed: the arguments for 'find_plain' do not fit: "
                'order: "x" is not of type "integer"'
            ),
        ),
    ],
)
async def test_probe_that_can_never_be_asked_is_not_tried_again(
    bench: Bench, tool: str, arguments: JsonObject, reason: str
) -> None:
    say({})

    probed = await bench.probe({"patience": "1h"}, tool=tool, arguments=arguments)

    assert (probed.outcome, probed.reason) == (Outcome.UNKNOWN, reason)
    assert CALLED == []


async def test_probe_of_a_call_that_is_not_there_is_unknown(bench: Bench) -> None:
    agent = await bench.pinned()
    head = await bench.head(agent)
    for index, reason in ((1, "'send' has no probe"), (7, f"the conversation at {head} has no call 7")):
        request = ProbeRequest(agent=agent, head=head, step=1, index=index, key=KEY)

        probed = await bench.environment().run(bench.activities().probe_call, request)

        assert (probed.outcome, probed.reason) == (Outcome.UNKNOWN, reason)


async def test_probe_of_a_call_with_something_sensitive_shows_no_result(bench: Bench) -> None:
    say({"done": True, "card": CARD, "more": "x" * 200})

    probed = await bench.probe(index=0)

    assert (probed.outcome, probed.reason) == (Outcome.DONE, "'result.done == true' holds")
    assert probed.result is not None
    assert probed.result.preview == ""


async def test_each_look_has_a_key_of_its_own_kind(bench: Bench) -> None:
    """The key of the call is for the call: a server that knows it would answer with what it answered then."""
    say({"done": None}, {"done": True})

    await bench.probe({"patience": "1h"})

    keys = {context.idempotency_key for _, context in CALLED if context is not None}
    assert len(keys) == 1
    assert KEY not in keys


async def test_probe_may_be_an_http_request(bench: Bench) -> None:
    async with http_peer() as peer:
        bench.toolboxes["http"] = HttpToolbox(lambda text: text, allowed_hosts=(peer.host,))
        bench.tools.append(_http(peer, "look_up", "/json"))
        bench.tools.append(_http(peer, "gone", "/status/404"))

        here = await bench.probe({"done": "has(result.ok)", "not_done": "!has(result.ok)"}, tool="look_up")
        gone = await bench.probe(tool="gone")
        absent = await bench.probe({"absent": "result == null"}, tool="gone")
        await bench.toolboxes["http"].close()

    assert here.outcome is not Outcome.UNKNOWN
    assert gone.outcome is Outcome.UNKNOWN
    assert gone.reason.startswith("no condition of the probe holds")
    assert gone.reason.endswith("'gone' returned null")
    assert (absent.outcome, absent.reason) == (Outcome.NOT_DONE, "'result == null' holds; 'gone' returned null")


def _http(peer: HttpPeer, name: str, path: str) -> ToolDefinition:
    return ToolDefinition(
        tool=Tool(name=name, source="http", effect=Effect.READ),
        input_schema={"type": "object"},
        binding=HttpBinding(kind="http", method="GET", url=f"{peer.url}{path}"),
    )


@pytest.mark.parametrize("tool", ["find_plain", "find_in_spite"])
async def test_cancelled_activities_stop(bench: Bench, tool: str) -> None:
    say({"done": None})
    agent = await bench.pinned(send=ProbeSpec(tool=tool, patience=timedelta(hours=1)))
    request = ProbeRequest(agent=agent, head=await bench.head(agent), step=1, index=1, key=KEY)
    environment = bench.environment()

    running = asyncio.ensure_future(environment.run(bench.activities().probe_call, request))
    async with asyncio.timeout(30):
        while not CALLED:
            await asyncio.sleep(0.01)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
