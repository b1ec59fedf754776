"""A connection to a server that knows nothing but updates: what becomes of each is the test's to say."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio.api.enums.v1 import UpdateWorkflowExecutionLifecycleStage as Stage
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.taskqueue.v1 import PollerInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueResponse,
    DescribeWorkflowExecutionResponse,
    UpdateWorkflowExecutionResponse,
)
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient

from mandate.workers.converter import data_converter


@dataclass(frozen=True)
class Sent:
    """One attempt to send a message."""

    workflow_id: str
    update_id: str
    verb: str
    payload: Any
    """As JSON."""

    @property
    def requests(self) -> list[str]:
        """Ids of the requests that it decides on."""
        return [one["request"] for one in self.payload.get("decisions", [self.payload])]


Answer = Callable[[Sent], Awaitable[BaseModel]]
"""What a run returns; it raises `ApplicationError` to refuse and `RPCError` for the server."""


@dataclass
class Log:
    sent: list[Sent] = field(default_factory=list)
    in_flight: dict[str, int] = field(default_factory=dict)
    most_in_flight: dict[str, int] = field(default_factory=dict)
    retries: list[bool] = field(default_factory=list)
    """Whether the SDK was to send it again by itself."""


class UpdateService(ServiceClient):
    def __init__(self, answer: Answer) -> None:
        super().__init__(ConnectConfig(target_host="none"))
        self.log = Log()
        self.api_key: str | None = None
        self.status = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
        self._answer = answer

    @property
    def worker_service_client(self) -> Any:
        raise NotImplementedError

    def update_rpc_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        raise NotImplementedError

    def update_api_key(self, api_key: str | None) -> None:
        self.api_key = api_key

    async def _rpc_call(
        self,
        rpc: str,
        req: Any,
        resp_type: type[Any],
        *,
        service: str,
        retry: bool,
        metadata: Mapping[str, str | bytes],
        timeout: timedelta | None,
    ) -> Any:
        if rpc == "describe_workflow_execution":
            described = DescribeWorkflowExecutionResponse()
            described.workflow_execution_info.status = self.status
            return described
        if rpc == "describe_task_queue":
            return DescribeTaskQueueResponse(pollers=[PollerInfo(identity="1@elsewhere")])
        assert rpc == "update_workflow_execution"
        (payload,) = await data_converter().decode(req.request.input.args.payloads)
        run = req.workflow_execution.workflow_id
        sent = Sent(run, req.request.meta.update_id, req.request.input.name, payload)
        log = self.log
        log.sent.append(sent)
        log.retries.append(retry)
        log.in_flight[run] = log.in_flight.get(run, 0) + 1
        log.most_in_flight[run] = max(log.in_flight[run], log.most_in_flight.get(run, 0))
        response = UpdateWorkflowExecutionResponse(stage=Stage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED)
        try:
            answer = await self._answer(sent)
        except ApplicationError as error:
            await data_converter().encode_failure(error, response.outcome.failure)
        else:
            response.outcome.success.payloads.extend(await data_converter().encode([answer]))
        finally:
            log.in_flight[run] -= 1
        return response


def client_of(service: ServiceClient) -> Client:
    return Client(service, data_converter=data_converter())


def too_many() -> RPCError:
    return RPCError("limit on number of in-flight updates (10) has been reached", RPCStatusCode.RESOURCE_EXHAUSTED, b"")


def aborted() -> RPCError:
    return RPCError("workflow update was aborted", RPCStatusCode.UNAVAILABLE, b"")


def busy() -> RPCError:
    message = "Unable to perform workflow execution update due to Workflow Task in failed state."
    return RPCError(message, RPCStatusCode.FAILED_PRECONDITION, b"")
