"""Clients: connecting to Temporal, and starting and reading runs."""

import atexit
import secrets
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from temporalio.client import Client, WorkflowHandle
from temporalio.envconfig import ClientConfig

from workers.converter import data_converter
from workflows.contracts import queues
from workflows.contracts.run import RunRequest, RunResult
from workflows.rules import refusals

# The SDK's threads may still hold Python objects when the interpreter goes down: without this pause before it does,
# one process in ten aborts at exit.
atexit.register(time.sleep, 0.05)

DEFAULT_ADDRESS = "localhost:7233"


async def connect(
    *,
    address: str | None = None,
    namespace: str | None = None,
    profile: str | None = None,
    identity: str | None = None,
) -> Client:
    """A client configured as the Temporal CLI would be: profile file, then environment, then the arguments here.

    Raises:
        RuntimeError: the server cannot be reached.
    """
    config: dict[str, Any] = dict(ClientConfig.load_client_connect_config(profile))
    config.setdefault("target_host", DEFAULT_ADDRESS)
    overrides = {"target_host": address, "namespace": namespace, "identity": identity}
    config |= {name: value for name, value in overrides.items() if value is not None}
    return await Client.connect(**config, data_converter=data_converter())


class AgentClient:
    """Starts runs and reads their results; any other Temporal client can do the same with one JSON argument."""

    def __init__(self, client: Client, task_queue: str = queues.AGENTS) -> None:
        self.client = client
        self._task_queue = task_queue

    async def start(
        self,
        agent: str,
        input: str | Mapping[str, Any],  # noqa: A002 - the public name of the field
        *,
        workflow_id: str | None = None,
        requester: str | None = None,
        labels: Mapping[str, str] | None = None,
        steps: int | None = None,
    ) -> WorkflowHandle[Any, RunResult]:
        """Start a run of `agent`.

        Args:
            agent: name of an agent file of the workers.
            input: what the agent is asked, a text or an object.
            workflow_id: of the run; `<agent>-<8 hex digits>` if left out.
            requester: who asks, for the record and for finding the run.
            labels: for finding the run.
            steps: a lower limit of model calls than the agent file's.

        Raises:
            ValueError: a value does not fit `RunRequest`; the sentence names the field and what is allowed.
            WorkflowAlreadyStartedError: a run with this id is still running.
        """
        given = {
            "agent": agent,
            "input": input if isinstance(input, str) else dict(input),
            "requester": requester,
            "labels": dict(labels or {}),
            "budget": {"steps": steps} if steps is not None else None,
        }
        try:
            request = RunRequest.model_validate(given)
        except ValidationError as error:
            raise ValueError(refusals.sentences(error, RunRequest, unshown=("input",))) from None
        return await self.client.start_workflow(
            "AgentWorkflow",
            request.model_dump(mode="json", exclude_defaults=True),
            id=workflow_id or new_workflow_id(agent),
            task_queue=self._task_queue,
            result_type=RunResult,
            static_summary=f"{agent}: {_first_words(request.input)}",
        )

    def handle(self, workflow_id: str, run_id: str | None = None) -> WorkflowHandle[Any, RunResult]:
        """A run by its workflow id."""
        return self.client.get_workflow_handle(workflow_id, run_id=run_id, result_type=RunResult)


def new_workflow_id(agent: str) -> str:
    """An id that says whose run it is."""
    return f"{agent}-{secrets.token_hex(4)}"


def _first_words(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 100 else f"{line[:99]}…"
