"""Workflows of others that bear our name: what they say of requests is taken for nobody else's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from mandate.workers.client import answers, inbox
from tests.support.agents import Site, new_site
from tests.support.people import asked

STATUS = SearchAttributeKey.for_keyword("AgentStatus")


@workflow.defn(name="AgentWorkflow", sandboxed=False)
class Impostor:
    """Says of its requests what it is told to say."""

    def __init__(self) -> None:
        self.answer: Any = None

    @workflow.run
    async def run(self, answer: Any) -> None:
        self.answer = answer
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def open_requests(self) -> Any:
        return self.answer


@pytest.fixture
async def foreign(client: Client) -> AsyncIterator[str]:
    queue = f"foreign-{uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=[Impostor], workflow_runner=UnsandboxedWorkflowRunner()):
        yield queue


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("of another run", "it answers for another run, "),
        ([1], "it answers with something that is no list of requests"),
        ({"requests": 7}, "it answers with something that is no list of requests"),
        (None, "it answers with something that is no list of requests"),
    ],
)
async def test_one_that_lies_is_silent_and_keeps_no_other_from_the_inbox(
    site: Site, client: Client, foreign: str, answer: Any, why: str
) -> None:
    """Else a person would see a lookup, and approve with its number what another run wants to do."""
    ask = [{"id": "asks", "match": {"tools": ["pay"]}, "verdict": "ask"}]
    site.write("asks", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=ask, people={"expires": "60s"})
    async with site.serving():
        genuine = await site.start("asks")
        (request,) = await asked(genuine)
        told = await answers.open_requests(client, genuine.id)
        lie = {**told.model_dump(mode="json"), "requests": [{**request.model_dump(mode="json"), "title": "read it?"}]}
        attributes = TypedSearchAttributes([SearchAttributePair(STATUS, "waiting")])
        liar = await client.start_workflow(
            "AgentWorkflow",
            lie if answer == "of another run" else answer,
            id=uuid4().hex,
            task_queue=foreign,
            search_attributes=attributes,
        )

        with pytest.raises(answers.NotAnswering, match=why):
            await answers.open_requests(client, liar.id)
        read = await inbox.read_inbox(client, scan=True)
        await liar.terminate()
        await genuine.terminate()

    assert [run.requests[0].title for run in read.runs if run.workflow_id == genuine.id] == ["pay order=1?"]
    assert [one.reason.startswith(why) for one in read.silent if one.workflow_id == liar.id] == [True]
