"""Workers that poll a task queue, so far as the server knows: it names those of the last minutes, gone ones too."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client


@dataclass(frozen=True, slots=True)
class Poller:
    """One worker, and when its last poll began."""

    identity: str
    begun_ns: int
    """By the server's clock."""

    @property
    def is_here(self) -> bool:
        """True if it is, by its name, a process of this machine, and there is one of that number."""
        return self._is_running is True

    @property
    def is_gone(self) -> bool:
        """True if it is such a process, and there is none of that number."""
        return self._is_running is False

    @property
    def _is_running(self) -> bool | None:
        """State of its process on this machine; `None` where its name does not tell of one here."""
        pid, _, host = self.identity.partition("@")
        if not pid.isdecimal() or host != socket.gethostname():
            return None
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True


async def list_pollers(client: Client, queue: str) -> tuple[Poller, ...]:
    """Return the workers that have asked for workflow tasks of `queue` lately.

    Raises:
        RPCError: the server does not tell.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    described = await client.workflow_service.describe_task_queue(request)
    return tuple(Poller(found.identity, found.last_access_time.ToNanoseconds()) for found in described.pollers)


async def find_unserved(client: Client, workflow_id: str, queue: str | None = None) -> str | None:
    """Return the task queue of a run if no worker polls it; of one that may not be there, its `queue` is given.

    Raises:
        RPCError: the server does not tell.
    """
    queue = queue or (await client.get_workflow_handle(workflow_id).describe()).task_queue
    return None if await list_pollers(client, queue) else queue


def describe_unserved(queue: str) -> str:
    return f"no worker polls task queue {queue!r}"


def may_poll(before: Iterable[Poller], after: Iterable[Poller]) -> bool:
    """Tell whether somebody polls, by two looks between which there was work to take.

    Who takes it begins another poll. A process of this machine that is there may just have much to do.
    """
    known = {poller.identity: poller.begun_ns for poller in before}
    return any(poller.is_here or known.get(poller.identity) != poller.begun_ns for poller in after)
