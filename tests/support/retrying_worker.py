"""A worker that repeats whatever fails, as most runtimes do: `python -m tests.support.retrying_worker worker`.

The crash suite must catch it. Three things are taken from a worker: that a call which may happen once has one attempt,
that a failure whose outcome is unknown is not retried, and the ledger of what was begun.
"""

import dataclasses
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner

from mandate.activities import failures
from mandate.activities.stores.sqlite import SqliteStore
from mandate.workers import worker
from mandate.workers.main import main
from mandate.workflows import steps


def _replace(owner: Any, name: str, made: Any) -> None:
    """Like an assignment, but of something that is there: else this worker would be an honest one."""
    assert hasattr(owner, name), f"{owner!r} has no {name!r} any more"
    setattr(owner, name, made)


def _retryable(*given: Any, **named: Any) -> ApplicationError:
    error = _honest_failure(*given, **named)
    delay = timedelta(milliseconds=200)
    return ApplicationError(error.message, *error.details, type=error.type, next_retry_delay=delay)


def _always(*given: Any, **named: Any) -> RetryPolicy:
    policy: RetryPolicy = _honest_retries(*given, **named)
    return dataclasses.replace(policy, maximum_attempts=6, non_retryable_error_types=None)


async def _claim(self: SqliteStore, key: str) -> bool:
    return True


def _unsandboxed(*, sandboxed: bool = True) -> UnsandboxedWorkflowRunner:
    return UnsandboxedWorkflowRunner()


_honest_failure = failures.make_tool_failure
_honest_retries = steps._retries

_replace(failures, "make_tool_failure", _retryable)
_replace(steps, "_retries", _always)
_replace(SqliteStore, "claim", _claim)
# In the sandbox the workflow would have a copy of its own, without the changes.
_replace(worker, "workflow_runner", _unsandboxed)


if __name__ == "__main__":
    main()
