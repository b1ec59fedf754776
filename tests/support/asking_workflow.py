"""A stand-in for the run of an agent that wants one thing from people; for servers without Mandate's workers."""

from datetime import timedelta
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from mandate.workflows.contracts.request import Need, OpenRequests, Request

DIGEST = "d" * 43


@workflow.defn(name="AgentWorkflow")
class AskingWorkflow:
    """Waits until it is cancelled; asks the group that it is started with."""

    @workflow.run
    async def run(self, given: dict[str, Any]) -> None:
        self._group = given["group"]
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def open_requests(self) -> OpenRequests:
        now = workflow.info().start_time
        need = Need(rule="large", groups=(self._group,), expires_at=now + timedelta(hours=1))
        request = Request(
            id="r1",
            kind="approval",
            digest=DIGEST,
            title="pay amount=120?",
            tool="pay",
            arguments={"amount": 120},
            reason="rule 'large' asks people about 'pay'",
            step=1,
            head=DIGEST,
            index=0,
            choices=("approve", "reject"),
            needs=(need,),
            requested_at=now,
        )
        info = workflow.info()
        return OpenRequests(
            workflow_id=info.workflow_id,
            run_id=info.run_id,
            agent="till",
            version="v1",
            status="waiting",
            requests=(request,),
        )
