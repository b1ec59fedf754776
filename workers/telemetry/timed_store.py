"""A store that measures the time of its answers."""

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mandate.activities.stores.base import BlobStore
from mandate.workers.telemetry.metrics import Metrics


def time_store(store: BlobStore, metrics: Metrics) -> BlobStore:
    """Return `store`, whose operations are measured, those that fail too."""
    for name in dir(BlobStore):
        operation = getattr(store, name, None)
        if not name.startswith("_") and name != "close" and inspect.iscoroutinefunction(operation):
            setattr(store, name, _timed(name, cast(Callable[..., Awaitable[Any]], operation), metrics))
    return store


def _timed(name: str, operation: Callable[..., Awaitable[Any]], metrics: Metrics) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(operation)
    async def timed(*args: Any, **options: Any) -> Any:
        began, outcome = time.perf_counter(), "failed"
        try:
            answer = await operation(*args, **options)
            outcome = "ok"
            return answer
        finally:
            metrics.record("mandate_store_seconds", time.perf_counter() - began, operation=name, outcome=outcome)

    return timed
