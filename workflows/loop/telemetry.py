"""Telemetry of a run: facts that its workflow code notes for the worker, if the worker wants them.

Facts are noted in replays too, each with the key and the time that it had the first time. So whichever worker goes on
with a run can say all that happened in it, and the worker, which knows what was told, leaves out the rest. Nothing of
this is a command: histories are the same with telemetry and without.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from temporalio import workflow

from mandate.workflows.contracts.telemetry import Fact, Noted, RunIdentity
from mandate.workflows.rules import trace_ids

CALLER = "_tracer-data"
"""Header with the trace context of whoever starts something, as the OpenTelemetry interceptors of Temporal's SDKs
write it: a JSON object with `traceparent`."""

PREVIOUS = "mandate-previous"
"""The same of the part of a run that continued as new."""

_PARENT: ContextVar[str] = ContextVar("telemetry_parent", default="")


class Telemetry:
    """Notes of one part of a run."""

    def __init__(self) -> None:
        offered: Any = workflow.extern_functions()
        self._note: Callable[[Noted], None] | None = offered.get("mandate_note")
        self._identity: RunIdentity | None = None
        self._times: dict[str, int] = {}
        self._noted: set[str] = set()
        self.step_key = ""
        """Key of the answer whose calls are open."""

    @property
    def is_on(self) -> bool:
        return self._note is not None

    @property
    def identity(self) -> RunIdentity:
        if self._identity is None:
            info = workflow.info()
            self._identity = RunIdentity(
                namespace=info.namespace,
                workflow_id=info.workflow_id,
                run_id=info.run_id,
                caller=_read_header(info, CALLER),
                previous=_read_header(info, PREVIOUS),
            )
        return self._identity

    def name(self, base: str) -> str:
        """Return the key of what is about to happen: `base`, with a number where it happened before."""
        if self._note is None:
            return ""
        times = self._times[base] = self._times.get(base, 0) + 1
        return base if times == 1 else f"{base}/{times}"

    def note(
        self,
        key: str,
        make: Callable[[], Fact],
        *,
        began: datetime | None = None,
        parent: str | None = None,
    ) -> None:
        """Note what `make` returns, under a key of `name`; `parent` is the open step if left out.

        What has its cause in an earlier part of the run is below the run.
        """
        if self._note is None or _is_being_evicted():
            return
        self._noted.add(key)
        below = self.step_key if parent is None else parent
        self._note(
            Noted(
                run=self.identity,
                key=key,
                parent=below if below in self._noted else "",
                fact=make(),
                at=workflow.now(),
                began=began,
                event=workflow.info().get_current_history_length(),
                is_replayed=workflow.unsafe.is_replaying(),
            )
        )

    @contextmanager
    def within(self, key: str) -> Iterator[None]:
        """Let what is started meanwhile be caused by `key`."""
        if self._note is None:
            yield
            return
        before = _PARENT.get()
        _PARENT.set(key)
        try:
            yield
        finally:
            # A run that is thrown away ends its coroutines anywhere, where no token of this context counts.
            _PARENT.set(before)

    @property
    def traceparent(self) -> str:
        """The trace context of what is started now."""
        its, key = self.identity, _PARENT.get() or self.step_key or trace_ids.ROOT
        return trace_ids.find_place(its.run_id, its.caller, key).traceparent

    @property
    def root(self) -> str:
        """The trace context of the run itself."""
        return trace_ids.find_place(self.identity.run_id, self.identity.caller).traceparent


def _is_being_evicted() -> bool:
    """Return whether a worker forgets the run, which cancels its tasks: nothing has happened then."""
    try:
        workflow.random()
    except Exception:  # noqa: BLE001 - the SDK's own type has no public name
        return True
    return False


def _read_header(info: workflow.Info, name: str) -> str:
    """Return the `traceparent` in a header; empty where there is none that can be read."""
    payload = info.headers.get(name)
    try:
        content: Any = json.loads(payload.data) if payload is not None else {}
        text = content.get("traceparent", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return text if isinstance(text, str) and trace_ids.read_traceparent(text) is not None else ""
