"""What people say to a run never reaches a later run of the same workflow id."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import (
    Client,
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)

from mandate.workers.client import messages
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.request import EVERY, REJECT, Decision, Halt, Steering, Stop
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, continued, new_site, parts_taken
from tests.support.people import write_people
from tests.support.toolkit import LET_GO

BY = "ann@example.com"
TURNS: list[Any] = [{"call": [{"look": {"what": "x", "held": True}}]}, {"say": "done"}]


class Reusing(Interceptor):
    """The run is gone when the first message to it is on its way, and another one has its workflow id."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.later: WorkflowHandle[Any, Any] | None = None

    def intercept_client(self, following: OutboundInterceptor) -> OutboundInterceptor:
        return _Reusing(following, self)


class _Reusing(OutboundInterceptor):
    def __init__(self, following: OutboundInterceptor, reusing: Reusing) -> None:
        super().__init__(following)
        self._reusing = reusing

    async def start_workflow_update(self, message: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:
        its = self._reusing
        if its.later is None:
            await its.site.client.get_workflow_handle(message.id).terminate()
            its.later = await its.site.start("busy", workflow_id=message.id, again=True)
        return await super().start_workflow_update(message)


@pytest.mark.parametrize(
    "say",
    [
        lambda client, run: messages.stop(client, run, Stop(by=BY)),
        lambda client, run: messages.pause(client, run, Halt(by=BY)),
        lambda client, run: messages.steer(client, run, Steering(by=BY, text="Use euros.")),
        lambda client, run: messages.decide(client, run, Decision(request=EVERY, choice=REJECT, by=BY)),
    ],
    ids=["stop", "pause", "steer", "reject everything"],
)
async def test_message_is_for_the_run_that_had_the_id(
    tmp_path: Path, client: Client, say: Callable[[Client, str], Awaitable[object]]
) -> None:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    site.write("busy", TURNS)
    reusing = Reusing(site)
    config = client.config()
    config["interceptors"] = [*config["interceptors"], reusing]

    async with site.serving():
        first = await site.start("busy")
        with pytest.raises(messages.NoRun, match=rf"^run '{first.id}' is over$"):
            await say(Client(**config), first.id)
        LET_GO.add(first.id)
        assert reusing.later is not None
        result = await reusing.later.result()

    assert (result.status, result.usage.model_calls) == (RunStatus.COMPLETED, 2)


async def test_message_reaches_a_run_that_has_continued_as_new(tmp_path: Path) -> None:
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        people = str(write_people(tmp_path))
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=people)
        site.write("asks", [{"call": [{"ask_person": {"question": "Which?"}}]}, {"say": "done"}])
        async with site.serving():
            handle = await site.start("asks")
            await continued(handle)
            await messages.stop(site.client, handle.id, Stop(by=BY))
            result = await handle.result()
            parts = await parts_taken(site.client, handle.id)

    assert parts > 1
    assert result.status == RunStatus.STOPPED


async def test_message_to_an_id_that_no_run_has_is_told_so(client: Client) -> None:
    with pytest.raises(messages.NoRun, match=r"^there is no run 'nobody-0'$"):
        await messages.stop(client, "nobody-0", Stop(by=BY))
