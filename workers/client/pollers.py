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
    def is_gone(self) -> bool:
        """True if it is a process of this machine, by its name, which has none of that number."""
        pid, _, host = self.identity.partition("@")
        if not pid.isdecimal() or host != socket.gethostname():
            return False
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False
        return False

    @property
    def is_here(self) -> bool:
        """True if it is a process of this machine that is there."""
        return self.identity.partition("@")[2] == socket.gethostname() and not self.is_gone


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


def may_poll(before: Iterable[Poller], after: Iterable[Poller]) -> bool:
    """Tell whether somebody polls, by two looks between which there was work to take.

    Who takes it begins another poll. A process of this machine that is there may just have much to do.
    """
    known = {poller.identity: poller.begun_ns for poller in before}
    return any(poller.is_here or known.get(poller.identity) != poller.begun_ns for poller in after)
